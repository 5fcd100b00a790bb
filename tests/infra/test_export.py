"""Both converters give the same result for the same type: from Bicep's file and from a package's models."""

from __future__ import annotations

import io
import json
from typing import Any
from zipfile import ZipFile

import pytest

from tests.infra.export import bicep_types, sdk_models
from tests.infra.export.table import Table
from tests.infra.types import Type

BICEP: list[dict[str, Any]] = [
    {"$type": "StringType"},
    {"$type": "IntegerType"},
    {"$type": "StringLiteralType", "value": "A"},
    {"$type": "UnionType", "elements": [{"$ref": "#/2"}, {"$ref": "#/0"}]},
    {
        "$type": "ObjectType",
        "name": "Sku",
        "properties": {
            "name": {"type": {"$ref": "#/3"}, "flags": 1},
            "capacity": {"type": {"$ref": "#/1"}, "flags": 0},
            "state": {"type": {"$ref": "#/0"}, "flags": 2},
        },
    },
    {"$type": "ArrayType", "itemType": {"$ref": "#/4"}},
    {"$type": "ObjectType", "name": "Tags", "properties": {}, "additionalProperties": {"$ref": "#/0"}},
    {
        "$type": "ObjectType",
        "name": "X.Y/z",
        "properties": {
            "name": {"type": {"$ref": "#/0"}, "flags": 9},
            "tags": {"type": {"$ref": "#/6"}, "flags": 0},
            "properties": {"type": {"$ref": "#/8"}, "flags": 0},
        },
    },
    {"$type": "ObjectType", "name": "P", "properties": {"skus": {"type": {"$ref": "#/5"}, "flags": 0}}},
    {"$type": "ResourceType", "name": "X.Y/z@2025-01-01", "body": {"$ref": "#/7"}},
]
ENUMS = "class Name(str, Enum):\n    A = 'A'\n"
OLDER = """
class Sku(_Model):
    _validation = {"name": {"required": True}, "state": {"readonly": True}}
    _attribute_map = {
        "name": {"key": "name", "type": "str"},
        "capacity": {"key": "capacity", "type": "int"},
        "state": {"key": "state", "type": "str"},
    }

    def __init__(self, *, name: Union[str, "_models.Name"], capacity: Optional[int] = None):
        self.name = name

class Z(Resource):
    _attribute_map = {
        "tags": {"key": "tags", "type": "{str}"},
        "skus": {"key": "properties.skus", "type": "[Sku]"},
    }
"""
NEWER = """
class Sku(_Model):
    name: Union[str, "_models.Name"] = rest_field(visibility=["read", "create"])
    capacity: Optional[int] = rest_field(visibility=["read", "create"])
    state: Optional[str] = rest_field(visibility=["read"])

class P(_Model):
    all_skus: Optional[list["_models.Sku"]] = rest_field(name="skus", visibility=["read", "create"])

class Z(Resource):
    tags: Optional[dict[str, str]] = rest_field(visibility=["read", "create"])
    properties: Optional["_models.P"] = rest_field(visibility=["read", "create"])
"""


def from_bicep() -> Type:
    table = Table()
    place = bicep_types.resources(BICEP)["X.Y/z@2025-01-01"]
    return Type(table.types[bicep_types.Converter(BICEP, table).take(place)], table.types)


def from_models(models: str) -> Type:
    wheel = ZipFile(io.BytesIO(), "w")
    wheel.writestr("x/models/_models.py", models)
    wheel.writestr("x/models/_enums.py", ENUMS)
    table = Table()
    number = sdk_models.Converter(sdk_models.Package.read(wheel), table).resource("Z")
    return Type(table.types[number], table.types)


def told(found: Type) -> Any:
    """Return a type as plain data, without the members that every resource has."""
    if found.kind == "array":
        return [told(found.item)]
    if found.kind == "object":
        inner = {
            name: (told(kind), flags & 3)
            for name, (kind, flags) in found.properties.items()
            if name not in sdk_models.ENVELOPE
        }
        return {**inner, "*": told(found.extra)} if found.extra else inner
    return str(found)


SKU = {"name": ("one of A", 1), "capacity": ("int", 0), "state": ("string", 2)}


@pytest.mark.parametrize(
    "found", [from_bicep(), from_models(OLDER), from_models(NEWER)], ids=["bicep", "older", "newer"]
)
def test_a_type_is_the_same_wherever_it_comes_from(found: Type) -> None:
    assert told(found) == {
        "name": ("string", 1),
        "tags": ({"*": "string"}, 0),
        "properties": ({"skus": ([SKU], 0)}, 0),
    }


def test_a_file_can_be_read_again() -> None:
    table = Table()
    table.resources["X.Y/z@2025-01-01"] = table.add({"kind": "string"})
    content = json.loads(table.text({"package": "p"}))
    assert content == {
        "source": {"package": "p"},
        "resources": table.resources,
        "types": [{"kind": "string"}],
    }
