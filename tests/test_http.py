"""The limits of one HTTP connection, in bytes and in time: for heads, bodies, answers, waiting requests."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from gateway.hosts import uvicorn_protocol
from gateway.hosts.uvicorn_protocol import MOST_HEAD_BYTES, bounded
from tests.support.following import until

LIMIT_SECONDS = 30


async def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


LARGE = b"x" * (8 * 1024 * 1024)


async def large(_: Request) -> PlainTextResponse:
    return PlainTextResponse(LARGE)


async def middling(_: Request) -> PlainTextResponse:
    return PlainTextResponse(LARGE[: 128 * 1024])


async def told(request: Request) -> JSONResponse:
    """Answer with the request's header fields. They are read after the body."""
    await request.body()
    return JSONResponse([[name, value] for name, value in request.headers.items()])


async def broken(_: Request) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"begun"
        raise ConnectionError("the test's own")

    return StreamingResponse(pieces())


async def pieces(_: Request) -> StreamingResponse:
    async def all_of_them() -> AsyncIterator[bytes]:
        yield b"one,"
        yield b"two"

    return StreamingResponse(all_of_them())


async def waits(request: Request) -> PlainTextResponse:
    """Answer when the test calls `release`."""
    await request.app.state.held.wait()
    return PlainTextResponse("late")


@pytest.fixture
async def server() -> AsyncIterator[uvicorn.Server]:
    """Start a uvicorn server with the routes above, and stop it after the test."""
    routes = [
        Route("/", answer, methods=["GET", "POST"]),
        Route("/large", large),
        Route("/middling", middling),
        Route("/told", told, methods=["POST"]),
        Route("/broken", broken),
        Route("/pieces", pieces),
        Route("/waits", waits),
    ]
    application = Starlette(routes=routes)
    application.state.held = asyncio.Event()
    config = uvicorn.Config(
        application,
        http=bounded(),  # type: ignore[arg-type]
        log_config=None,
        lifespan="off",
        port=0,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    await until(lambda: server.started)
    yield server
    server.should_exit = True
    await serving


@pytest.fixture
def port(server: uvicorn.Server) -> int:
    """Return the port on which the server listens."""
    return int(server.servers[0].sockets[0].getsockname()[1])


async def said(port: int, *pieces: bytes, most: int = 0) -> bytes:
    """Send the pieces, then the last one again for `most` bytes. Return the answer; "cut" after a reset."""
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
    monkeypatch.setattr(uvicorn_protocol, "HEAD_SECONDS", 0.2)
    assert await said(port, beginning) == b""


async def test_what_nobody_takes_is_let_go_and_what_somebody_takes_slowly_is_not(
    server: uvicorn.Server, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn_protocol, "STALLED_SECONDS", 0.5)
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
        got += await reader.read(64 * 1024)  # Read until the server has cut `dead`.
        await asyncio.sleep(0.01)
    got += await reader.read()
    assert got.endswith(LARGE)
    for writer in (dead, slow):
        writer.transport.abort()


@pytest.fixture
def undo(server: uvicorn.Server) -> Iterator[ExitStack]:
    """Yield a stack. Its callbacks run before the server stops."""
    with ExitStack() as stack:
        yield stack


async def test_fault_49_who_takes_no_answer_gives_way_and_who_waits_for_one_does_not(
    server: uvicorn.Server, port: int, undo: ExitStack
) -> None:
    server.config.http_protocol_class.args[0].most = 3  # type: ignore[attr-defined]
    connections: Any = server.server_state.connections
    ask = b"GET /middling HTTP/1.1\r\nhost: x\r\n\r\n"
    waiting, waits = await asyncio.open_connection("127.0.0.1", port)
    undo.callback(waits.transport.abort)
    undo.callback(release, server)
    waits.write(ask.replace(b"/middling", b"/waits"))
    await until(lambda: len(connections) == 1)
    for number in range(2):
        peer = undo.enter_context(socket.socket())
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(("127.0.0.1", port))
        await until(lambda number=number: len(connections) == number + 2)  # type: ignore[misc]
        for one in connections:
            one.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        peer.sendall(ask * 2)  # The second answer stays unfinished until the client reads the first.
    await until(lambda: sum(one.flow.write_paused for one in connections) == 2)
    assert b" 200 OK" in await said(port, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    await until(lambda: len(connections) == 2)
    assert sum(one.flow.write_paused for one in connections) == 1
    release(server)
    async with asyncio.timeout(LIMIT_SECONDS):
        assert (await waiting.readuntil(b"late")).startswith(b"HTTP/1.1 200 ")
    waits.transport.abort()
    await until(lambda: len(connections) == 1)


async def test_fault_48_the_rest_of_a_last_answer_is_not_waited_for_for_ever(
    server: uvicorn.Server, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn_protocol, "STALLED_SECONDS", 1.0)
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(("127.0.0.1", port))
        [one] = await some(server)
        one.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        peer.sendall(b"GET /middling HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        peer.setblocking(False)
        await until(lambda: one.flow.write_paused)
        while one.flow.write_paused:  # Until all but a few kB are in the system's buffers.
            with suppress(BlockingIOError):
                peer.recv(2048)
            await asyncio.sleep(0)
        assert one.transport.get_write_buffer_size()
        await until(lambda: not server.server_state.connections)


CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nb\r\n"
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("beginning", "more"),
    [
        (CHUNKED + b"0\r\n", b"x: y\r\n" * 1000),
        (CHUNKED + b"0\r\nx: ", b"z" * 6000),
        (CHUNKED + b"1;", b"z" * 6000),
        (CHUNKED, b"1;" + b"z" * 600 + b"\r\nb\r\n"),
        (GET, b"\r\n" * 3000),
    ],
    ids=["trailers", "one trailer", "an extension", "extensions", "empty lines"],
)
async def test_fault_46_what_is_neither_head_nor_body_is_bounded(
    port: int, beginning: bytes, more: bytes
) -> None:
    got = await said(port, beginning, more, most=40 * MOST_HEAD_BYTES)
    assert got == b"cut" or b"HTTP/1.1 431 " in got


async def test_a_body_in_the_smallest_chunks_is_taken(port: int) -> None:
    chunks = b"1\r\nb\r\n" * (2 * MOST_HEAD_BYTES)
    end = b"0\r\nx: y\r\n\r\n" + GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    got = await said(port, CHUNKED, chunks, end)
    assert got.count(b"HTTP/1.1 200 ") == 2
    assert b"\r\n\r\n%d" % (2 * MOST_HEAD_BYTES + 1) in got


@pytest.mark.parametrize("split", [False, True], ids=["one write", "each byte alone"])
async def test_fault_47_a_trailer_is_never_a_header(port: int, split: bool) -> None:
    names = (b"authorization", b"x-api-key", b"x-ms-client-principal-id", b"host", b"expect", b"connection")
    trailers = b"".join(b"%b: trailing\r\n" % name for name in names)
    head = b"POST /told HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n"
    whole = head + b"trailer: authorization\r\n\r\n1\r\nb\r\n0\r\n" + trailers + b"\r\n"
    got = await said(port, *([whole[n : n + 1] for n in range(len(whole))] if split else [whole]))
    assert got.startswith(b"HTTP/1.1 200 ")
    assert b"trailing" not in got
    assert b'["host","x"]' in got


NONE = CHUNKED.replace(b"POST / ", b"POST /none ")  # It is answered 404 before its body arrives.


@pytest.mark.parametrize(
    ("asked", "then", "lines"),
    [
        (GET, b"\r\n", 0),
        (GET, b"GET / HT", 1),
        (b"GET /pieces HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n", b"b", 1),
        (NONE, b"1\r\n", 1),
        (NONE, b"0\r\nx: y", 1),
    ],
    ids=["an empty line", "half a request line", "a byte of a body", "half a chunked body", "half a trailer"],
)
async def test_fault_48_silence_after_an_answer_ends_the_connection_and_the_log_says_so_once(
    server: uvicorn.Server,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    asked: bytes,
    then: bytes,
    lines: int,
) -> None:
    """An empty line is not a request. The unused connection ends as usual, and no line is logged."""
    monkeypatch.setattr(uvicorn_protocol, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(uvicorn_protocol, "WHOLE_BODY_SECONDS", 0.5, raising=False)
    server.config.timeout_keep_alive = 1
    caplog.set_level(logging.INFO, "holdfast.door")
    for _ in range(2):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(asked)
        async with asyncio.timeout(LIMIT_SECONDS):
            assert (await reader.readline()).startswith(b"HTTP/1.1 ")
            writer.write(then)
            await reader.read()  # Read until the server closes it.
        writer.close()
    assert len(caplog.records) == lines


async def test_fault_48_a_body_that_comes_by_the_byte_has_a_bound_in_all(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn_protocol, "WHOLE_BODY_SECONDS", 0.5, raising=False)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
    async with asyncio.timeout(LIMIT_SECONDS):
        while not reader.at_eof() and not writer.is_closing():
            writer.write(b"b")
            await asyncio.sleep(0.02)
    writer.transport.abort()


@pytest.mark.parametrize("version", [b"1.0", b"0.9"])
async def test_fault_50_an_answer_to_http_1_0_has_no_chunks(port: int, version: bytes) -> None:
    ask = b"GET /pieces HTTP/%b\r\nconnection: keep-alive\r\n\r\n" % version
    head, _, body = (await said(port, ask)).partition(b"\r\n\r\n")
    assert body == b"one,two"
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()


async def test_fault_50_an_answer_of_known_length_to_http_1_0_has_it(port: int) -> None:
    got = await said(port, b"POST / HTTP/1.0\r\ncontent-length: 3\r\n\r\nabc")
    head, _, body = got.partition(b"\r\n\r\n")
    assert (body, b"content-length: 1" in head) == (b"3", True)


async def test_fault_50_a_body_to_http_1_0_that_does_not_end_is_cut(port: int) -> None:
    """In HTTP/1.0 a clean close means that the body is complete, so the server must reset the connection."""
    assert await said(port, b"GET /broken HTTP/1.0\r\n\r\n") == b"cut"


async def test_fault_58_a_refusal_is_never_written_into_another_answer(
    server: uvicorn.Server, port: int
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /waits HTTP/1.1\r\nhost: x\r\n\r\n" + GET + b"no HTTP\r\n\r\n")
    [one] = await some(server)
    await until(lambda: bool(one.pipeline) or one.transport.is_closing())  # The server has read all.
    release(server)
    async with asyncio.timeout(LIMIT_SECONDS):
        got = await reader.read()
    answers = got.split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200", b"200", b"400"]
    assert answers[0].endswith(b"late")
    writer.close()


async def test_fault_58_requests_that_wait_are_answered_in_their_order_though_many_come(port: int) -> None:
    posts = [b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % n + b"b" * n for n in range(1, 11)]
    last = GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    got = await said(port, b"".join(posts) + last)
    bodies = [answer.partition(b"\r\n\r\n")[2] for answer in got.split(b"HTTP/1.1 ")[1:]]
    assert bodies == [b"%d" % n for n in range(1, 11)] + [b"0"]


async def test_a_request_after_an_upgrade_that_is_not_taken_is_answered(port: int) -> None:
    upgrade = GET.replace(b"\r\n\r\n", b"\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
    last = GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    assert (await said(port, upgrade + last)).count(b"HTTP/1.1 200 ") == 2


async def test_who_answers_a_request_that_others_wait_behind_learns_that_the_client_has_gone(
    server: uvicorn.Server, port: int
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /waits HTTP/1.1\r\nhost: x\r\n\r\n" + GET)
    [one] = await some(server)
    await until(lambda: bool(one.pipeline))
    first = one._answering
    one.transport.abort()
    assert first is not None
    await until(lambda: first.disconnected)
    release(server)
    writer.transport.abort()


def release(server: uvicorn.Server) -> None:
    """Let the route `/waits` answer."""
    application: Any = server.config.app
    application.state.held.set()


async def some(server: uvicorn.Server) -> list[uvicorn_protocol.Bounded]:
    """Wait until the server has connections, and return them."""
    await until(lambda: bool(server.server_state.connections))
    return list(server.server_state.connections)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", [b"http://[", b"nonsense", b"a:80", b"/\xff", b"http://x:99999999/"])
@pytest.mark.parametrize("before", [0, 3])
async def test_fault_58_a_target_that_is_none_is_answered_400_behind_the_answers_before_it(
    port: int, target: bytes, before: int
) -> None:
    got = await said(port, GET * before + b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % target)
    statuses = [answer[:3] for answer in got.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200"] * before + [b"400"]
