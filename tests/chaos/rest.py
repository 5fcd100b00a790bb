"""After the last fault all activity ends: no stream is open, no message is in the queue, no task remains."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from pathlib import Path
from time import monotonic

from tests.chaos.probe import MARK
from tests.chaos.recovery import QUEUE
from tests.chaos.stage import Stage
from tests.chaos.tally import Tally
from tests.support.processes import GatewayProcess

REST_SECONDS = 65.0  # a record that was never confirmed expires after 60 s
LEAVE_SECONDS = 20.0
_LOOK_SECONDS = 0.2


class Rest:
    """The state of the processes before the run. `leftovers` finds what they have not released."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._tasks: dict[str, Counter[str]] = {"web": Counter(), "worker": Counter()}
        self._sockets: dict[str, int] = {"web": 0, "worker": 0}

    async def before(self) -> None:
        """Record the tasks and sockets of processes that have served and are idle."""
        for mode, process in self._stage.processes():
            self._tasks[mode] |= await tasks_of(process)
            self._sockets[mode] = max(self._sockets[mode], sockets_of(process.pid))

    async def come(self, tally: Tally, accepted: set[str]) -> bool:
        """Wait until the store shows no work; return whether this happened within the time limit.

        A record that was never confirmed, and whose POST was not answered 202, is left to its expiry.
        """
        deadline = monotonic() + REST_SECONDS
        while work := await self._work(accepted):
            if monotonic() > deadline:
                tally.find(f"not at rest {REST_SECONDS:.0f} s after the last fault: " + "; ".join(work[:20]))
                return False
            await asyncio.sleep(_LOOK_SECONDS)
        return True

    async def leftovers(self, tally: Tally) -> None:
        """Record what is still held long after the last reader has left."""
        deadline = monotonic() + LEAVE_SECONDS
        while held := await self._held():
            if monotonic() > deadline:
                for text in held:
                    tally.find(text)
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def _work(self, accepted: set[str]) -> list[str]:
        redis, found = self._stage.redis, []
        async for key in redis.scan_iter("{*}:open", count=1000):
            found += [f"open: {stream.decode()}" for stream in await redis.zrange(key, 0, -1)]
        async for key in redis.scan_iter("{*}:job:*", count=1000):
            fields = await redis.hmget(key, ["status", "attempt", "confirmed", "last_id"])
            awaited = fields[2] or key.decode().rpartition(":")[2] in accepted
            if fields[0] in (b"queued", b"running") and awaited:
                found.append(f"{key.decode()}: {fields}")
        if depth := await redis.xlen(QUEUE):
            found.append(f"{depth} messages in the queue")
        return found

    async def _held(self) -> list[str]:
        redis, found = self._stage.redis, []
        if channels := await redis.pubsub_channels():
            found.append(f"{len(channels)} channels are still subscribed to")
        for mode, process in self._stage.processes():
            if more := await tasks_of(process) - self._tasks[mode]:
                found.append(f"{mode} {process.pid} has tasks that it had not before: {dict(more)}")
            sockets = sockets_of(process.pid)
            if mode == "web" and sockets > self._sockets[mode]:
                found.append(f"web {process.pid} has {sockets} sockets, before {self._sockets[mode]}")
        names = Counter(client["name"] for client in await redis.client_list())
        for name, most in (("holdfast", 5), ("holdfast-queue", 3), ("holdfast-hub", 2)):
            if names[name] > most:
                found.append(f"{names[name]} connections named {name} for 2 webs and 3 workers")
        return found


async def tasks_of(process: GatewayProcess) -> Counter[str]:
    """Return the tasks that the process's probe prints."""
    seen = process.log().count(MARK)
    process.signal(signal.SIGUSR1)
    async with asyncio.timeout(LEAVE_SECONDS):
        while process.log().count(MARK) <= seen:  # noqa: ASYNC110 - another process's stderr
            await asyncio.sleep(0.05)
    told = process.log().rpartition(MARK)[2].partition("\n")[0]
    return Counter(json.loads(told))


def sockets_of(pid: int) -> int:
    """Return the number of its open sockets, or 0 if the kernel does not tell."""
    count = 0
    for entry in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            count += os.readlink(entry).startswith("socket:")
        except FileNotFoundError:
            continue  # closed in the meantime
    return count
