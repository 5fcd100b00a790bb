"""Live: events on their way from the producer to thousands of readers, by sseload, which checks every one.

Each side has a Redis, a server and a producer in processes of their own; nothing else is on the machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.load import Load, cpu_seconds, sseload, tool
from bench.parts import usual
from tests.support.processes import REPOSITORY, GatewayProcess
from tests.support.redis_server import RedisServer

WARM_SECONDS = 1.0
SETTLE_SECONDS = 2.0  # after the last event


@dataclass(frozen=True, slots=True)
class Server:
    """A side: who serves, on which port, over which Redis; `pid` is the serving process."""

    name: str
    port: int
    pid: int
    redis: RedisServer


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement: what the readers saw, what the server used, what the producer said."""

    load: Load
    cpu_seconds: float
    appends_per_event: float

    @property
    def cpu_per_million(self) -> float:
        """The server's CPU seconds for a million events received."""
        return self.cpu_seconds / max(self.load.events, 1) * 1_000_000


@asynccontextmanager
async def product(**settings: str) -> AsyncIterator[Server]:
    """`python -m gateway web`, rotation off, everything else as it is."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(RedisServer())
        environment = {"REDIS_URL": redis.url, "GATEWAY_STREAM_MAX_AGE_SECONDS": "0", **settings}
        web = await stack.enter_async_context(GatewayProcess("web", environment, anew=True))
        yield Server("product", urlsplit(web.url).port or 0, web.pid, redis)


@asynccontextmanager
async def baseline() -> AsyncIterator[Server]:
    """The usual design: one XREAD loop for each reader."""
    async with RedisServer(tcp=True) as redis, usual(redis.url) as (port, pid):
        yield Server("usual", port, pid, redis)


async def live(server: Server, streams: int, readers: int, rate: float, seconds: float) -> Run:
    """So many events a second in every stream, to its readers."""
    with tempfile.TemporaryDirectory() as folder:
        paths, ready = Path(folder, "paths"), Path(folder, "ready")
        if server.name == "product":
            command: Sequence[str] = (sys.executable, "-m", "bench.produce", server.redis.url)
            command = (*command, str(streams), str(rate), str(seconds), str(paths), str(ready))
        else:
            _name(paths, streams)
            command = (tool("ssepub"), "-m", "xadd", "-p", str(server.redis.port), "-E")
            command = (*command, "-s", str(streams), "-r", str(rate), "-d", str(seconds), "-R", str(ready))
        producer = await asyncio.create_subprocess_exec(
            *command, cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE
        )
        try:
            while not os.path.exists(paths):  # noqa: ASYNC110, ASYNC240 - made by the producer
                await asyncio.sleep(0.02)
            before = cpu_seconds(server.pid)
            options = ("-w", str(WARM_SECONDS), "-i", str(SETTLE_SECONDS), "-c", "data", "-R", str(ready))
            load = await sseload(server.port, paths, streams, readers, seconds + 30, *options)
            used = cpu_seconds(server.pid) - before
            out, _ = await asyncio.wait_for(producer.communicate(), 60)
        finally:
            if producer.returncode is None:
                producer.kill()
                await producer.wait()
    told = json.loads(out) if server.name == "product" else {"appends": 1, "events": 1}
    return Run(load, used, told["appends"] / told["events"])


def _name(paths: Path, streams: int) -> None:
    paths.write_text("".join(f"/stream/s:{number}\n" for number in range(streams)))
