"""The list of types that one schema file holds."""

from __future__ import annotations

import json
from typing import Any

# As in Bicep's types.
REQUIRED = 1
READ_ONLY = 2


class Table:
    """Types, numbered; a number can be given away before its type is known, as types name each other."""

    def __init__(self) -> None:
        self.types: list[dict[str, Any]] = []
        self.resources: dict[str, int] = {}

    def reserve(self) -> int:
        """A number to be filled later."""
        self.types.append({})
        return len(self.types) - 1

    def fill(self, number: int, entry: dict[str, Any]) -> None:
        """Put a type where its number says."""
        self.types[number] = entry

    def add(self, entry: dict[str, Any]) -> int:
        """Put a type at the end, or find it there."""
        if entry not in self.types:
            self.types.append(entry)
        return self.types.index(entry)

    def text(self, source: dict[str, str]) -> str:
        """The file: one type a line, so that a new version's differences can be read."""
        lines = [json.dumps(entry, sort_keys=True) for entry in self.types]
        head = f'"source": {json.dumps(source)},\n"resources": {json.dumps(self.resources, indent=1)}'
        return "{" + head + ',\n"types": [\n' + ",\n".join(lines) + "\n]}\n"
