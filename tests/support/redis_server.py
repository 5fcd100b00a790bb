"""A real redis-server of a test's own, on a UNIX socket in a directory of its own."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from redis.asyncio import Redis
from redis.exceptions import RedisError

START_SECONDS = 20
BUS_PORTS_ABOVE = 10_000  # where a node of a cluster speaks to the others
PORTS = (10_001, 22_000)


def free_port() -> int:
    """A TCP port that nobody listens on, nor on the one ten thousand above, a cluster node's bus port.

    Both lie below those that the system gives to outgoing connections: one might take them meanwhile.
    """
    while True:
        port = random.randint(*PORTS)
        try:
            for number in (port, port + BUS_PORTS_ABOVE):
                socket.create_server(("127.0.0.1", number)).close()
        except OSError:
            continue
        return port


def tls_options(folder: Path) -> list[str]:
    """What a redis-server with these certificates is started with."""
    names = {"cert": "server.pem", "key": "server.key", "ca-cert": "authority.pem"}
    options = [item for kind, name in names.items() for item in (f"--tls-{kind}-file", str(folder / name))]
    return [*options, "--tls-auth-clients", "no"]


async def maps_asked(client: Redis) -> int:
    """How often it was asked for `CLUSTER SLOTS`. Redis 6.2 counts all CLUSTER commands in one number."""
    stats: dict[str, Any] = await client.info("commandstats")
    found = stats.get("cmdstat_cluster|slots", stats.get("cmdstat_cluster", {"calls": 0}))
    return int(found["calls"])


class RedisServer:
    """`async with RedisServer() as server`; `server.url`. With `aof=True` it fsyncs every second.

    With `tcp=True` it serves `server.port` of loopback, too.

    `tls` is where `certificates.py` has left key and certificates: it then serves `server.tls_port`, too.
    """

    def __init__(self, *, aof: bool = False, tls: Path | None = None, tcp: bool = False) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="holdfast-redis-"))
        self.socket = self.directory / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._aof = aof
        self._tls = tls
        self.tls_port = 0
        self.port = free_port() if tcp else 0
        self.environment: Mapping[str, str] | None = None  # None: ours
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start, or start again after `kill`, and await its answer."""
        program = shutil.which("redis-server")
        assert program, "the tests need a redis-server; `make setup` installs one"
        persistence = ["--appendonly", "yes", "--appendfsync", "everysec"] if self._aof else []
        self._process = await asyncio.create_subprocess_exec(
            *(program, "--port", str(self.port), "--unixsocket", str(self.socket), "--save", ""),
            *("--dir", str(self.directory), *persistence, *self._secured()),
            env=self.environment,
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

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _secured(self) -> list[str]:
        if self._tls is None:
            return []
        self.tls_port = free_port()
        return ["--tls-port", str(self.tls_port), *tls_options(self._tls)]

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
