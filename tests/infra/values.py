"""Check that the values in a template match their types."""

from __future__ import annotations

import re

from tree_sitter import Node

from tests.infra.expressions import NOTHING, Scope
from tests.infra.findings import Fault, Report
from tests.infra.syntax import entries, key, line, literal, parts, text
from tests.infra.types import ANY, READ_ONLY, REQUIRED, Type


class Checker:
    """Compare the values of one file with types, and count the comparisons."""

    def __init__(self, file: str, report: Report) -> None:
        self.file, self.report = file, report

    def say(self, at: int, why: str) -> None:
        """Record a fault."""
        self.report.faults.add(Fault(self.file, at, why))

    def value(self, node: Node, target: Type, scope: Scope, path: str) -> None:
        """Check an expression for which `target` is the expected type."""
        if node.type == "object" and target.kind in ("object", "tagged"):
            self.fields(node, self._variant(node, target), scope, path)
        elif node.type == "array" and target.kind == "array":
            for number, item in enumerate(parts(node)):
                self.value(item, target.item, scope, f"{path}[{number}]")
        elif node.type == "ternary_expression":
            condition, *branches = parts(node)
            scope.type_of(condition)
            for branch in branches:
                self.value(branch, target, scope, path)
        elif node.type == "for_statement" and target.kind == "array":
            inner, body = scope.loop(node)
            self.value(body, target.item, inner, f"{path}[]")
        else:
            self._computed(node, target, scope, path)

    def _computed(self, node: Node, target: Type, scope: Scope, path: str) -> None:
        found = scope.type_of(node)
        if node.type == "null" or target.kind == "place":
            return
        written = node.type in ("string", "number", "boolean") and (
            node.type != "string" or literal(node) is not None
        )
        if not written:
            self.report.counts["expressions"] += 1
        self.fits(found, target, line(node), path)
        if node.type == "number":
            self._within(int(text(node)), target, line(node), path)
        elif node.type == "string" and (value := literal(node)) is not None:
            self._within(len(value), target, line(node), f"length of {path}")
            if "pattern" in target.entry and not re.search(target.entry["pattern"], value):
                self.say(line(node), f"{path}: {value!r} does not match {target.entry['pattern']}")

    def fields(self, node: Node, target: Type, scope: Scope, path: str) -> None:
        """Check an object's properties: each is known, not read-only and of its type; none is missing."""
        seen: set[str] = set()
        known = target.properties
        for name, value in entries(node):
            said = key(name)
            if said is None:
                scope.type_of(name)
                self._further(name, value, target, scope, f"{path}.*")
                continue
            if said in seen:
                self.say(line(name), f"{path}.{said} is set twice")
            seen.add(said)
            if said not in known:
                self._further(name, value, target, scope, f"{path}.{said}")
                continue
            self.report.counts["properties"] += 1
            wanted, flags = known[said]
            if flags & READ_ONLY:
                self.say(line(name), f"{path}.{said} is read-only")
            self.value(value, wanted, scope, f"{path}.{said}")
        for left, (_, flags) in known.items():
            if flags & REQUIRED and not flags & READ_ONLY and left not in seen:
                self.say(line(node), f"{path}.{left} is missing")

    def _further(self, name: Node, value: Node, target: Type, scope: Scope, path: str) -> None:
        if target.extra is None:
            self.say(line(name), f"{path} does not exist")
        elif key(name) is not None or target.extra.kind != "any":
            self.report.counts["properties"] += 1
        self.value(value, target.extra or ANY, scope, path)

    def _variant(self, node: Node, target: Type) -> Type:
        if target.kind != "tagged":
            return target
        tag = target.entry["tag"]
        said = next((literal(value) for name, value in entries(node) if key(name) == tag), None)
        found = target.tagged(said or "")
        if found is None:
            self.say(line(node), f"{tag} must be one of {', '.join(target.entry['elements'])}")
            return ANY
        return Type({**found.entry, "properties": {**target.properties, **found.properties}}, found.table)

    def fits(self, found: Type, target: Type, at: int, path: str) -> None:
        """Check that a type can be used for the expected type."""
        if found.kind == "any" and target.kind != "any" and found is not NOTHING:
            self.report.passed_over.add(Fault(self.file, at, f"{path}: any type"))
        if "any" in (found.kind, target.kind):
            return
        if found.kind != ("object" if target.kind == "tagged" else target.kind):
            self.say(at, f"{path} is {found.kind}, not {target}")
        elif found.kind == "array":
            self.fits(found.item, target.item, at, f"{path}[]")
        elif found.kind == "object" and target.kind == "object":
            self._object_fits(found, target, at, path)
        elif target.values and not found.values:
            self.report.passed_over.add(Fault(self.file, at, f"{path}: which of the allowed values"))
        elif target.values and (wrong := found.values - target.values):
            self.say(at, f"{path}: {', '.join(sorted(wrong))} is not {target}")

    def _object_fits(self, found: Type, target: Type, at: int, path: str) -> None:
        known = target.properties
        for name, (inner, _) in found.properties.items():
            if name not in known and target.extra is None:
                self.say(at, f"{path}.{name} does not exist")
            wanted, flags = known.get(name, (target.extra or ANY, 0))
            if flags & READ_ONLY:
                self.say(at, f"{path}.{name} is read-only")
            self.fits(inner, wanted, at, f"{path}.{name}")
        if found.extra is None:
            for name, (_, flags) in known.items():
                if flags & REQUIRED and not flags & READ_ONLY and name not in found.properties:
                    self.say(at, f"{path}.{name} is missing")

    def _within(self, number: int, target: Type, at: int, path: str) -> None:
        low, high = target.entry.get("min"), target.entry.get("max")
        if (low is not None and number < low) or (high is not None and number > high):
            self.say(at, f"{path} is {number}, not within {low} and {high}")
