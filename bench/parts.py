"""The two sides of the benchmark, real processes on a Redis each, and a reader that counts and times."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from time import time_ns
from typing import Protocol, Self

from redis.asyncio import Redis

from bench.produce import KEEP_MS, made
from gateway import protocol, sse
from gateway.connection import Connection
from gateway.log import Log
from gateway.protocol import Event, EventType
from gateway.record import Claim
from tests.support.processes import GatewayProcess
from tests.support.redis_server import RedisServer

LEASE_MS = 600_000
_STAMP = re.compile(rb'"ts":(\d+)')


class Reader:
    """Follows one stream over a raw socket until its end."""

    def __init__(self, url: str, stream_id: str) -> None:
        self._host, _, port = url.removeprefix("http://").partition(":")
        self._port = int(port)
        self._id = stream_id
        self.joined = asyncio.Event()
        self.latencies: list[float] = []
        self.events = 0

    async def run(self) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=1 << 20)
        writer.write(
            f"GET /stream/{self._id} HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        tail = b""
        while piece := await reader.read(1 << 16):
            now = time_ns()
            self.joined.set()
            lines = (tail + piece).split(b"\n")
            tail = lines.pop()
            for line in lines:
                if stamp := _STAMP.search(line):
                    self.events += 1
                    self.latencies.append((now - int(stamp[1])) / 1e9)
        writer.close()
        await writer.wait_closed()


class Side(Protocol):
    """A server process, its Redis, and how events come into a stream."""

    url: str

    async def new_stream(self) -> str:
        """Begin a stream and answer its id."""

    async def append(self, stream_id: str, count: int = 1) -> None:
        """Add so many events, in one step, with the time in them."""

    async def end(self, stream_id: str) -> None:
        """Add the terminal event."""


async def fill(side: Side, stream_id: str, count: int) -> None:
    """Make a long log, a hundred events an append."""
    for _ in range(0, count, 100):
        await side.append(stream_id, 100)


def text() -> str:
    """About 75 bytes of payload with the time in nanoseconds."""
    return json.dumps({"ts": time_ns(), "seq": 1, "token": "abcdefgh"}, separators=(",", ":"))


class Product:
    """`python -m gateway web`; the producer appends as a worker would, with a claim's token."""

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}
        self._ends: dict[str, int] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        redis = await self._stack.enter_async_context(RedisServer())
        settings = {"REDIS_URL": redis.url, "GATEWAY_STREAM_MAX_AGE_SECONDS": "0"}
        self.url = (await self._stack.enter_async_context(GatewayProcess("web", settings, anew=True))).url
        connection = Connection(redis.url, name="bench")
        self._stack.push_async_callback(connection.close)
        self._log = Log(connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def new_stream(self) -> str:
        pen = await made(self._log)
        stream_id = pen.claim.record.id
        self._claims[stream_id], self._ends[stream_id] = pen.claim, pen.end
        return stream_id

    async def append(self, stream_id: str, count: int = 1) -> None:
        event = Event(EventType.MESSAGE, json.loads(text()))
        await self._append(stream_id, [event] * count)

    async def end(self, stream_id: str) -> None:
        event = protocol.done(finish_reason="stop", usage={}, attempts=1, duration_ms=1)
        await self._append(stream_id, [event], "done")

    async def _append(self, stream_id: str, events: list[Event], status: str = "") -> None:
        claim, position = self._claims[stream_id], self._ends[stream_id]
        frames, end = b"", position
        for event in events:
            last = f"{end}-{claim.tag}"
            frame = sse.encode(event, end, claim.tag)
            frames, end = frames + frame, end + len(frame)
        answer = await self._log.append(claim, position, frames, last, LEASE_MS, status=status)
        assert answer.word == "ok", answer
        self._ends[stream_id] = end


@asynccontextmanager
async def usual(redis_url: str) -> AsyncIterator[tuple[int, int]]:
    """`bench.baseline` under uvicorn: its port and its pid."""
    bound = socket.create_server(("127.0.0.1", 0), backlog=2048)
    port = bound.getsockname()[1]
    command = (sys.executable, "-m", "bench.baseline", redis_url, str(bound.fileno()))
    process = await asyncio.create_subprocess_exec(*command, pass_fds=[bound.fileno()])
    bound.close()
    try:
        yield port, process.pid
    finally:
        process.kill()
        await process.wait()


class Baseline:
    """`bench.baseline` under uvicorn; the producer is one XADD an event on redis-py."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        redis = await self._stack.enter_async_context(RedisServer())
        port, _ = await self._stack.enter_async_context(usual(redis.url))
        self.url = f"http://127.0.0.1:{port}"
        self._redis = Redis.from_url(redis.url)
        self._stack.push_async_callback(self._redis.aclose)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def new_stream(self) -> str:
        return secrets.token_hex(8)

    async def append(self, stream_id: str, count: int = 1) -> None:
        pipe = self._redis.pipeline(transaction=False)
        for _ in range(count):
            pipe.xadd(stream_id, {"d": text()})
        pipe.expire(stream_id, KEEP_MS // 1000)
        await pipe.execute()

    async def end(self, stream_id: str) -> None:
        await self._redis.xadd(stream_id, {"end": "1"})
