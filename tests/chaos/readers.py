"""A reader: follows a stream over any number of connections and stores every byte.

It leaves and reconnects to any web process, with the last id that it has. It sometimes reads slowly. It
forgets all data when it receives `log_lost`. Its data must always be the log from the first byte, so each
frame's offset is checked when the frame arrives.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from time import monotonic

import httpx

from tests.chaos import wire
from tests.chaos.stage import Stage
from tests.chaos.streams import Asked
from tests.chaos.tally import Tally


@dataclass(eq=False, slots=True)
class Reader:
    """One reader of one stream. `run` follows it to its end; `last_look` reads once more after all activity
    has ended."""

    name: str
    asked: Asked
    rng: random.Random
    stage: Stage
    tally: Tally
    client: httpx.AsyncClient
    held: bytearray = field(default_factory=bytearray)
    last_id: str = ""
    complete: bool = False  # the last event that it has is the terminal event
    gone: bool = False  # it got a 404
    resting: bool = False  # it does not leave any more
    failed: str = ""
    _slow: bool = False
    _leaves_at: float = 0.0

    @property
    def looks(self) -> bool:
        """Return whether it has finished, so that it can read once more."""
        return self.complete or self.gone

    async def run(self) -> None:
        """Follow until the terminal event, or until the stream is gone."""
        self.tally.joined()
        try:
            while not self.complete and not self.gone and not self.failed:
                await self._visit()
                await asyncio.sleep(self.rng.uniform(0.02, 0.4) if not self._left() else self._pause())
        finally:
            self.tally.readers_now -= 1
        self.asked.gone = self.asked.gone or self.gone
        self.asked.ended.set()

    async def last_look(self) -> None:
        """Connect once more: the answer is 204, or the events lost and written again since. The caller limits
        the time."""
        self.resting = True
        while not self.gone and not self.failed:
            if await self._visit() == 204:
                return
            await asyncio.sleep(0.05)

    async def _visit(self) -> int:
        """Read one connection; return its status, or 0 without an answer."""
        self._slow = not self.resting and self.rng.random() < 0.15
        stays = self.rng.uniform(0.3, 8) if self.rng.random() < 0.4 else 1000.0
        self._leaves_at = monotonic() + (1000.0 if self.resting else stays)
        headers = {"accept": "text/event-stream"}
        if self.last_id:
            headers["last-event-id"] = self.last_id
        self.tally.connections += 1
        url = f"{self.stage.url(self.rng)}/stream/{self.asked.id}"
        try:
            async with self.client.stream("GET", url, headers=headers) as answer:
                await self._answered(answer)
                return answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL):
            return 0  # the web process was killed or is missing
        except wire.BadWire as error:
            self._fail(str(error))
            return 0

    async def _answered(self, answer: httpx.Response) -> None:
        match answer.status_code:
            case 200:
                await self._read(answer)
            case 204:
                if not self.complete:
                    self._fail(f"204 after {self.last_id!r}, which is not the terminal event")
            case 404:
                self.gone = True
            case status:
                self._fail(f"GET answered {status}: {(await answer.aread())[:200]!r}")

    async def _read(self, answer: httpx.Response) -> None:
        decoder, resumed = wire.Wire(), bool(self.last_id)
        async for data in answer.aiter_raw():
            self.tally.bytes_read += len(data)
            for frame in decoder.feed(data):
                if resumed and frame != wire.LOG_LOST:
                    self.tally.resumes += 1
                resumed = False
                self._take(frame)
            if self._left():
                self.tally.away += 1
                return
            if self._slow:
                await asyncio.sleep(self.rng.uniform(0.05, 0.3))

    def _take(self, frame: bytes) -> None:
        if self.failed:
            return
        if frame == wire.LOG_LOST:
            self._forget()
            return
        here = wire.event_id(frame)
        if self.complete:
            self._fail(f"after the terminal event {self.last_id} came {frame!r}")
        elif int(here.partition("-")[0]) != len(self.held):
            before = self.held[-300:]
            self._fail(f"a gap or a double at byte {len(self.held)}: {bytes(before)!r} and then {frame!r}")
        else:
            self.held += frame
            self.last_id = here
            self.complete = wire.terminal(frame)

    def _forget(self) -> None:
        self.tally.log_lost += 1
        if not self.stage.store.may_have_lost(self.asked.accepted_at - 1, monotonic()):
            self._fail("was told log_lost, and nothing was lost since its stream began")
        self.held.clear()
        self.last_id, self.complete = "", False

    def _left(self) -> bool:
        return monotonic() > self._leaves_at

    def _pause(self) -> float:
        return self.rng.uniform(0.1, 4)

    def _fail(self, text: str) -> None:
        self.failed = text
        self.tally.find(
            f"stream {self.asked.id} ({self.asked.name}), reader {self.name}: {text}", self.asked.id
        )
