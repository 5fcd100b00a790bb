"""The driver's own tools: what they do to the parts, and what they refuse to believe."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from functools import partial
from time import monotonic

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError

from tests.chaos import wire
from tests.chaos.fold import fold
from tests.chaos.plan import Kind, plan
from tests.chaos.proxy import Mischief, Proxy
from tests.chaos.store import FSYNC_SECONDS, store
from tests.support.redis_server import RedisServer

TEXT = b'id: 0-aaaa\ndata: {"delta_content":"x"}\n\n'


def test_a_seed_is_a_plan_and_ten_minutes_hold_enough_of_each_fault() -> None:
    assert plan(7, 600, [*Kind]) == plan(7, 600, [*Kind]) != plan(8, 600, [*Kind])
    counts = Counter(moment.kind for moment in plan(7, 600, [*Kind]))
    assert counts[Kind.KILL_WORKER] >= 60
    assert counts[Kind.RESTART_REDIS] >= 12
    assert counts[Kind.PROMOTE] >= 12
    assert set(Counter(moment.kind for moment in plan(7, 5, [*Kind]))) == set(Kind)


@pytest.mark.parametrize(("mischief", "heard"), [
    (Mischief(), [b"1", b"2", b"3"]),
    (Mischief(drop=1.0), []),
    (Mischief(double=1.0), [b"1", b"1", b"2", b"2", b"3", b"3"]),
    (Mischief(late=1.0), [b"2", b"1"]),
])  # fmt: skip
async def test_the_proxy_tampers_with_messages_and_with_nothing_else(
    redis_server: RedisServer, mischief: Mischief, heard: list[bytes]
) -> None:
    async with Proxy(lambda: redis_server.socket, random.Random(1)) as proxy:
        client = Redis.from_url(proxy.url, protocol=2)
        follower = client.pubsub()
        await follower.subscribe("chaos")
        assert (await follower.get_message(timeout=5))["type"] == "subscribe"
        proxy.mischief = mischief
        for number in range(1, 4):
            await client.publish("chaos", str(number))
        await follower.ping()
        got = []
        while (message := await follower.get_message(timeout=5))["type"] != "pong":
            got.append(message["data"])
        assert got == heard
        await follower.aclose()
        await client.aclose()


async def test_a_cut_connection_is_reset_and_a_new_one_is_served(redis_server: RedisServer) -> None:
    async with Proxy(lambda: redis_server.socket, random.Random(1)) as proxy:
        host, port = "127.0.0.1", int(proxy.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"PING\r\n")
        assert await reader.readline() == b"+PONG\r\n"
        assert proxy.cut(1.0) == 1
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"PING\r\n")
        assert await reader.readline() == b"+PONG\r\n"
        writer.close()


@pytest.mark.slow
async def test_a_restarted_store_has_lost_its_last_second_and_nothing_before_it() -> None:
    async with store() as held:
        redis = Redis.from_url(held.server.url)
        loop = asyncio.get_running_loop()
        written: dict[str, float] = {}
        until = loop.time() + 2 * FSYNC_SECONDS
        while loop.time() < until:
            key = f"k{len(written)}"
            await redis.set(key, "v", ex=60)
            written[key] = loop.time()
            await asyncio.sleep(0.02)
        killed = loop.time()
        await held.restart(down=0.0, lose=FSYNC_SECONDS)
        left = {key.decode() async for key in redis.scan_iter("k*", count=1000)}
        await redis.aclose()
    gone = [at for key, at in written.items() if key not in left]
    assert gone
    assert min(gone) > killed - FSYNC_SECONDS - 0.3
    assert all(at < min(gone) for key, at in written.items() if key in left)


class Pulse:
    """Writes a key every few milliseconds, with the moment of each answer."""

    def __init__(self, url: str) -> None:
        self.written: dict[str, float] = {}
        self._redis = Redis.from_url(url)
        self._task = asyncio.create_task(self._beat(), name="pulse")

    async def until(self, count: int) -> None:
        """Wait for so many more keys."""
        most = len(self.written) + count
        async with asyncio.timeout(20):
            while len(self.written) < most:  # noqa: ASYNC110 - a task of this very process counts
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._redis.aclose()

    async def _beat(self) -> None:
        while True:
            key = f"k{len(self.written)}"
            await self._redis.set(key, "v", ex=60)
            self.written[key] = monotonic()
            await asyncio.sleep(0.005)


@pytest.mark.slow
async def test_a_promoted_replica_lacks_the_last_writes_and_nothing_before_them_each_time() -> None:
    async with store(replicated=True) as held:
        for _ in range(2):
            old, pulse = held.server, Pulse(held.server.url)
            await pulse.until(20)
            began = monotonic()
            await held.promote(down=0.0, lose=0.2, eve=partial(pulse.until, 20))
            await pulse.end()
            assert held.server is not old
            assert held.standby is not None
            async with Redis.from_url(held.server.url) as redis:
                left = {key.decode() async for key in redis.scan_iter("k*", count=1000)}
                await redis.flushall()
            gone = [at for key, at in pulse.written.items() if key not in left]
            assert len(gone) >= 20
            assert min(gone) > began
            assert all(held.may_have_lost(at, at) for at in gone)
            assert all(at < min(gone) for key, at in pulse.written.items() if key in left)
        assert not held.may_have_lost(0.0, began - 10)


@pytest.mark.slow
async def test_a_planned_failover_loses_nothing_and_the_old_primary_keeps_its_connections() -> None:
    async with store(replicated=True) as held:
        old, pulse = held.server, Pulse(held.server.url)
        async with Redis.from_url(old.url, single_connection_client=True) as kept:
            await kept.ping()
            await pulse.until(20)
            await held.hand_over()
            await pulse.end()  # READONLY has ended it
            assert await kept.ping()
            with pytest.raises(ReadOnlyError):
                await kept.set("k", "v", ex=60)
        async with Redis.from_url(held.server.url) as redis:
            left = {key.decode() async for key in redis.scan_iter("k*", count=1000)}
            assert left >= set(pulse.written)
            await redis.set("new", "v", ex=60)
        assert not held.lost
        await held.promote(down=0.0, lose=0.0)  # the old primary was its replica, and serves again
        assert held.server is old
        async with Redis.from_url(old.url) as redis:
            assert await redis.get("new") == b"v"


async def test_what_leads_by_the_name_finds_the_new_primary() -> None:
    async with store(replicated=True) as held, Proxy(lambda: held.server.socket, random.Random(1)) as proxy:
        async with Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 1)) as redis:
            await redis.set("k", "v", ex=60)
            await held.promote(down=0.0, lose=0.0)
            assert await redis.get("k") == b"v"


@pytest.mark.parametrize("bad", [
    b"retry: soon\n",
    b"retry: 5\n\n" + TEXT,
    b"data: x\n\n",
    b"id: 5\ndata: x\n\n",
    b"id: 0-aaaa\nevent: start\n\n",
    b"id: 0-aaaa\r\ndata: x\n\n",
    TEXT + b"retry: 5\n" + TEXT,
])  # fmt: skip
def test_only_frames_a_retry_line_before_them_and_heartbeats_are_allowed(bad: bytes) -> None:
    with pytest.raises(wire.BadWire):
        wire.Wire().feed(bad)


def test_frames_are_the_same_whatever_the_split() -> None:
    data = b":\nretry: 700\n" + TEXT + b":\n" + wire.LOG_LOST + TEXT
    for at in range(len(data)):
        reader = wire.Wire()
        assert reader.feed(data[:at]) + reader.feed(data[at:]) == [TEXT, wire.LOG_LOST, TEXT]
        assert reader.heartbeats == 2


def test_the_drivers_own_fold_voids_what_a_reset_names() -> None:
    log = (
        b'id: 0-aaaa\nevent: stage\ndata: {"name":"chat","run":1,"state":"started"}\n\n'
        b'id: 1-aaaa\ndata: {"delta_content":"old","stage":"chat"}\n\n'
        b'id: 2-aaaa\nevent: reset\ndata: {"discard_after":"0-aaaa","stage":"chat"}\n\n'
        b'id: 3-bbbb\ndata: {"delta_content":"new","stage":"chat"}\n\n'
        b"id: 4-bbbb\nevent: done\ndata: {}\n\n"
    )
    folded = fold(log)
    assert (folded["text"], folded["status"], folded["last_event_id"]) == ("new", "done", "4-bbbb")
