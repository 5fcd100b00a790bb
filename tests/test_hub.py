"""Local fan-out when publishes are lost, doubled or late: rows 11 and 12 of docs/faults.md.

A proxy stands in front of a real Redis and causes the faults.
"""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from gateway.protocol import Cursor
from gateway.protocol.errors import StoreUnavailable, TooManyReaders
from gateway.relay import feed as feed_module
from gateway.relay import hub as hub_module
from tests.support.following import Stream, feeds, following, reading, until
from tests.support.proxy import Fault, Proxy, Swapped, doubled, dropped, untouched

# Time limit in seconds for an event whose publish was lost. It is three times the promise: 2 s for a stream
# with recent events.
FOUND_SECONDS = 3 * 2.0


async def subscribers(redis: Redis, stream: Stream) -> int:
    [(_, count)] = await redis.pubsub_numsub(f"live:{stream.id}")
    return int(count)


async def until_subscribers(redis: Redis, stream: Stream, count: int) -> None:
    async with asyncio.timeout(10):
        while await subscribers(redis, stream) != count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_the_first_reader_subscribes_and_the_last_one_leaves(redis_url: str, redis: Redis) -> None:
    async with following(redis_url) as f:
        stream = await Stream.create(f.log)
        async with f.hub.subscribe(stream.id):
            assert await subscribers(redis, stream) == 1
            async with f.hub.subscribe(stream.id):
                assert await subscribers(redis, stream) == 1
                assert f.hub.readers == 2
            assert await subscribers(redis, stream) == 1
        await until_subscribers(redis, stream, 0)
        assert f.hub.readers == 0


async def test_readers_are_bounded_in_all_and_of_one_stream(redis_url: str) -> None:
    async with following(redis_url, most=3, most_of_stream=2) as f:
        one, other = await Stream.create(f.log), await Stream.create(f.log)
        async with f.hub.subscribe(one.id), f.hub.subscribe(one.id):
            f.hub.check_room()
            with pytest.raises(TooManyReaders):
                async with f.hub.subscribe(one.id):
                    raise AssertionError("let in")
            async with f.hub.subscribe(other.id):
                for refused in ("", other.id, (await Stream.create(f.log)).id):
                    with pytest.raises(TooManyReaders):
                        f.hub.check_room(refused)
            async with f.hub.subscribe(other.id):
                assert f.hub.readers == 3
        assert f.hub.readers == 0
        f.hub.check_room(one.id)


async def test_left_and_joined_again_at_once_hears_what_is_published(redis_url: str) -> None:
    async with following(redis_url) as f:
        stream = await Stream.create(f.log)
        for _ in range(20):
            async with f.hub.subscribe(stream.id):
                pass
        async with f.hub.subscribe(stream.id) as subscription:
            last = Cursor.parse((await f.log.heads([stream.id]))[0].last_id)
            subscription.begin_read()
            subscription.read_to(last, more=False)
            await stream.texts("a")
            await until(lambda: subscription.head != str(last))


async def test_subscribe_waits_for_the_servers_acknowledgement(redis_url: str, redis: Redis) -> None:
    async with Proxy(redis_url) as proxy, following(redis_url, hub_url=proxy.url) as f:
        other, stream = await Stream.create(f.log), await Stream.create(f.log)
        async with f.hub.subscribe(other.id):
            proxy.hold("hub", "answers")
            async with reading(f.relay, stream) as [reader]:
                await until_subscribers(redis, stream, 1)
                # The server has subscribed the hub, but the hub has not received the acknowledgement yet.
                assert reader.frames == b""
                proxy.release()
                await reader.has(await stream.log_bytes(redis))


async def test_without_an_acknowledgement_it_is_unavailable_and_leaves_nothing(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "TIMEOUT_SECONDS", 0.2)
    async with Proxy(redis_url) as proxy, following(redis_url, hub_url=proxy.url) as f:
        stream = await Stream.create(f.log)
        proxy.hold("hub")
        with pytest.raises(StoreUnavailable):
            async with f.hub.subscribe(stream.id):
                pass
        assert f.hub.readers == 0


@pytest.mark.slow
async def test_fault_11_the_subscriber_connection_is_cut_and_nothing_is_lost_or_doubled(
    redis_url: str, redis: Redis
) -> None:
    async with Proxy(redis_url) as proxy, following(redis_url, hub_url=proxy.url) as f:
        stream = await Stream.create(f.log)
        async with reading(f.relay, stream, 20) as readers:
            await readers[-1].has(await stream.log_bytes(redis))
            for number in range(5):
                await stream.texts(f"{number}a", f"{number}b")
                assert proxy.cut("hub") == 1
                await stream.texts(f"{number}c")
                await until(lambda: proxy.connections("hub") == 0)
                await until(lambda: proxy.connections("hub") == 1)
            await stream.end()
            for reader in readers:
                assert await reader.all() == await stream.log_bytes(redis)


async def test_fault_11_a_lost_publish_is_found_in_time_while_events_came_lately(
    redis_url: str, redis: Redis
) -> None:
    async with Proxy(redis_url) as proxy, following(redis_url, hub_url=proxy.url) as f:
        stream = await Stream.create(f.log)
        async with reading(f.relay, stream) as [reader]:
            await stream.texts("a")
            await reader.has(await stream.log_bytes(redis))
            proxy.fault = dropped
            await stream.texts("b")
            await reader.has(await stream.log_bytes(redis), FOUND_SECONDS)


@pytest.mark.slow
async def test_fault_11_events_that_nobody_told_of_count_as_events_that_came_lately(
    redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every publish is lost for longer than `LIVELY_SECONDS`. Each event is still found in time."""
    monkeypatch.setattr(feed_module, "LIVELY_SECONDS", 1.5)
    monkeypatch.setattr(feed_module, "SILENT_SECONDS", 0.2)
    async with Proxy(redis_url) as proxy, following(redis_url, hub_url=proxy.url) as f:
        stream = await Stream.create(f.log)
        proxy.fault = dropped
        async with reading(f.relay, stream) as [reader]:
            await reader.has(await stream.log_bytes(redis))
            [feed] = feeds(f.hub)
            for number in range(3):
                await until(lambda: feed.look_at(now()) - max(feed.heard_at, feed.looked_at) > 0.25)
                moved = feed.moved_at
                await stream.texts(str(number))
                await reader.has(await stream.log_bytes(redis), FOUND_SECONDS)
                assert feed.moved_at > moved
                assert feed.look_at(now()) - feed.looked_at == pytest.approx(0.2)


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_fault_12_a_lost_terminal_publish_is_found_in_the_same_time(
    redis_url: str, redis: Redis
) -> None:
    async with Proxy(redis_url) as proxy, following(redis_url, hub_url=proxy.url) as f:
        stream = await Stream.create(f.log)
        async with reading(f.relay, stream) as [reader]:
            await stream.texts("a")
            await reader.has(await stream.log_bytes(redis))
            proxy.fault = dropped
            await stream.end()
            async with asyncio.timeout(FOUND_SECONDS):
                assert await reader.all() == await stream.log_bytes(redis)


def late(fault: Fault) -> Fault:
    """Return a fault that passes two messages, applies `fault` to the third, and repeats this."""
    count = 0

    def sometimes(message: bytes) -> list[bytes]:
        nonlocal count
        count += 1
        return list((fault if count % 3 == 0 else untouched)(message))

    return sometimes


@pytest.mark.parametrize(
    "fault", [doubled, Swapped(), dropped, late(doubled), late(dropped)], ids=lambda f: type(f).__name__
)
async def test_fault_11_doubled_reordered_and_dropped_publishes_change_no_byte(
    redis_url: str, redis: Redis, fault: Fault
) -> None:
    async with Proxy(redis_url) as proxy, following(redis_url, hub_url=proxy.url) as f:
        stream = await Stream.create(f.log)
        async with reading(f.relay, stream, 5) as readers:
            await readers[0].has(await stream.log_bytes(redis))
            proxy.fault = fault
            await stream.texts(*map(str, range(31)))
            await stream.end()
            await until(lambda: proxy.messages >= 32)
            for reader in readers:
                assert await reader.all() == await stream.log_bytes(redis)


async def test_a_publish_that_is_none_of_ours_wakes_and_harms_nobody(redis_url: str, redis: Redis) -> None:
    async with following(redis_url) as f:
        stream = await Stream.create(f.log)
        async with reading(f.relay, stream) as [reader]:
            await reader.has(await stream.log_bytes(redis))
            for payload in (b"", b"a b c\n", b"0-aaaa nonsense running\nx", b"\xff \xff \xff\n", b"v2 {}"):
                assert await redis.publish(f"live:{stream.id}", payload) == 1
            await stream.texts("a")
            await stream.end()
            assert await reader.all() == await stream.log_bytes(redis)


@pytest.mark.parametrize("name", ["hub-listen", "hub-pulse", "hub-look"])
async def test_a_dead_task_of_the_hub_wakes_its_readers(redis_url: str, redis: Redis, name: str) -> None:
    async with following(redis_url) as f:
        stream = await Stream.create(f.log)
        async with reading(f.relay, stream, 3) as readers:
            await readers[2].has(await stream.log_bytes(redis))
            [task] = [task for task in asyncio.all_tasks() if task.get_name() == name]
            task.cancel()
            for reader in readers:
                assert await reader.all() == await stream.log_bytes(redis)
            with pytest.raises(StoreUnavailable):
                async with f.hub.subscribe(stream.id):
                    pass


async def test_close_ends_readers_also_one_that_waits_for_its_acknowledgement(
    redis_url: str, redis: Redis
) -> None:
    async with Proxy(redis_url) as proxy, following(redis_url, hub_url=proxy.url) as f:
        stream, other = await Stream.create(f.log), await Stream.create(f.log)
        async with reading(f.relay, stream, 3) as readers:
            await readers[2].has(await stream.log_bytes(redis))
            proxy.hold("hub", "answers")
            async with reading(f.relay, other) as [waiting]:
                await until(lambda: f.hub.readers == 4)
                await f.hub.close()
                for reader in readers:
                    assert await reader.all() == await stream.log_bytes(redis)
                with pytest.raises(StoreUnavailable):
                    await waiting.all()
        assert f.hub.readers == 0


@pytest.mark.slow
async def test_a_slow_look_does_not_keep_heartbeats_back(redis_url: str, redis: Redis) -> None:
    async with (
        Proxy(redis_url) as proxy,
        following(proxy.url, hub_url=redis_url, heartbeat=0.5) as f,
    ):
        stream = await Stream.create(f.log)
        async with reading(f.relay, stream) as [reader]:
            await reader.has(await stream.log_bytes(redis))
            proxy.hold("commands")
            looks = proxy.accepted["commands"]
            before = reader.heartbeats
            # Seven heartbeats take 3.5 s. By then the process is waiting for an answer of the store.
            await until(lambda: reader.heartbeats >= before + 7, seconds=15)
            assert proxy.accepted["commands"] == looks
            proxy.release()


async def test_what_was_published_before_a_new_connections_acknowledgement_is_read_then(
    redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event is published after the log was read and before the new connection is subscribed.

    The acknowledgement makes the reader read the log again. No periodic question to the store is needed.
    """
    monkeypatch.setattr(feed_module, "SILENT_SECONDS", 600.0)
    async with Proxy(redis_url) as proxy, following(redis_url, hub_url=proxy.url) as f:
        stream = await Stream.create(f.log)
        async with f.hub.subscribe(stream.id) as subscription:
            subscription.begin_read()
            proxy.hold("hub")
            assert proxy.cut("hub") == 1
            await until(lambda: subscription.doubt)
            await until_subscribers(redis, stream, 0)
            subscription.begin_read()
            await stream.texts("a")  # No connection receives this publish.
            assert not subscription.doubt
            proxy.release()
            await until(lambda: subscription.doubt, FOUND_SECONDS)
