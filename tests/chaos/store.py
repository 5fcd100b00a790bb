"""The store under chaos: a Redis that is killed, loses up to its last second, and restarts or is replaced.

SIGKILL alone loses almost nothing, because the kernel keeps the written data. The crash of a machine loses
the data that was not yet synced. To simulate this, the append-only file is cut back to its size up to a
second ago. With a replica, a killed primary is replaced by it, and data that the replica has not received is
lost. `server` is the present primary. The one name that the processes know leads to it.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from tests.chaos import standby
from tests.chaos.standby import Standby
from tests.support.redis_server import RedisServer

FSYNC_SECONDS = 1.0
WRITE_DELAY_SECONDS = 2.0  # longest delay of Redis's own write behind a slow sync
_SAMPLE_SECONDS = 0.05
_SAMPLES = round(4 / _SAMPLE_SECONDS)


@dataclass(frozen=True, slots=True)
class Window:
    """A time range, on this process's monotonic clock."""

    begin: float
    end: float

    def meets(self, begin: float, end: float) -> bool:
        return self.begin <= end and begin <= self.end


@contextmanager
def during(windows: list[Window], *, since: float | None = None) -> Iterator[None]:
    """Add a window that is open while the block runs, and that begins now or at `since`."""
    window = Window(monotonic() if since is None else since, math.inf)
    windows.append(window)
    try:
        yield
    finally:
        windows.remove(window)
        windows.append(Window(window.begin, monotonic()))


Act = Callable[[], Awaitable[None]]


async def nothing() -> None:
    """Do nothing."""


class Store:
    """The serving Redis, its replica if it has one, and the record of their faults.

    `eve` is awaited just before a server is killed, for faults at the same moment.
    """

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.standby: Standby | None = None
        self.lost: list[Window] = []  # data written in such a window may be lost
        self.away: list[Window] = []  # the server did not answer in such a window
        self._sizes: deque[tuple[float, Path, int]] = deque(maxlen=_SAMPLES)
        self._servers = [server]  # all servers, to be stopped at the end
        self._one_at_a_time = asyncio.Lock()

    async def attach(self) -> None:
        """Start a new replica of the serving server."""
        replica = Standby(RedisServer(aof=True), self.server)
        self._servers.append(replica.server)
        await standby.start(replica.server)
        await replica.follow()
        self.standby = replica

    async def restart(self, down: float, lose: float, eve: Act = nothing) -> None:
        """Kill the server, drop its last `lose` seconds, and start it after `down` seconds."""
        async with self._one_at_a_time:
            await eve()
            begin = monotonic()
            with during(self.away):
                await self.server.kill()
                self.lost.append(Window(begin - max(lose, WRITE_DELAY_SECONDS), monotonic()))
                self._cut_back(begin - lose)
                await asyncio.sleep(down)
                await standby.start(self.server)

    async def promote(self, down: float, lag: Act = nothing, eve: Act = nothing) -> None:
        """Promote the replica, without the data that the primary received while `lag` and `eve` were awaited.

        The primary is killed `down` seconds before that. With 0 seconds, the name leads to the replica at the
        moment of the kill, even on a busy machine. A new replica then follows the new primary.
        """
        async with self._one_at_a_time:
            replica, old = self._replica(), self.server
            has_all_before = await replica.caught_up()
            replica.link.passing.clear()
            await lag()
            await replica.promote()  # no client sees this yet: the name leads to the old primary
            with during(self.lost, since=has_all_before):
                await eve()
                with during(self.away):
                    if down:
                        await old.kill()
                        await asyncio.sleep(down)
                    self._serve(replica.server)
                    await old.kill()
            await old.stop()
            self._servers.remove(old)
            await self.attach()

    async def hand_over(self) -> None:
        """Promote the replica when it has all data, and make the primary its replica: nothing is lost.

        The old primary keeps its connections, and answers READONLY on them.
        """
        async with self._one_at_a_time:
            replica, old = self._replica(), self.server
            async with standby.writes_held(old):
                await replica.caught_up()
                await replica.promote()
                self._serve(replica.server)
                behind = Standby(old, replica.server)
                await behind.follow()
                self.standby = behind

    async def stop(self, seconds: float) -> None:
        """Stop the server for some seconds: it runs but does not answer."""
        async with self._one_at_a_time:
            os.kill(self.server.pid, signal.SIGSTOP)
            try:
                with during(self.away):
                    await asyncio.sleep(seconds)
            finally:
                os.kill(self.server.pid, signal.SIGCONT)

    async def close(self) -> None:
        """Stop all servers."""
        if self.standby is not None:
            await self.standby.close()
        for server in self._servers:
            await server.kill()  # a replica writing its first append-only file refuses SIGTERM
            await server.stop()

    def may_have_lost(self, begin: float, end: float) -> bool:
        """Return whether data written in this time may be lost."""
        return any(window.meets(begin, end) for window in self.lost)

    async def watch(self) -> None:
        """Record the size of the append-only file, all the time."""
        while True:
            files = (self.server.directory / "appendonlydir").glob("*.incr.aof")
            if newest := max(files, key=_number, default=None):
                self._sizes.append((monotonic(), newest, newest.stat().st_size))
            await asyncio.sleep(_SAMPLE_SECONDS)

    def _serve(self, server: RedisServer) -> None:
        self.server = server
        self._sizes.clear()

    def _replica(self) -> Standby:
        assert self.standby is not None, "this store has no replica"
        return self.standby

    def _cut_back(self, moment: float) -> None:
        """Cut the file to its size at this moment. A file that was begun later stays unchanged."""
        newest = self._sizes[-1][1] if self._sizes else None
        sizes = [size for at, path, size in self._sizes if path == newest and at <= moment]
        if newest is not None and sizes and sizes[-1] < newest.stat().st_size:
            os.truncate(newest, sizes[-1])
        self._sizes.clear()


def _number(file: Path) -> int:
    """Return the number in `appendonly.aof.12.incr.aof`: Redis begins a new file at each rewrite."""
    return int(file.name.split(".")[-3])


@asynccontextmanager
async def store(*, replicated: bool = False) -> AsyncIterator[Store]:
    """Yield a running store. At the end it is stopped, and its directories are removed."""
    held = Store(RedisServer(aof=True))
    watch = asyncio.create_task(held.watch(), name="store-watch")
    try:
        await standby.start(held.server)
        if replicated:
            await held.attach()
        yield held
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        await held.close()
