"""The scripted model with known text, and, for a question that says so, another text at each request."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

from tests.support.model_server import ModelServer


class KnownModel(ModelServer):
    """Keeps every answer that it has begun, by the question's name: one of them must be what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, list[str]] = defaultdict(list)

    async def _stream(self, told: dict[str, Any]) -> AsyncIterator[bytes]:
        given = self.answers[told.get("name", "")]
        chunks, vary_at = told["chunks"], told.get("vary_at")
        if vary_at is not None:
            chunks = chunks[:vary_at] + [f"{len(given)}{chunk}" for chunk in chunks[vary_at:]]
        given.append("".join(chunks))
        self.requests.clear()  # a long run asks often
        async for chunk in super()._stream({**told, "chunks": chunks}):
            yield chunk


def question(name: str, chunks: list[str], *, pace: float, vary_at: int | None) -> str:
    """The content of a user message that is answered so; from `vary_at` on no two answers are the same."""
    return json.dumps({"name": name, "chunks": chunks, "pace": pace, "vary_at": vary_at})
