"""The scripted model with known text: it records its answers, and it fails when the driver tells it to.

A part of a question can require another text at each request (`vary_at`). Failures are temporary: a
connection that is cut in the middle of an answer, a 429, a 500 or a 503. One part meets a limited number of
failures, so that a retried stage can finish.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Iterator
from time import monotonic
from typing import Any, cast

from tests.support.model_server import ModelServer

MOST_FAILURES = 4  # limit for one part; a stage has more tries than that
REFUSALS = (429, 500, 503)


class KnownModel(ModelServer):
    """Record every answer that it has begun and every text that it was given, by the name of the part."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, list[str]] = defaultdict(list)
        self.handed: dict[str, set[str]] = defaultdict(set)
        self.cuts = 0
        self.refusals = 0
        self._failures: Counter[str] = Counter()
        self._running: dict[asyncio.Event, str] = {}  # an event that is set cuts this answer
        self._refuses_until = 0.0
        self._refusal: dict[str, Any] = {}

    async def answering(self, seconds: float) -> bool:
        """Wait, at most this long, for an answer that can be cut; return whether there is one."""
        try:
            async with asyncio.timeout(seconds), self.changed:
                return await self.changed.wait_for(lambda: any(map(self._may_fail, self._running.values())))
        except TimeoutError:
            return False

    def cut(self, share: float, rng: random.Random) -> int:
        """Cut a share of the answers that are being streamed; return the number."""
        chosen = [cut for cut, name in self._running.items() if self._may_fail(name) and rng.random() < share]
        for cut in chosen:
            self._failures[self._running.pop(cut)] += 1
            cut.set()
        self.cuts += len(chosen)
        return len(chosen)

    def refuse(self, seconds: float, rng: random.Random) -> None:
        """Refuse requests for this time, with one status."""
        self._refuses_until = monotonic() + seconds
        self._refusal = {"status": rng.choice(REFUSALS), "retry_after": rng.choice((0, 0, 1))}

    def told(self, body: Any) -> dict[str, Any]:
        """Return the requested part, or its refusal."""
        told = super().told(body)
        name = told.get("name", "")
        if monotonic() >= self._refuses_until or not self._may_fail(name):
            return told
        self._failures[name] += 1
        self.refusals += 1
        return told | self._refusal

    async def _stream(self, told: dict[str, Any]) -> AsyncGenerator[bytes]:
        name, chunks, vary_at = told.get("name", ""), list(told["chunks"]), told.get("vary_at")
        given = self.answers[name]
        if vary_at is not None:
            chunks = chunks[:vary_at] + [f"{len(given)}{chunk}" for chunk in chunks[vary_at:]]
        given.append("".join(chunks))
        self.handed[name].add(told.get("handed", ""))
        self.requests.clear()  # saves memory in a long run
        with self._ran(name) as cut:
            async with self.changed:
                self.changed.notify_all()
            answer = cast("AsyncGenerator[bytes]", super()._stream({**told, "chunks": chunks, "pace": 0}))
            async with contextlib.aclosing(answer):
                async for chunk in answer:
                    yield chunk
                    if await _set_within(cut, told.get("pace", 0)):
                        raise ConnectionAbortedError("scripted cut")

    @contextlib.contextmanager
    def _ran(self, name: str) -> Iterator[asyncio.Event]:
        cut = asyncio.Event()
        self._running[cut] = name
        try:
            yield cut
        finally:
            self._running.pop(cut, None)

    def _may_fail(self, name: str) -> bool:
        return self._failures[name] < MOST_FAILURES


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    if seconds and not event.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()
    return event.is_set()
