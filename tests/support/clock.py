"""A redis-server whose clock a test moves, as a failover to a machine with another clock does.

The C library's calls for the time of day are replaced in that process alone, so everything in it follows:
TIME, expiries, the idle time of a queue's entries. What measures only a duration is left as it is.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from pathlib import Path

from redis.asyncio import Redis

from tests.support.redis_server import START_SECONDS, RedisServer

NEAR_SECONDS = 30  # a move is much longer
SOURCE = Path(__file__).with_suffix(".c")


class ClockServer(RedisServer):
    """`async with ClockServer(tmp_path) as server`; then `await server.move(-600)`, in seconds."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._library = folder / "clock.so"
        self._moved = folder / "moved"

    async def start(self) -> None:
        """Build the library, and start with it."""
        command = ("cc", "-shared", "-fPIC", "-O1", "-o", str(self._library), str(SOURCE), "-ldl")
        compiler = await asyncio.create_subprocess_exec(*command)
        assert await compiler.wait() == 0
        self._moved.write_bytes(struct.pack("l", 0))
        self.environment = os.environ | {
            "LD_PRELOAD": str(self._library),
            "CLOCK_FILE": str(self._moved),
        }
        await super().start()

    async def move(self, seconds: int) -> None:
        """Move the clock of that process so far from the real time, and wait until the server tells it.

        Valkey reads its clock once in a turn of its event loop: the next command may still see the old time.
        """
        with self._moved.open("r+b") as file:
            file.write(struct.pack("l", seconds))
        async with Redis.from_url(self.url) as client, asyncio.timeout(START_SECONDS):
            while abs((await client.time())[0] - time.time() - seconds) > NEAR_SECONDS:
                pass  # the condition itself awaits
