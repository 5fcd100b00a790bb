"""What comes before a body is bounded: in bytes, and in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from gateway import http
from gateway.http import MOST_HEAD_BYTES, Bounded
from tests.support.following import until

LIMIT_SECONDS = 30


async def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


LARGE = b"x" * (8 * 1024 * 1024)


async def large(_: Request) -> PlainTextResponse:
    return PlainTextResponse(LARGE)


@pytest.fixture
async def server() -> AsyncIterator[uvicorn.Server]:
    """A server of this module's own."""
    routes = [Route("/", answer, methods=["GET", "POST"]), Route("/large", large)]
    config = uvicorn.Config(Starlette(routes=routes), http=Bounded, log_config=None, lifespan="off", port=0)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    await until(lambda: server.started)
    yield server
    server.should_exit = True
    await serving


@pytest.fixture
def port(server: uvicorn.Server) -> int:
    """Where it listens."""
    return int(server.servers[0].sockets[0].getsockname()[1])


async def said(port: int, *pieces: bytes, most: int = 0) -> bytes:
    """What comes back until the server closes; the last piece is sent again, up to `most` bytes in all."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = 0
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            for piece in pieces:
                writer.write(piece)
            while sent < most and not reader.at_eof() and not writer.is_closing():
                writer.write(pieces[-1])
                sent += len(pieces[-1])
                await writer.drain()
                await asyncio.sleep(0)
            return await reader.read()
    except ConnectionError:
        return b"cut"
    finally:
        writer.transport.abort()


async def test_a_request_is_answered_and_the_next_on_the_connection(port: int) -> None:
    one = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n" + b"b" * 100_000
    last = (
        b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: " + b"y" * (MOST_HEAD_BYTES // 2) + b"\r\n\r\n"
    )
    got = await said(port, one + last)
    assert got.count(b"HTTP/1.1 200 OK") == 2
    assert b"100000" in got


@pytest.mark.parametrize(
    "beginning", [b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nx: ", b"GET /"], ids=["headers", "value", "url"]
)
async def test_a_head_without_an_end_is_refused(port: int, beginning: bytes) -> None:
    more = b"x: y\r\n" * 1000 if beginning.endswith(b"\r\n") else b"z" * 6000
    got = await said(port, beginning, more, most=20 * MOST_HEAD_BYTES)
    assert got == b"cut" or got.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("beginning", [b"", b"GET / HTTP/1.1\r\nhost:"], ids=["silent", "half a head"])
async def test_a_head_that_does_not_come_is_not_waited_for(
    port: int, monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.2)
    assert await said(port, beginning) == b""


async def test_what_nobody_takes_is_let_go_and_what_somebody_takes_slowly_is_not(
    server: uvicorn.Server, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "STALLED_SECONDS", 0.5)
    connections = server.server_state.connections
    ask = b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    _, dead = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    dead.write(ask)
    await until(lambda: len(connections) == 1)
    reader, slow = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    slow.write(ask)
    got = await reader.read(1024)
    while any(
        one.transport.get_extra_info("peername") == dead.get_extra_info("sockname") for one in connections
    ):
        got += await reader.read(64 * 1024)  # until the other one has been cut
        await asyncio.sleep(0.01)
    got += await reader.read()
    assert got.endswith(LARGE)
    for writer in (dead, slow):
        writer.transport.abort()
