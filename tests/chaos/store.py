"""The store under chaos: a Redis with AOF that is killed, loses up to its last second, and comes back.

SIGKILL alone loses almost nothing, because the kernel keeps what Redis has written. What a machine's crash
takes is what was not yet synced; so the append-only file is cut back to where it stood up to a second ago.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from tests.support.redis_server import RedisServer

FSYNC_SECONDS = 1.0
WRITE_DELAY_SECONDS = 2.0  # Redis delays its own write so long behind a slow sync
_SAMPLE_SECONDS = 0.05
_SAMPLES = round(4 / _SAMPLE_SECONDS)


@dataclass(frozen=True, slots=True)
class Window:
    """From when to when, on this process's monotonic clock."""

    begin: float
    end: float

    def meets(self, begin: float, end: float) -> bool:
        return self.begin <= end and begin <= self.end


@contextmanager
def during(windows: list[Window]) -> Iterator[None]:
    """A window that is open as long as the body runs."""
    window = Window(monotonic(), math.inf)
    windows.append(window)
    try:
        yield
    finally:
        windows.remove(window)
        windows.append(Window(window.begin, monotonic()))


class Store:
    """One Redis and what happened to it."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.lost: list[Window] = []  # what was written in such a window may be gone
        self.away: list[Window] = []  # in such a window it did not answer
        self._sizes: deque[tuple[float, Path, int]] = deque(maxlen=_SAMPLES)
        self._one_at_a_time = asyncio.Lock()

    async def restart(self, down: float, lose: float) -> None:
        """Kill it, forget its last `lose` seconds, start it after `down` seconds."""
        async with self._one_at_a_time:
            begin = monotonic()
            with during(self.away):
                await self.server.kill()
                self.lost.append(Window(begin - max(lose, WRITE_DELAY_SECONDS), monotonic()))
                self._cut_back(begin - lose)
                await asyncio.sleep(down)
                await self.server.start()

    async def stop(self, seconds: float) -> None:
        """Alive, and deaf."""
        async with self._one_at_a_time:
            os.kill(self.server.pid, signal.SIGSTOP)
            try:
                with during(self.away):
                    await asyncio.sleep(seconds)
            finally:
                os.kill(self.server.pid, signal.SIGCONT)

    def may_have_lost(self, begin: float, end: float) -> bool:
        """Whether anything written in this time may be gone."""
        return any(window.meets(begin, end) for window in self.lost)

    async def watch(self) -> None:
        """Note how long the append-only file is, all the time."""
        while True:
            files = sorted((self.server.directory / "appendonlydir").glob("*.incr.aof"))
            if files:
                self._sizes.append((monotonic(), files[-1], files[-1].stat().st_size))
            await asyncio.sleep(_SAMPLE_SECONDS)

    def _cut_back(self, moment: float) -> None:
        """To the size that the file had at this moment; a file that was begun since stays as it is."""
        newest = self._sizes[-1][1] if self._sizes else None
        sizes = [size for at, path, size in self._sizes if path == newest and at <= moment]
        if newest is not None and sizes and sizes[-1] < newest.stat().st_size:
            os.truncate(newest, sizes[-1])
        self._sizes.clear()


@asynccontextmanager
async def store() -> AsyncIterator[Store]:
    """A running store; stopped with its directory."""
    async with RedisServer(aof=True) as server:
        held = Store(server)
        watch = asyncio.create_task(held.watch(), name="store-watch")
        try:
            yield held
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
