"""Types: from the published schemas, and declared by a template itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SCHEMAS = Path(__file__).with_name("schemas")
REQUIRED = 1
READ_ONLY = 2


@dataclass(frozen=True)
class Type:
    """One type. Its entry refers to other types by their number in the file's table, or contains them."""

    entry: Mapping[str, Any]
    table: Sequence[Mapping[str, Any]] = ()

    def at(self, place: int | Type) -> Type:
        """Return another type of the same file."""
        return place if isinstance(place, Type) else Type(self.table[place], self.table)

    @property
    def kind(self) -> str:
        """Return the kind: string, int, bool, any, array, object, tagged or place."""
        return str(self.entry["kind"])

    @property
    def values(self) -> frozenset[str]:
        """Return the allowed values of a string or number; empty: any value."""
        return frozenset(map(str, self.entry.get("values", ())))

    @property
    def item(self) -> Type:
        """Return the type of an array's items."""
        return self.at(self.entry["item"]) if "item" in self.entry else ANY

    @property
    def extra(self) -> Type | None:
        """Return the type of an object's additional properties; None: none are allowed."""
        return self.at(self.entry["extra"]) if "extra" in self.entry else None

    @property
    def properties(self) -> dict[str, tuple[Type, int]]:
        """Return the properties of an object, each with its flags."""
        return {
            name: (self.at(place), flags) for name, (place, flags) in self.entry.get("properties", {}).items()
        }

    def tagged(self, tag: str) -> Type | None:
        """Return the variant of an object whose tag has this value."""
        place = self.entry["elements"].get(tag)
        return None if place is None else self.at(place)

    def __str__(self) -> str:
        return f"one of {', '.join(sorted(self.values))}" if self.values else self.kind


ANY = Type({"kind": "any"})
STRING = Type({"kind": "string"})
INT = Type({"kind": "int"})
BOOL = Type({"kind": "bool"})
PLACE = Type({"kind": "place"})  # a resource, by its name in the file
PRIMITIVES = {"string": STRING, "int": INT, "bool": BOOL, "array": Type({"kind": "array"})}


def array(item: Type) -> Type:
    """Return the type of a list of such items."""
    return Type({"kind": "array", "item": item})


def record(properties: Mapping[str, tuple[Type, int]], extra: Type | None = None) -> Type:
    """Return the type of an object with these properties."""
    return Type({"kind": "object", "properties": properties, **({"extra": extra} if extra else {})})


PRIMITIVES["object"] = record({}, ANY)


@cache
def resources() -> dict[str, Type]:
    """Return the published types in the repository, by `Provider/type@version`."""
    found: dict[str, Type] = {}
    for path in sorted(SCHEMAS.glob("*.json")):
        content = json.loads(path.read_text())
        for name, place in content["resources"].items():
            found[name] = Type(content["types"][place], content["types"])
    return found
