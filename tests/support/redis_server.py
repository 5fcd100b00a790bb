"""A real redis-server of a test's own, on a UNIX socket in a directory of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from redis.asyncio import Redis
from redis.exceptions import RedisError

START_SECONDS = 20


class RedisServer:
    """`async with RedisServer() as server`; `server.url`. With `aof=True` it fsyncs every second."""

    def __init__(self, *, aof: bool = False) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="holdfast-redis-"))
        self.socket = self.directory / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._aof = aof
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start, or start again after `kill`, and await its answer."""
        program = shutil.which("redis-server")
        assert program, "the tests need a redis-server; `make setup` installs one"
        persistence = ["--appendonly", "yes", "--appendfsync", "everysec"] if self._aof else []
        self._process = await asyncio.create_subprocess_exec(
            *(program, "--port", "0", "--unixsocket", str(self.socket), "--save", ""),
            *("--dir", str(self.directory), *persistence),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(START_SECONDS):
            while not await self._answers():  # noqa: ASYNC110 - only a PING can tell
                await asyncio.sleep(0.01)

    async def kill(self) -> None:
        """SIGKILL, by its pid."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Stop it and remove its directory."""
        await self._end(signal.SIGTERM)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _end(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            os.kill(self._process.pid, number)
            await self._process.wait()

    async def _answers(self) -> bool:
        client = Redis.from_url(self.url, retry=None)
        try:
            return bool(await client.ping())
        except (RedisError, OSError):
            return False
        finally:
            await client.aclose()
