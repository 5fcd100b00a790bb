"""The sides of a comparison: the process of the product and the processes of the baselines, each on loopback.

The product runs as in operation, with every guarantee on. There are two exceptions: connections are not
rotated, and quotas that the load of one machine would reach are raised.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.support.processes import REPOSITORY, GatewayProcess
from tests.support.redis_server import RedisServer

PRODUCT, ONE, USUAL, FLOOR = "Holdfast", "one function", "usual design", "floor"
BARE = "LangChain alone"
WIDE_OPEN = {  # quotas that let one caller send the load of many
    "GATEWAY_STREAM_MAX_AGE_SECONDS": "0",
    "GATEWAY_MAX_OWNER_STREAMS": "100000",
    "GATEWAY_MAX_OWNER_STARTS_PER_MINUTE": "1000000",
    "GATEWAY_MAX_READERS": "20000",
    "GATEWAY_MAX_STREAM_READERS": "20000",
    "GATEWAY_WORKER_CONCURRENCY": "64",
}


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its name, port, process, and Redis if it has one."""

    name: str
    port: int
    pid: int
    redis: RedisServer | None = None


@asynccontextmanager
async def product(mode: str = "web", **settings: str) -> AsyncIterator[Server]:
    """Start `python -m gateway web`, or another mode such as `all`, with a separate Redis."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(RedisServer())
        environment = {"REDIS_URL": redis.url, **WIDE_OPEN, **settings}
        process = await stack.enter_async_context(GatewayProcess(mode, environment, anew=True))
        yield Server(PRODUCT, urlsplit(process.url).port or 0, process.pid, redis)


@asynccontextmanager
async def usual() -> AsyncIterator[Server]:
    """Start the usual design: one XREAD loop for each reader, with a separate Redis."""
    async with RedisServer(tcp=True) as redis, module("bench.usual", redis.url) as (port, pid):
        yield Server(USUAL, port, pid, redis)


@asynccontextmanager
async def floor(*arguments: str) -> AsyncIterator[Server]:
    """Start uvicorn alone, which sends prepared bytes."""
    async with module("bench.floor", *arguments) as (port, pid):
        yield Server(FLOOR, port, pid)


@asynccontextmanager
async def one_function(environment: dict[str, str]) -> AsyncIterator[Server]:
    """Start the one-function design: the model's stream is sent directly in a response."""
    async with module("bench.one_function", environment=environment) as (port, pid):
        yield Server(ONE, port, pid)


@asynccontextmanager
async def module(
    name: str, *arguments: str, environment: dict[str, str] | None = None
) -> AsyncIterator[tuple[int, int]]:
    """Run `python -m NAME SOCKET_FD ARGUMENTS`, which serves a bound socket; yield its port and its pid."""
    bound = socket.create_server(("127.0.0.1", 0), backlog=2048)
    port = bound.getsockname()[1]
    command: Sequence[str] = (sys.executable, "-m", name, str(bound.fileno()), *arguments)
    process = await asyncio.create_subprocess_exec(
        *command, pass_fds=[bound.fileno()], cwd=REPOSITORY, env=environment
    )
    bound.close()
    try:
        await _answers(port)
        yield port, process.pid
    finally:
        process.kill()
        await process.wait()


async def _answers(port: int) -> None:
    """Wait until the server has answered a request: then its imports are done."""
    async with asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
        await reader.read()
        writer.close()
        await writer.wait_closed()
