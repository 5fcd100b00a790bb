"""The figures of a run, for several sides, with one pair of values in each round. Output is a table or
JSON."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.sides import BARE, FLOOR, ONE, PRODUCT, USUAL

COLUMNS = (PRODUCT, USUAL, ONE, FLOOR, BARE)
Judge = Callable[[Mapping[str, float]], bool]


@dataclass
class Figure:
    """One quantity. `holds` checks the medians of the sides; `bar` describes the required limit in words."""

    name: str
    unit: str = ""
    bar: str = ""
    holds: Judge | None = None
    digits: int = 1
    sides: dict[str, list[float]] = field(default_factory=dict)

    def note(self, side: str, value: float) -> None:
        """Add the value of one round for a side."""
        self.sides.setdefault(side, []).append(value)

    @property
    def medians(self) -> dict[str, float]:
        """Return the median of each side."""
        return {side: statistics.median(values) for side, values in self.sides.items()}

    def cell(self, side: str) -> str:
        """Return the median and the spread as text."""
        values = self.sides.get(side)
        if not values:
            return "–"
        middle = self._shown(statistics.median(values))
        if len(values) == 1:
            return middle
        return f"{middle} ({self._shown(min(values))}–{self._shown(max(values))})"

    def verdict(self) -> str:
        """Return whether the limit is met, as text."""
        if self.holds is None:
            return ""
        return "yes" if self.holds(self.medians) else "**no**"

    def row(self) -> str:
        """Return the row of the table."""
        unit = f", {self.unit}" if self.unit else ""
        cells = [self.name + unit, *(self.cell(side) for side in COLUMNS), self.bar, self.verdict()]
        return "| " + " | ".join(cells) + " |"

    def plain(self) -> dict[str, Any]:
        """Return the figure as JSON values for the file."""
        return {"name": self.name, "unit": self.unit, "bar": self.bar, "sides": self.sides}

    def _shown(self, value: float) -> str:
        return f"{value:,.{self.digits}f}"


def table(figures: list[Figure]) -> list[str]:
    """Return all rows. Each cell is the median of the rounds, followed by the lowest and highest value."""
    head = "| | " + " | ".join(COLUMNS) + " | bar | met |"
    return [head, "|---" * (len(COLUMNS) + 3) + "|", *(figure.row() for figure in figures)]
