"""Values that are known only during the deployment. Names and scopes must not depend on them."""

from __future__ import annotations

from tree_sitter import Node

from tests.infra.syntax import parts, text

KNOWN_AT_START = ("id", "name", "type", "apiVersion")


def waits_for(node: Node, kinds: dict[str, str]) -> str | None:
    """Return the first part of an expression that is known only after a resource or module was deployed."""
    if node.type == "member_expression":
        owner, name = parts(node)
        kind = kinds.get(text(owner))
        if kind == "module" or (kind == "resource" and text(name) not in KNOWN_AT_START):
            return text(node)
    return next((found for part in parts(node) if (found := waits_for(part, kinds))), None)
