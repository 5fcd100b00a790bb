"""Values that the deployment itself brings forth: names and scopes cannot wait for them."""

from __future__ import annotations

from tree_sitter import Node

from tests.infra.syntax import parts, text

KNOWN_AT_START = ("id", "name", "type", "apiVersion")


def waits_for(node: Node, kinds: dict[str, str]) -> str | None:
    """The first part of an expression that is known only when a resource or module has been deployed."""
    if node.type == "member_expression":
        owner, name = parts(node)
        kind = kinds.get(text(owner))
        if kind == "module" or (kind == "resource" and text(name) not in KNOWN_AT_START):
            return text(node)
    return next((found for part in parts(node) if (found := waits_for(part, kinds))), None)
