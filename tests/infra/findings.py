"""The faults that a check has found, and the number of things that it has checked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, order=True)
class Fault:
    """A wrong line, and the reason."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


@dataclass
class Report:
    """The result for all files together."""

    faults: set[Fault] = field(default_factory=set)
    passed_over: set[Fault] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    files: list[Path] = field(default_factory=list)
    types: Counter[str] = field(default_factory=Counter)
