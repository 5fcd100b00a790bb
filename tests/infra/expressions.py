"""Find the type of an expression, and check that all names in it exist."""

from __future__ import annotations

from collections.abc import Callable

from tree_sitter import Node

from tests.infra.functions import FUNCTIONS
from tests.infra.syntax import entries, key, line, literal, parts, text
from tests.infra.types import ANY, BOOL, INT, REQUIRED, STRING, Type, array, record

Say = Callable[[int, str], None]
NOTHING = Type({"kind": "any"})  # the items of an empty list
COMPARISONS = {"==", "!=", "<", ">", "<=", ">=", "&&", "||", "=~", "!~"}


class Scope:
    """The names that are valid in a file, and in a loop or lambda also its own names."""

    def __init__(self, names: dict[str, Type], say: Say, used: set[str] | None = None) -> None:
        self.names, self.say = names, say
        self.used = set() if used is None else used

    def inner(self, **names: Type) -> Scope:
        """Return the scope with a loop's names added."""
        return Scope({**self.names, **names}, self.say, self.used)

    def type_of(self, node: Node) -> Type:
        """Return the type as exactly as it is known, or ANY. Every name in the expression is checked."""
        rule = getattr(self, f"_{node.type}", None)
        if rule is None:
            for child in parts(node):
                self.type_of(child)
            return ANY
        found: Type = rule(node)
        return found

    def _string(self, node: Node) -> Type:
        for child in node.named_children:
            if child.type == "interpolation":
                self.type_of(parts(child)[0])
        value = literal(node)
        return STRING if value is None else Type({"kind": "string", "values": [value]})

    def _number(self, node: Node) -> Type:
        return Type({"kind": "int", "values": [text(node)]})

    def _boolean(self, node: Node) -> Type:
        return BOOL

    def _identifier(self, node: Node) -> Type:
        name = text(node)
        self.used.add(name)
        if name not in self.names:
            self.say(line(node), f"{name} is declared nowhere")
        return self.names.get(name, ANY)

    def _parenthesized_expression(self, node: Node) -> Type:
        return self.type_of(parts(node)[0])

    def _array(self, node: Node) -> Type:
        items = [self.type_of(item) for item in parts(node)]
        return array(merged(items) if items else NOTHING)

    def _object(self, node: Node) -> Type:
        found: dict[str, tuple[Type, int]] = {}
        extra = None
        for name, value in entries(node):
            known = key(name)
            if known is None:
                self.type_of(name)
                extra = ANY
            inner = self.type_of(value)
            if known is not None:
                found[known] = (inner, REQUIRED)
        return record(found, extra)

    def _member_expression(self, node: Node) -> Type:
        owner, name = parts(node)
        return self._property(self.type_of(owner), text(name), node)

    def _subscript_expression(self, node: Node) -> Type:
        owner, index = parts(node)
        inside, name = self.type_of(owner), literal(index)
        self.type_of(index)
        if name is not None:
            return self._property(inside, name, node)
        return inside.item if inside.kind == "array" else ANY

    def _property(self, owner: Type, name: str, node: Node) -> Type:
        if owner.kind not in ("object", "any"):
            self.say(line(node), f"{text(node)}: {owner.kind} has no properties")
            return ANY
        if name in owner.properties:
            return owner.properties[name][0]
        if owner.extra is None and owner.kind == "object":
            self.say(line(node), f"{text(node)}: there is no {name}")
        return owner.extra or ANY

    def _call_expression(self, node: Node) -> Type:
        callee, arguments = parts(node)
        found = [self.type_of(argument) for argument in parts(arguments)]
        if callee.type != "identifier":
            return ANY if text(callee).split(".")[0] in ("az", "sys") else self.type_of(callee)
        if text(callee) not in FUNCTIONS:
            self.say(line(node), f"no function {text(callee)} is known")
            return ANY
        fewest, most, answer = FUNCTIONS[text(callee)]
        if not fewest <= len(found) <= most:
            self.say(line(node), f"{text(callee)} does not take {len(found)} arguments")
        return self._combined(text(callee), found) if answer is None else answer

    def _combined(self, name: str, found: list[Type]) -> Type:
        """Return the type of `union` and `concat` of known types; for other calls the type is not
        determined."""
        if name == "concat" and all(part.kind == "array" for part in found):
            return merged(found)
        if name == "union" and all(part.kind == "object" for part in found):
            extra = next((part.extra for part in found if part.extra), None)
            return record({name: item for part in found for name, item in part.properties.items()}, extra)
        return ANY

    def _ternary_expression(self, node: Node) -> Type:
        _, then, otherwise = (self.type_of(part) for part in parts(node))
        return merged([then, otherwise])

    def _binary_expression(self, node: Node) -> Type:
        left, right = (self.type_of(part) for part in parts(node))
        sign = next((text(child) for child in node.children if not child.is_named), "")
        if sign in COMPARISONS:
            return BOOL
        if sign == "??":
            return right if left.kind == "any" else left
        return INT

    def _unary_expression(self, node: Node) -> Type:
        inner = self.type_of(parts(node)[0])
        return BOOL if text(node).startswith("!") else inner

    def _for_statement(self, node: Node) -> Type:
        return array(self.loop(node)[0].type_of(parts(node)[-1]))

    def loop(self, node: Node) -> tuple[Scope, Node]:
        """Return the scope inside a loop, and the loop's body."""
        head, over, body = parts(node)
        names = [text(part) for part in (parts(head) if head.type == "for_loop_parameters" else [head])]
        item = self.type_of(over)
        kinds = (item.item if item.kind == "array" else ANY, INT)
        return self.inner(**dict(zip(names, kinds, strict=False))), body

    def _lambda_expression(self, node: Node) -> Type:
        head, body = parts(node)
        names = [text(part) for part in (parts(head) if head.type == "parenthesized_expression" else [head])]
        self.inner(**dict.fromkeys(names, ANY)).type_of(body)
        return ANY


def merged(found: list[Type]) -> Type:
    """Return the type that holds for all of several types. An empty list has no information about its
    items."""
    kinds = {one.kind for one in found}
    if len(kinds) != 1 or not kinds <= {"string", "int", "bool", "array", "object"}:
        return ANY
    first = found[0]
    if first.kind == "array":
        filled = [one.item for one in found if one.entry.get("item") is not NOTHING]
        return array(merged(filled) if filled else NOTHING)
    if first.kind == "object":
        return _merged_objects(found)
    known = all(one.values for one in found)
    return Type(
        {"kind": first.kind, "values": sorted(set().union(*(one.values for one in found))) if known else ()}
    )


def _merged_objects(found: list[Type]) -> Type:
    names = {name: None for one in found for name in one.properties}
    together = {}
    for name in names:
        there = [one.properties[name][0] for one in found if name in one.properties]
        together[name] = (merged(there), REQUIRED if len(there) == len(found) else 0)
    return record(together, ANY if any(one.extra for one in found) else None)
