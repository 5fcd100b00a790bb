"""What a run has measured: figures of several sides, a pair of them each round, as a table, as JSON."""

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
    """One quantity. `holds` judges the medians by side; `bar` says in words what it asks."""

    name: str
    unit: str = ""
    bar: str = ""
    holds: Judge | None = None
    digits: int = 1
    sides: dict[str, list[float]] = field(default_factory=dict)

    def note(self, side: str, value: float) -> None:
        """Take a round's value."""
        self.sides.setdefault(side, []).append(value)

    @property
    def medians(self) -> dict[str, float]:
        """Each side's median."""
        return {side: statistics.median(values) for side, values in self.sides.items()}

    def cell(self, side: str) -> str:
        """Median and spread."""
        values = self.sides.get(side)
        if not values:
            return "–"
        middle = self._shown(statistics.median(values))
        if len(values) == 1:
            return middle
        return f"{middle} ({self._shown(min(values))}–{self._shown(max(values))})"

    def verdict(self) -> str:
        """Whether the bar holds."""
        if self.holds is None:
            return ""
        return "yes" if self.holds(self.medians) else "**no**"

    def row(self) -> str:
        """The line of the table."""
        unit = f", {self.unit}" if self.unit else ""
        cells = [self.name + unit, *(self.cell(side) for side in COLUMNS), self.bar, self.verdict()]
        return "| " + " | ".join(cells) + " |"

    def plain(self) -> dict[str, Any]:
        """For the file."""
        return {"name": self.name, "unit": self.unit, "bar": self.bar, "sides": self.sides}

    def _shown(self, value: float) -> str:
        return f"{value:,.{self.digits}f}"


def table(figures: list[Figure]) -> list[str]:
    """All lines, each a median of the rounds with the least and the most behind it."""
    head = "| | " + " | ".join(COLUMNS) + " | bar | met |"
    return [head, "|---" * (len(COLUMNS) + 3) + "|", *(figure.row() for figure in figures)]
