"""The driver's own tools: what they do to the parts, and what they refuse to believe."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from redis.asyncio import Redis

from tests.chaos import wire
from tests.chaos.fold import fold
from tests.chaos.plan import Kind, plan
from tests.chaos.proxy import Mischief, Proxy
from tests.chaos.store import FSYNC_SECONDS, store
from tests.support.redis_server import RedisServer

TEXT = b'id: 0-aaaa\ndata: {"delta_content":"x"}\n\n'


def test_a_seed_is_a_plan_and_ten_minutes_hold_enough_of_each_fault() -> None:
    assert plan(7, 600) == plan(7, 600) != plan(8, 600)
    counts = Counter(moment.kind for moment in plan(7, 600))
    assert counts[Kind.KILL_WORKER] >= 60
    assert counts[Kind.RESTART_REDIS] >= 12
    assert set(Counter(moment.kind for moment in plan(7, 5))) == set(Kind)


@pytest.mark.parametrize(("mischief", "heard"), [
    (Mischief(), [b"1", b"2", b"3"]),
    (Mischief(drop=1.0), []),
    (Mischief(double=1.0), [b"1", b"1", b"2", b"2", b"3", b"3"]),
    (Mischief(late=1.0), [b"2", b"1"]),
])  # fmt: skip
async def test_the_proxy_tampers_with_messages_and_with_nothing_else(
    redis_server: RedisServer, mischief: Mischief, heard: list[bytes]
) -> None:
    async with Proxy(str(redis_server.socket), random.Random(1)) as proxy:
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
    async with Proxy(str(redis_server.socket), random.Random(1)) as proxy:
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
