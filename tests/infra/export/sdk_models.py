"""Read the models of a generated azure-mgmt package as text, and convert them to the form of
tests/infra/schema.py.

They are generated from the same published API description as Bicep's types. Two things are lost: the limits
of a string, and, in older packages, which properties inside `properties` are required.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from zipfile import ZipFile

from tests.infra.export.table import READ_ONLY, REQUIRED, Table

PLAIN = {
    "str": "string",
    "int": "int",
    "bool": "bool",
    "float": "any",
    "Any": "any",
    "object": "any",
    "JSON": "any",
}
ENVELOPE = ("id", "type", "systemData")  # members of every resource that the service sets


@dataclass
class Field:
    """One property: its place in the JSON, its type as written, and its flags."""

    path: list[str]
    written: ast.expr
    flags: int


@dataclass
class Package:
    """The classes and enumerations of one wheel."""

    models: dict[str, ast.ClassDef] = field(default_factory=dict)
    enums: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, wheel: ZipFile) -> Package:
        """Read a wheel's models, without importing any."""
        package = cls()
        for name in wheel.namelist():
            if "/models/_" in name and name.endswith(".py") and "/aio/" not in name:
                for node in ast.parse(wheel.read(name)).body:
                    if isinstance(node, ast.ClassDef):
                        package._add(node, enums=name.endswith("enums.py"))
        return package

    def _add(self, node: ast.ClassDef, *, enums: bool) -> None:
        if not enums:
            self.models[node.name] = node
            return
        self.enums[node.name] = [
            str(item.value.value)
            for item in node.body
            if isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant)
        ]

    def fields(self, name: str) -> Iterator[Field]:
        """Yield the properties of a class and of its base classes."""
        node = self.models[name]
        for base in node.bases:
            parent = (
                base.id
                if isinstance(base, ast.Name)
                else base.attr
                if isinstance(base, ast.Attribute)
                else ""
            )
            if parent in self.models:
                yield from self.fields(parent)
        yield from _mapped(node)
        yield from _annotated(node)


def _annotated(node: ast.ClassDef) -> Iterator[Field]:
    """Read the newer kind: `size: Optional[int] = rest_field(name="sizeMB", visibility=["read"])`."""
    for item in node.body:
        if not (isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)):
            continue
        if not (isinstance(item.value, ast.Call) and getattr(item.value.func, "id", "").startswith("rest_")):
            continue
        options = {
            word.arg: ast.literal_eval(word.value) for word in item.value.keywords if word.arg != "type"
        }
        optional = (
            isinstance(item.annotation, ast.Subscript)
            and getattr(item.annotation.value, "id", "") == "Optional"
        )
        read_only = options.get("visibility") == ["read"]
        flags = READ_ONLY if read_only else 0 if optional else REQUIRED
        yield Field([str(options.get("name") or item.target.id)], item.annotation, flags)


def _mapped(node: ast.ClassDef) -> Iterator[Field]:
    """Read the older kind: `_attribute_map` and `_validation`; only the constructor names the
    enumerations."""
    tables: dict[str, Any] = {}
    written: dict[str, ast.expr] = {}
    for item in node.body:
        if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
            if item.targets[0].id in ("_attribute_map", "_validation"):
                tables[item.targets[0].id] = ast.literal_eval(item.value)
        elif isinstance(item, ast.FunctionDef) and item.name == "__init__":
            written = {word.arg: word.annotation for word in item.args.kwonlyargs if word.annotation}
    for name, place in tables.get("_attribute_map", {}).items():
        rules = tables.get("_validation", {}).get(name, {})
        flags = READ_ONLY if rules.get("readonly") else REQUIRED if rules.get("required") else 0
        yield Field(place["key"].split("."), written.get(name) or _msrest(place["type"]), flags)


def _msrest(written: str) -> ast.expr:
    inner = written[1:-1]
    if written.startswith("["):
        return ast.Subscript(ast.Name("list"), _msrest(inner))
    if written.startswith("{"):
        return ast.Subscript(ast.Name("dict"), ast.Tuple([ast.Name("str"), _msrest(inner)]))
    return ast.Name(written)


class Converter:
    """Copy from one package the types that a resource uses."""

    def __init__(self, package: Package, table: Table) -> None:
        self.package, self.table = package, table
        self.known: dict[str, int] = {}

    def resource(self, model: str) -> int:
        """Convert a resource's body: the model, with a name that the user of the template sets."""
        number = self.model(model)
        properties = self.table.types[number]["properties"]
        text = self.table.add({"kind": "string"})
        for name in ENVELOPE:
            properties[name] = [text, READ_ONLY]
        properties["name"] = [text, REQUIRED]
        return number

    def model(self, name: str) -> int:
        """Convert a class to an object type."""
        if name not in self.known:
            self.known[name] = number = self.table.reserve()
            nested: dict[str, Any] = {}
            for item in self.package.fields(name):
                inside = nested
                for step in item.path[:-1]:
                    inside = inside.setdefault(step, {})
                inside[item.path[-1]] = item
            self.table.fill(number, self._object(name, nested))
        return self.known[name]

    def _object(self, name: str, nested: dict[str, Any]) -> dict[str, Any]:
        properties = {}
        for key, value in nested.items():
            if isinstance(value, Field):
                properties[key] = [self._type(value.written), value.flags]
            else:
                properties[key] = [self.table.add(self._object(f"{name}.{key}", value)), 0]
        return {"kind": "object", "name": name, "properties": properties}

    def _type(self, written: ast.expr) -> int:
        match written:
            case ast.Constant(value=str(text)):
                return self._type(ast.parse(text, mode="eval").body)
            case ast.Attribute(attr=name) | ast.Name(id=name):
                return self._named(name)
            case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
                return self._type(inner)
            case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=[*_, last])):
                return self._type(last)
            case ast.Subscript(value=ast.Name(id="list" | "List"), slice=inner):
                return self.table.add({"kind": "array", "item": self._type(inner)})
            case ast.Subscript(value=ast.Name(id="dict" | "Dict"), slice=ast.Tuple(elts=[_, inner])):
                extra = self._type(inner)
                return self.table.add({"kind": "object", "name": "map", "properties": {}, "extra": extra})
            case ast.Subscript(
                value=ast.Name(id="Literal"), slice=ast.Attribute(value=ast.Attribute(attr=name))
            ):
                return self._named(name)
        return self.table.add({"kind": "any"})

    def _named(self, name: str) -> int:
        if name in self.package.enums:
            return self.table.add({"kind": "string", "values": self.package.enums[name]})
        if name in self.package.models:
            return self.model(name)
        return self.table.add({"kind": PLAIN.get(name, "string")})
