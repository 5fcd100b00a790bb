"""What a stream asks the model, part by part, as the driver, the chain and the model all know it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Part:
    """What the model is asked in one run of a stage. From chunk `vary_at` on no two answers are the same."""

    name: str  # no other part of a run has it
    chunks: tuple[str, ...]
    pace: float  # seconds between two chunks
    vary_at: int | None = None

    @property
    def told(self) -> dict[str, Any]:
        """As JSON, for the model to read."""
        return asdict(self)

    @property
    def text(self) -> str:
        """The whole answer, where it is the same at each request."""
        return "".join(self.chunks)


def content(told: dict[str, Any], handed: str = "") -> str:
    """The user message that asks for a part. `handed`: what the stage was given by the stage before it."""
    return json.dumps({**told, "handed": handed})
