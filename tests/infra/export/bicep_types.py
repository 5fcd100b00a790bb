"""Convert Bicep's types.json to the form of tests/infra/schema.py."""

from __future__ import annotations

from typing import Any

from tests.infra.export.embedded import Raw
from tests.infra.export.table import Table


def resources(raw: Raw) -> dict[str, int]:
    """Return the resource types of a file, as `Provider/type@version`, with the positions of their bodies."""
    return {
        entry["name"]: _at(entry["body"])
        for entry in raw
        if entry["$type"] == "ResourceType" and "body" in entry
    }


class Converter:
    """Copy from one file only the types that a resource uses."""

    def __init__(self, raw: Raw, table: Table) -> None:
        self.raw, self.table = raw, table
        self.known: dict[int, int] = {}

    def take(self, at: int) -> int:
        """Copy the type at position `at` of the file; return its number in the table."""
        if at not in self.known:
            self.known[at] = self.table.reserve()
            self.table.fill(self.known[at], self._convert(self.raw[at]))
        return self.known[at]

    def _convert(self, entry: dict[str, Any]) -> dict[str, Any]:
        match entry["$type"]:
            case "ObjectType":
                extra = entry.get("additionalProperties")
                return {
                    "kind": "object",
                    "name": entry["name"],
                    "properties": self._properties(entry["properties"]),
                    **({"extra": self.take(_at(extra))} if extra else {}),
                }
            case "DiscriminatedObjectType":
                return {
                    "kind": "tagged",
                    "name": entry["name"],
                    "tag": entry["discriminator"],
                    "properties": self._properties(entry["baseProperties"]),
                    "elements": {name: self.take(_at(ref)) for name, ref in entry["elements"].items()},
                }
            case "ArrayType":
                return {"kind": "array", "item": self.take(_at(entry["itemType"]))}
            case "UnionType":
                return self._union([self.raw[_at(ref)] for ref in entry["elements"]])
            case "StringLiteralType":
                return {"kind": "string", "values": [entry["value"]]}
            case "StringType":
                limits = {"pattern": "pattern", "minLength": "min", "maxLength": "max"}
                return {
                    "kind": "string",
                    **{ours: entry[key] for key, ours in limits.items() if key in entry},
                }
            case "IntegerType":
                limits = {"minValue": "min", "maxValue": "max"}
                return {"kind": "int", **{ours: entry[key] for key, ours in limits.items() if key in entry}}
            case "BooleanType":
                return {"kind": "bool"}
            case "AnyType":
                return {"kind": "any"}
        raise ValueError(f"a kind of type that nothing here uses: {entry['$type']}")

    def _properties(self, properties: dict[str, Any]) -> dict[str, list[int]]:
        return {name: [self.take(_at(item["type"])), item["flags"]] for name, item in properties.items()}

    def _union(self, elements: list[dict[str, Any]]) -> dict[str, Any]:
        kinds = {element["$type"] for element in elements}
        if not kinds <= {"StringLiteralType", "StringType"}:
            return {"kind": "any"}
        return {
            "kind": "string",
            "values": [element["value"] for element in elements if element["$type"] == "StringLiteralType"],
        }


def _at(reference: dict[str, str]) -> int:
    return int(reference["$ref"].removeprefix("#/"))
