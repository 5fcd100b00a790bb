"""A real redis-server for one test, on a UNIX socket in its own directory."""

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
BUS_PORTS_ABOVE = 10_000  # a cluster node's bus port lies this far above its port
PORTS = (10_001, 22_000)


def free_port() -> int:
    """Return a free TCP port whose port + 10 000 is free too: that is the bus port of a cluster node.

    Both lie below the range for outgoing connections, because such a connection could take a port in the
    meantime.
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
    """Return the options that make a redis-server use these certificates."""
    names = {"cert": "server.pem", "key": "server.key", "ca-cert": "authority.pem"}
    options = [item for kind, name in names.items() for item in (f"--tls-{kind}-file", str(folder / name))]
    return [*options, "--tls-auth-clients", "no"]


async def maps_asked(client: Redis) -> int:
    """Return how many times `CLUSTER SLOTS` was requested. Redis 6.2 has one count for all CLUSTER
    commands."""
    stats: dict[str, Any] = await client.info("commandstats")
    found = stats.get("cmdstat_cluster|slots", stats.get("cmdstat_cluster", {"calls": 0}))
    return int(found["calls"])


class RedisServer:
    """`async with RedisServer() as server`; then `server.url`. With `aof=True` it calls fsync every second.

    With `tcp=True` it also listens on `server.port` of loopback.

    `tls` is the folder of the key and certificates that `certificates.py` wrote: it then also listens on
    `server.tls_port`.
    """

    def __init__(self, *, aof: bool = False, tls: Path | None = None, tcp: bool = False) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="holdfast-redis-"))
        self.socket = self.directory / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._aof = aof
        self._tls = tls
        self.tls_port = 0
        self.port = free_port() if tcp else 0
        self.environment: Mapping[str, str] | None = None  # None: the environment of this process
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the server and wait for its answer. It can be started again after `kill`."""
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
        """Send SIGKILL to the process."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Stop the server and remove its directory."""
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
