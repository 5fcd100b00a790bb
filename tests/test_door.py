"""The open port of a process, on real sockets.

Checked: floods, places for connections, accepted host names, its backlog.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from gateway.hosts.door import RESERVE_FILES, Door, Tally, places
from gateway.process import WORKING
from gateway.store.log import Log
from tests.hosts import LIMIT_SECONDS
from tests.support.following import Stream, connected
from tests.support.processes import GatewayProcess
from tests.test_stalled import memory_of

FLOODING = 16
FLOOD_BYTES = 16 * 1024 * 1024  # Bytes in all connections together.
# Bytes of memory that the flood may cost. Without a limit the growth would be a hundred times the flood.
MOST_GROWTH = 48 * 1024 * 1024
SOMAXCONN = int(Path("/proc/sys/net/core/somaxconn").read_text())
HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"


@asynccontextmanager
async def process(mode: str, **settings: str) -> AsyncIterator[tuple[GatewayProcess, str, int]]:
    """Yield a process and its host and port. Its store is unreachable unless the settings name a store."""
    environment = {"REDIS_URL": "redis://127.0.0.1:1", "GATEWAY_WORKER_PORT": "0", **settings}
    async with GatewayProcess(mode, environment) as running:
        url = running.url or (await running.line(WORKING)).rpartition(" ")[2]
        host, _, port = url.removeprefix("http://").rpartition(":")
        yield running, host, int(port)


async def healthy(host: str, port: int) -> None:
    """Check that another client gets an answer."""
    async with httpx.AsyncClient(timeout=LIMIT_SECONDS) as http:
        assert (await http.get(f"http://{host}:{port}/health")).status_code == 200


async def pump(host: str, port: int, piece: bytes, most: int) -> None:
    """Send data and read nothing, until the other end accepts no more."""
    reader, writer = await asyncio.open_connection(host, port)
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    try:
        for _ in range(most // len(piece)):
            writer.write(piece)
            await asyncio.wait_for(writer.drain(), 2)  # The server may accept no more data.
    except (ConnectionError, TimeoutError):
        pass
    finally:
        writer.transport.abort()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["web", "worker"])
async def test_fault_45_requests_ahead_of_their_answers_cost_next_to_nothing(
    redis_url: str, mode: str
) -> None:
    async with process(mode, REDIS_URL=redis_url) as (running, host, port):
        await healthy(host, port)
        before = memory_of(running.pid)
        most = 0
        async with asyncio.TaskGroup() as tasks:
            floods = [
                tasks.create_task(pump(host, port, HEALTH * 1000, FLOOD_BYTES // FLOODING))
                for _ in range(FLOODING)
            ]
            while not all(flood.done() for flood in floods):
                await healthy(host, port)
                most = max(most, memory_of(running.pid))
        assert most - before < MOST_GROWTH
        assert "ahead of their answers" in running.log()


@pytest.mark.slow
async def test_fault_46_trailers_without_an_end_cost_next_to_nothing(redis_url: str) -> None:
    head = b"POST /stream HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    body = b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    async with process("web", REDIS_URL=redis_url) as (running, host, port):
        await healthy(host, port)
        before = memory_of(running.pid)
        _, writer = await asyncio.open_connection(host, port)
        writer.write(head + body)
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                for _ in range(FLOOD_BYTES // 64_000):
                    writer.write(b"x: y\r\n" * 10_000)
                    await writer.drain()
            pytest.fail("it took all of them")
        except ConnectionError:
            pass
        writer.transport.abort()
        await healthy(host, port)
        assert memory_of(running.pid) - before < MOST_GROWTH / 2
        assert "trailers" in running.log()


async def test_fault_47_a_key_in_a_trailer_opens_nothing(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("")
    known = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # Hash of `secret`.
    keys.write_text(f"name {known}\n")
    settings = {
        "GATEWAY_AUTH": "keys",
        "GATEWAY_KEYS_FILE": str(keys),
        "GATEWAY_TOKEN_KEYS": "k" * 32,
    }
    ask = b"GET /chains HTTP/1.1\r\nhost: x\r\nconnection: close\r\n%b\r\n0\r\n%b\r\n"
    async with process("web", **settings) as (_, host, port):
        for head, trailer, status in (
            (b"x-api-key: secret\r\n", b"", b"200"),
            (b"", b"x-api-key: secret\r\n", b"401"),
            (b"", b"authorization: Bearer secret\r\n", b"401"),
        ):
            sent = ask % (b"transfer-encoding: chunked\r\n" + head, trailer)
            assert (await answer(host, port, sent)).startswith(b"HTTP/1.1 " + status)


async def answer(host: str, port: int, sent: bytes) -> bytes:
    """Return all data until the connection is closed, or nothing if the connection is aborted."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(sent)
        async with asyncio.timeout(LIMIT_SECONDS):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def cut(writer: asyncio.StreamWriter) -> None:
    """Abort a connection."""
    writer.transport.abort()


@pytest.mark.slow
async def test_fault_49_there_is_room_however_many_connections_say_nothing() -> None:
    async with (
        process("web", GATEWAY_MAX_CONNECTIONS="40") as (running, host, port),
        AsyncExitStack() as stack,
    ):
        for _ in range(120):
            _, writer = await asyncio.open_connection(host, port)
            stack.callback(cut, writer)  # The stack also keeps a reference to it.
            writer.write(b"GET /hea")
        await healthy(host, port)
        lines = [line for line in running.log().splitlines() if "gave way" in line]
        assert len(lines) == 1
        assert len(os.listdir(f"/proc/{running.pid}/fd")) < 40 + RESERVE_FILES


@pytest.mark.slow
async def test_fault_49_readers_keep_their_places_and_the_rest_is_refused(redis_url: str) -> None:
    async with (
        connected(redis_url) as connection,
        process("web", REDIS_URL=redis_url, GATEWAY_MAX_CONNECTIONS="4") as (running, host, port),
        AsyncExitStack() as stack,
    ):
        stream = await Stream.create(Log(connection), keep_ms=60_000)
        ask = f"GET /stream/{stream.id} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n"
        readers = []
        for _ in range(4):
            reader, writer = await asyncio.open_connection(host, port)
            stack.callback(cut, writer)  # The stack also keeps a reference to it.
            writer.write(ask.encode())
            await reader.readuntil(b"event: start")
            readers.append((reader, writer))
        assert await answer(host, port, b"") == b""  # The server closes it at once.
        assert "all places are taken" in running.log()
        await stream.texts("one")
        for reader, _ in readers:
            await reader.readuntil(b"one")
        readers[0][1].transport.abort()
        while True:  # The place is free when the server has noticed the end.
            if await answer(host, port, HEALTH.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")):
                break


def test_fault_49_the_places_leave_files_for_the_process() -> None:
    assert places(20_000) == 20_000 - RESERVE_FILES
    assert places(300) == 150
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, hard))
    try:
        assert Door().most == 1000 - RESERVE_FILES
        assert Door(100).most == 100
        assert Door(5000).most == 1000 - RESERVE_FILES
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_kind_of_line_is_written_once_a_minute_with_its_count(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    caplog.set_level("INFO", "holdfast.door")
    tally = Tally(lambda: now)
    for _ in range(1000):
        now += 0.1
        tally.count("one")
    tally.count("two")
    assert [record.getMessage() for record in caplog.records] == [
        "one count=1",
        "one count=600",
        "two count=1",
    ]


async def test_fault_50_a_reader_on_http_1_0_gets_the_frames_alone(redis_url: str, redis: Redis) -> None:
    async with connected(redis_url) as connection, process("web", REDIS_URL=redis_url) as (_, host, port):
        stream = await Stream.create(Log(connection), keep_ms=60_000)
        await stream.texts("one", "two")
        await stream.end()
        ask = f"GET /stream/{stream.id} HTTP/1.0\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n"
        head, _, body = (await answer(host, port, ask.encode())).partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        assert b"connection: close" in head.lower()
        retry, _, frames = body.partition(b"\n")
        assert retry.startswith(b"retry: ")
        assert frames == await stream.log_bytes(redis)


WRONG = [
    "evil.example",
    "evil.example:7071",
    "localhost.evil.example",
    "xlocalhost",
    "127.0.0.1.evil.example",
]
OURS = [
    "localhost",
    "LOCALHOST:1",
    "localhost.",
    "a.localhost",
    "127.0.0.1:80",
    "127.9.9.9",
    "[::1]:7071",
    "box",
]


async def test_fault_54_where_nobody_is_asked_only_our_own_names_are_answered() -> None:
    async with process("web", GATEWAY_HOSTS="box other.example") as (_, host, port):
        ask = "GET {} HTTP/1.1\r\nconnection: close\r\n{}\r\n"
        cases = [(421, "/health", f"host: {name}\r\n") for name in WRONG]
        cases += [(200, "/health", f"host: {name}\r\n") for name in OURS]
        cases += [
            (400, "/health", ""),
            (400, "/health", "host:\r\n"),
            (400, "/health", "host: a b\r\n"),
            (400, "/health", "host: user@localhost\r\n"),
            (400, "/health", "host: localhost\r\nhost: localhost\r\n"),
            (421, "http://evil.example/health", "host: localhost\r\n"),
            (200, "http://localhost:1/health", "host: evil.example\r\n"),
            (421, "http://evil.example", "host: localhost\r\n"),
            (200, "http://localhost", "host: localhost\r\n"),
            (421, "/nothing", "host: evil.example\r\n"),
            (421, "/dev/kill-worker", "host: evil.example\r\n"),
        ]
        for status, target, field in cases:
            got = await answer(host, port, ask.format(target, field).encode())
            assert got.startswith(b"HTTP/1.1 %d " % status), (target, field, got)
            if status == 421:
                told = json.loads(got.partition(b"\r\n\r\n")[2])
                assert told["code"] == "misdirected"
                assert "GATEWAY_HOSTS" in told["detail"]
        old = await answer(host, port, b"GET /health HTTP/1.0\r\nhost: evil.example\r\n\r\n")
        assert old.startswith(b"HTTP/1.1 421 ")


async def test_fault_54_where_somebody_is_asked_any_name_is_answered(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("")
    settings = {"GATEWAY_AUTH": "keys", "GATEWAY_KEYS_FILE": str(keys), "GATEWAY_TOKEN_KEYS": "k" * 32}
    async with process("web", **settings) as (_, host, port):
        ask = "GET /health HTTP/1.1\r\nconnection: close\r\n{}\r\n"
        for status, field in ((200, "host: gateway.example\r\n"), (400, "")):
            got = await answer(host, port, ask.format(field).encode())
            assert got.startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.slow
async def test_fault_56_connections_wait_for_a_process_that_accepts_nothing_and_none_is_reset() -> None:
    count = min(3000, SOMAXCONN)  # Three seconds, at a thousand a second.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        async with process("web") as (running, host, port):
            await healthy(host, port)
            with ExitStack() as stack:
                running.signal(signal.SIGSTOP)
                opened = await asyncio.to_thread(asking, stack, host, port, count)
                running.signal(signal.SIGCONT)
                assert await asyncio.to_thread(answered, opened) == {b"HTTP/1.1 200 OK"}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def asking(stack: ExitStack, host: str, port: int, count: int) -> list[socket.socket]:
    """Open connections that have each sent a request. Raise TimeoutError if the system accepts no more."""
    opened = []
    for _ in range(count):
        opened.append(stack.enter_context(socket.create_connection((host, port), LIMIT_SECONDS)))
        opened[-1].sendall(HEALTH)
    return opened


def answered(opened: list[socket.socket]) -> set[bytes]:
    """Return the status lines of the answers. Raise ConnectionResetError if a connection was reset."""
    return {one.recv(4096).partition(b"\r\n")[0] for one in opened}
