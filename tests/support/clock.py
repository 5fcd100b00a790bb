"""A redis-server whose clock a test moves, as a failover to a machine with another clock does.

The C library's calls for the time of day are replaced in that process alone, so everything in it follows:
TIME, expiries, the idle time of a queue's entries. What measures only a duration is left as it is.
"""

from __future__ import annotations

import asyncio
import os
import struct
from pathlib import Path

from tests.support.redis_server import RedisServer

SOURCE = Path(__file__).with_suffix(".c")


class ClockServer(RedisServer):
    """`async with ClockServer(tmp_path) as server`; then `server.move(-600)`, seconds from the real time."""

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

    def move(self, seconds: int) -> None:
        """At once, for everything in that process."""
        with self._moved.open("r+b") as file:
            file.write(struct.pack("l", seconds))
