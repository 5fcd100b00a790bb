"""Readers that take nothing more, on real sockets: what they hold, and when they are let go of."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic

import httpx
import pytest
from redis.asyncio import Redis

from gateway import process as main_module
from gateway.process import GRACE_SECONDS, Host, Server
from gateway.protocol import sse
from gateway.relay import hub as hub_module
from gateway.settings import Settings
from gateway.store.log import Log
from tests.support.following import Stream, connected, feeds, until
from tests.support.processes import GatewayProcess
from workers.development.local_model import LocalModel

READERS = 8
CUT_MS = 2000
STILL_SECONDS = 0.3
BLOCK = "x" * (200 * 1024)
BOUND_SECONDS = 90
FULL = 80  # blocks: more than the sockets between two ends hold
EVENTS = {"accept": "text/event-stream"}
SO_ATTACH_FILTER = 26  # asm-generic/socket.h
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # one instruction of BPF: return 0 bytes of each packet


class Stalled:
    """A reader that takes nothing after its first event, and can come back."""

    def __init__(self, http: httpx.AsyncClient, answer: httpx.Response) -> None:
        self._http = http
        self._answer = answer
        self._chunks = answer.aiter_raw()
        self._received = bytearray()

    async def begin(self) -> None:
        self._received += await anext(self._chunks)

    def vanish(self) -> None:
        """From now on the kernel drops whatever comes for it: nothing is acknowledged any more."""
        found: socket.socket = self._answer.extensions["network_stream"].get_extra_info("socket")
        code = ctypes.create_string_buffer(DROP_ALL)
        found.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(code)))

    async def read_on(self, whole: bytes) -> None:
        """Take what is still there, and the rest through connections with the last id: the log's bytes."""
        with contextlib.suppress(httpx.TransportError):  # it may have been cut
            async for chunk in self._chunks:
                self._received += chunk
        frames = frames_of(bytes(self._received))
        assert frames
        if frames != whole:
            last = re.findall(rb"^id: (.+)$", frames, re.MULTILINE)[-1].decode()
            rest = await self._http.get(self._answer.url, headers=EVENTS | {"last-event-id": last})
            frames += frames_of(rest.content)
        assert frames == whole


def frames_of(received: bytes) -> bytes:
    """The whole ones among what came."""
    whole = received[: received.rfind(sse.FRAME_END) + 2]
    return re.sub(rb"^(retry: [0-9]+|:)\n", b"", whole, flags=re.MULTILINE)


@asynccontextmanager
async def stalled(url: str, stream: Stream, count: int = 1) -> AsyncIterator[list[Stalled]]:
    """So many of them, each on a connection of its own."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=BOUND_SECONDS))
        readers = []
        for _ in range(count):
            connection = http.stream("GET", f"{url}/stream/{stream.id}", headers=EVENTS)
            readers.append(Stalled(http, await stack.enter_async_context(connection)))
            await readers[-1].begin()
        yield readers


class Watched(Host):
    """A web host in this process, whose connections can be counted."""

    server: Server
    running: asyncio.Task[None]

    def __init__(self, mode: str, settings: Settings, model: LocalModel | None) -> None:
        super().__init__(mode, settings, model)
        self.stopping = asyncio.Event()

    async def end(self) -> None:
        """As a signal ends it."""
        self.stopping.set()
        await self.running

    def _server(self) -> Server:
        self.server = super()._server()
        return self.server

    @property
    def url(self) -> str:
        host, port = self._bound.getsockname()
        return f"http://{host}:{port}"

    @property
    def connections(self) -> int:
        """Those of readers, which are no longer uvicorn's."""
        return self.gateway.parts.hub.readers

    async def has_stalled_readers(self) -> None:
        """Wait until its readers, of which there are some, have taken nothing for a while."""
        loop, hub = asyncio.get_running_loop(), self.gateway.parts.hub

        def condition() -> bool:
            readers = [reader for feed in feeds(hub) for reader in feed.readers]
            return bool(readers) and all(
                r.is_sending and r.silent_seconds(loop.time()) > STILL_SECONDS for r in readers
            )

        await until(condition)


@asynccontextmanager
async def web_host(redis_url: str, *, heartbeat: float = 15.0) -> AsyncIterator[Watched]:
    """Such a host, until it is told to end, or the block does."""
    host = Watched("web", Settings(redis_url=redis_url, port=0, heartbeat=heartbeat, stream_max_age=0), None)
    host.running = asyncio.create_task(host.run(host.stopping), name="test-host")
    try:
        await until(lambda: host.running.done() or (hasattr(host, "server") and host.server.started))
        yield host
    finally:
        await host.end()


@pytest.fixture
async def stream(redis_url: str) -> AsyncIterator[Stream]:
    async with connected(redis_url) as connection:
        yield await Stream.create(Log(connection), keep_ms=600_000)


def memory_of(pid: int) -> int:
    """Resident bytes of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+([0-9]+) kB", status)
    assert found
    return int(found[1]) * 1024


@pytest.mark.slow
async def test_fault_13_readers_that_take_nothing_hold_no_data_slow_nobody_and_can_come_back(
    redis_url: str, redis: Redis, stream: Stream
) -> None:
    environment = {"REDIS_URL": redis_url, "GATEWAY_STREAM_MAX_AGE_SECONDS": "0"}
    async with GatewayProcess("web", environment) as web, stalled(web.url, stream, READERS) as readers:
        async with httpx.AsyncClient(timeout=BOUND_SECONDS) as http:
            quick = asyncio.create_task(http.get(f"{web.url}/stream/{stream.id}", headers=EVENTS))
            await stream.texts(*[BLOCK] * FULL)
            before = memory_of(web.pid)
            await stream.texts(*[BLOCK] * FULL * 2)
            await stream.end()
            whole = await stream.log_bytes(redis)
            assert frames_of((await quick).content) == whole
        assert memory_of(web.pid) - before < len(whole) / 4
        for reader in readers:
            await reader.read_on(whole)


@pytest.mark.slow
async def test_fault_13_a_reader_that_takes_nothing_is_let_go_of_by_the_hub(
    redis_url: str, redis: Redis, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its socket says nothing: behind a proxy, say."""
    monkeypatch.setattr(hub_module, "STALLED_SECONDS", 10 * STILL_SECONDS)
    await stream.texts(*[BLOCK] * FULL)
    await stream.end()
    async with web_host(redis_url) as host, stalled(host.url, stream) as [reader]:
        await host.has_stalled_readers()
        await until(lambda: host.gateway.parts.hub.readers == 0)
        await reader.read_on(await stream.log_bytes(redis))


@pytest.mark.slow
@pytest.mark.parametrize("hub_first", [True, False])
async def test_fault_13_the_connection_of_a_reader_that_takes_nothing_is_cut(
    redis_url: str, redis: Redis, stream: Stream, monkeypatch: pytest.MonkeyPatch, hub_first: bool
) -> None:
    """Its window stays at zero, which an orderly close would wait for without end."""
    monkeypatch.setattr(main_module, "STALLED_MS", CUT_MS)
    if hub_first:
        monkeypatch.setattr(hub_module, "STALLED_SECONDS", STILL_SECONDS)
    await stream.texts(*[BLOCK] * FULL)
    await stream.end()
    async with web_host(redis_url) as host, stalled(host.url, stream) as [reader]:
        assert host.connections == 1
        await until(lambda: host.connections == 0)
        await reader.read_on(await stream.log_bytes(redis))


@pytest.mark.slow
async def test_fault_14_the_connection_of_a_reader_that_has_vanished_is_cut(
    redis_url: str, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No packet comes from it any more, not even a FIN: it is the heartbeats that nobody acknowledges."""
    monkeypatch.setattr(main_module, "STALLED_MS", CUT_MS)
    async with web_host(redis_url, heartbeat=1.0) as host, stalled(host.url, stream) as [reader]:
        reader.vanish()
        assert host.connections == 1
        await until(lambda: host.connections == 0)


@pytest.mark.slow
async def test_fault_13_a_process_is_stopped_in_time_though_a_reader_takes_nothing(
    redis_url: str, stream: Stream
) -> None:
    await stream.texts(*[BLOCK] * FULL)
    async with web_host(redis_url) as host, stalled(host.url, stream):
        await host.has_stalled_readers()
        began = monotonic()
        await host.end()
        assert monotonic() - began < 3 * GRACE_SECONDS
