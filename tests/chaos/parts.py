"""The parts of a question to the model. The driver, the chain and the model all use this definition."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Part:
    """The question to the model in one run of a stage. From chunk `vary_at` on, each answer is different."""

    name: str  # unique in a run
    chunks: tuple[str, ...]
    pace: float  # seconds between two chunks
    vary_at: int | None = None

    @property
    def told(self) -> dict[str, Any]:
        """Return the part as JSON, for the model."""
        return asdict(self)

    @property
    def text(self) -> str:
        """Return the whole answer, if it is the same at each request."""
        return "".join(self.chunks)


def content(told: dict[str, Any], handed: str = "") -> str:
    """Return the user message that asks for a part. `handed` is the text that the stage got from the stage
    before."""
    return json.dumps({**told, "handed": handed})
