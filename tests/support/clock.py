"""A redis-server whose clock a test can change, as a failover to a machine with another clock does.

The C library's calls for the time of day are replaced in the server process alone. So everything in that
process uses the changed time: TIME, expiries, the idle time of queue entries. Functions that measure only a
duration are not replaced.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from pathlib import Path

from redis.asyncio import Redis

from tests.support.redis_server import START_SECONDS, RedisServer

NEAR_SECONDS = 30  # a test moves the clock by much more than this
SOURCE = Path(__file__).with_suffix(".c")


class ClockServer(RedisServer):
    """`async with ClockServer(tmp_path) as server`; then `await server.move(-600)`. The argument is in
    seconds."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._library = folder / "clock.so"
        self._moved = folder / "moved"

    async def start(self) -> None:
        """Build the library, and start the server with it."""
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
        """Set the server's clock to this difference from the real time, and wait until the server reports the
        new time.

        Valkey reads its clock once in each turn of its event loop, so the next command may still see the old
        time.
        """
        with self._moved.open("r+b") as file:
            file.write(struct.pack("l", seconds))
        async with Redis.from_url(self.url) as client, asyncio.timeout(START_SECONDS):
            while abs((await client.time())[0] - time.time() - seconds) > NEAR_SECONDS:
                pass  # the condition itself awaits
