"""Ask questions all the time, and send dozens of readers, which leave and come back, to the streams."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from time import monotonic

import httpx

from tests.chaos.parts import Part
from tests.chaos.readers import Reader
from tests.chaos.stage import Stage
from tests.chaos.streams import Asked, Caller, ask
from tests.chaos.tally import Tally

MOST_STREAMS = 18
MOST_READERS = 60


class Crowd:
    """`run` asks until the time is over; `home` waits until every reader has the terminal event."""

    def __init__(self, stage: Stage, tally: Tally, client: httpx.AsyncClient, rng: random.Random) -> None:
        self.streams: list[Asked] = []
        self.readers: list[Reader] = []
        self._stage = stage
        self._tally = tally
        self._client = client
        self._caller = Caller(stage, tally, client)
        self._rng = rng
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting = 0

    async def run(self, seconds: float) -> None:
        """Ask questions at a rate that rises and falls."""
        until, number = monotonic() + seconds, 0
        while monotonic() < until:
            if self._live() < MOST_STREAMS:
                self._go(self._stream(ask(self._rng, number), random.Random(self._rng.getrandbits(32))))
                number += 1
            await asyncio.sleep(self._rng.expovariate(3.0))

    async def one(self) -> None:
        """Run a single stream to its end, with a reader at each web process, so that every part was used
        once."""
        asked = Asked("warm", [Part("warm", ("warm",), 0.0)], key="warm")
        assert await self._caller.start(asked, self._rng), "the first POST of the run got no 202"
        for web in self._stage.webs:
            answer = await self._client.get(
                f"{web.url}/stream/{asked.id}", headers={"accept": "text/event-stream"}
            )
            assert b"event: done" in answer.content, answer.content
        self.streams.append(asked)

    async def home(self, seconds: float) -> list[str]:
        """Wait for all readers. Readers that are not finished after these seconds are stopped; return their
        names."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        late = sorted(task.get_name() for task in self._tasks)
        await self.close()
        return late

    async def close(self) -> None:
        """Stop all readers and questions."""
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tally.findings += [
            f"the driver: {error!r}" for error in results if isinstance(error, Exception)
        ]

    def _live(self) -> int:
        return self._starting + sum(not asked.ended.is_set() for asked in self.streams[-4 * MOST_STREAMS :])

    async def _stream(self, asked: Asked, rng: random.Random) -> None:
        self._starting += 1
        try:
            accepted = await self._caller.start(asked, rng)
        finally:
            self._starting -= 1
        if not accepted:
            return
        self.streams.append(asked)
        for number in range(rng.randint(1, 5)):
            if self._tally.readers_now < MOST_READERS:
                self._send(asked, number, random.Random(rng.getrandbits(32)))
                await asyncio.sleep(rng.uniform(0, 1) if number else 0)
        if asked.key and rng.random() < 0.6:
            self._go(self._caller.again(asked, rng))
        if asked.cancel_after is not None:
            await asyncio.sleep(asked.cancel_after)
            await self._caller.cancel(asked, rng)

    def _send(self, asked: Asked, number: int, rng: random.Random) -> None:
        name = f"{asked.name}/{number}"
        reader = Reader(name, asked, rng, self._stage, self._tally, self._client)
        self.readers.append(reader)
        self._go(reader.run(), f"reader {name} of {asked.id}")

    def _go(self, work: Coroutine[None, None, None], name: str | None = None) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._tally.find(f"the driver itself, {task.get_name()}: {error!r}")
