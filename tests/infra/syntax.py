"""Bicep's grammar: tree-sitter-bicep, and three rules that it leaves to the compiler."""

from __future__ import annotations

import re
from collections.abc import Iterator

import tree_sitter_bicep
from tree_sitter import Language, Node, Parser

PARSER = Parser(Language(tree_sitter_bicep.language()))
ESCAPE = re.compile(r"\\(?!['\\nrt$]|u\{[0-9A-Fa-f]{1,6}\})")
COMMENTS = ("comment", "diagnostic_comment")
LISTS = ("infrastructure", "object", "array")


def parse(source: str) -> Node:
    """Return the tree of a template; `faults` finds the errors in it."""
    return PARSER.parse(source.encode()).root_node


def parts(node: Node) -> list[Node]:
    """Return the parts of a node, without punctuation and comments."""
    return [child for child in node.named_children if child.type not in COMMENTS]


def text(node: Node) -> str:
    """Return the source text of the node."""
    return (node.text or b"").decode()


def line(node: Node) -> int:
    """Return the line on which a node begins, counted from 1."""
    return node.start_point.row + 1


def literal(node: Node) -> str | None:
    """Return the value of a string, if it is constant."""
    if node.type != "string" or any(child.type == "interpolation" for child in node.named_children):
        return None
    return "".join(text(child) for child in node.named_children)


def key(node: Node) -> str | None:
    """Return the name of an object's property, or None if it is computed."""
    return text(node) if node.type == "identifier" else literal(node)


def entries(node: Node) -> list[tuple[Node, Node]]:
    """Return the names and values of an object's properties."""
    pairs = [parts(child) for child in parts(node) if child.type == "object_property"]
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]


def faults(node: Node) -> Iterator[tuple[int, str]]:
    """Yield line and reason for everything that the grammar refuses."""
    if node.type == "ERROR" or node.is_missing:
        yield line(node), f"syntax error at {text(node)[:40]!r}"
        return
    if node.type == "string" and not text(node).startswith("'''") and (bad := ESCAPE.search(text(node))):
        yield line(node), f"unknown escape {text(node)[bad.start() : bad.start() + 2]}"
    if node.type in LISTS:
        yield from _crowded(node)
    for child in node.children:
        if (
            child.has_error
            or child.is_missing
            or child.named_child_count
            or child.type in ("string", "ERROR")
        ):
            yield from faults(child)


def _crowded(node: Node) -> Iterator[tuple[int, str]]:
    """Yield pairs of declarations, properties or items on one line without a comma between them."""
    before: Node | None = None
    for child in node.children:
        if child.type in COMMENTS:
            continue
        if before and child.is_named and before.is_named and child.start_point.row == before.end_point.row:
            yield line(child), "a new line or a comma is missing"
        before = child
