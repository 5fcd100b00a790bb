"""The list of types that one schema file holds."""

from __future__ import annotations

import json
from typing import Any

# The same number as in Bicep's types.
REQUIRED = 1
READ_ONLY = 2


class Table:
    """A numbered list of types. A number can be assigned before its type is known, because types refer to
    each other."""

    def __init__(self) -> None:
        self.types: list[dict[str, Any]] = []
        self.resources: dict[str, int] = {}

    def reserve(self) -> int:
        """Return a number whose type is filled later."""
        self.types.append({})
        return len(self.types) - 1

    def fill(self, number: int, entry: dict[str, Any]) -> None:
        """Set the type of this number."""
        self.types[number] = entry

    def add(self, entry: dict[str, Any]) -> int:
        """Append a type, or find it in the list; return its number."""
        if entry not in self.types:
            self.types.append(entry)
        return self.types.index(entry)

    def text(self, source: dict[str, str]) -> str:
        """Return the file's text: one type in each line, so that differences between versions are
        readable."""
        lines = [json.dumps(entry, sort_keys=True) for entry in self.types]
        head = f'"source": {json.dumps(source)},\n"resources": {json.dumps(self.resources, indent=1)}'
        return "{" + head + ',\n"types": [\n' + ",\n".join(lines) + "\n]}\n"
