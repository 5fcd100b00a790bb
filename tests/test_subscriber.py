"""The subscriber connection: acknowledgements, half-open, backing off. Real Redis behind the proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest

from gateway.redis import connection, pubsub
from gateway.redis.pubsub import Subscriber
from tests.support.following import Following, Stream, following, reading, until
from tests.support.proxy import Proxy


class Followed:
    def __init__(self, name: str, order: list[Followed]) -> None:
        self.channel = name.encode()
        self.acknowledgements = 0
        self._order = order

    def acknowledge(self) -> None:
        self.acknowledgements += 1
        self._order.append(self)


class Listening:
    """A listener that only counts."""

    def __init__(self) -> None:
        self.feeds: list[Followed] = []
        self.order: list[Followed] = []  # in which feeds were acknowledged
        self.payloads: list[bytes] = []
        self.losses = 0

    def wanted(self) -> Iterable[Followed]:
        return self.feeds

    def heard(self, channel: bytes, payload: bytes) -> None:
        self.payloads.append(payload)

    def deliver(self) -> None:
        pass

    def lost(self) -> None:
        self.losses += 1


@asynccontextmanager
async def subscribing(url: str) -> AsyncIterator[tuple[Subscriber, Listening]]:
    listening = Listening()
    one = Subscriber(url, listening)
    task = asyncio.create_task(one.run())
    try:
        yield one, listening
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def follow(one: Subscriber, listening: Listening, name: str) -> Followed:
    feed = Followed(name, listening.order)
    listening.feeds.append(feed)
    one.subscribe(feed)
    return feed


async def test_no_connection_before_the_first_reader(redis_url: str) -> None:
    async with Proxy(redis_url) as proxy, subscribing(proxy.url) as (one, listening):
        await asyncio.sleep(0)
        assert proxy.accepted["hub"] == 0
        feed = follow(one, listening, "live:a")
        await until(lambda: feed.acknowledgements == 1)
        assert proxy.accepted["hub"] == 1


async def test_left_and_joined_again_at_once_gets_its_own_acknowledgement(redis_url: str) -> None:
    async with Proxy(redis_url) as proxy, subscribing(proxy.url) as (one, listening):
        first = follow(one, listening, "live:other")
        await until(lambda: first.acknowledgements == 1)
        proxy.hold("hub", "answers")
        feeds = []
        for _ in range(3):
            feeds.append(follow(one, listening, "live:a"))
            one.unsubscribe(feeds[-1])
            listening.feeds.remove(feeds[-1])
        last = follow(one, listening, "live:a")
        assert last.acknowledgements == 0
        proxy.release()
        await until(lambda: last.acknowledgements == 1)
        assert listening.order == [first, *feeds, last]


async def test_a_new_connection_subscribes_to_all_that_is_wanted(redis_url: str) -> None:
    async with Proxy(redis_url) as proxy, subscribing(proxy.url) as (one, listening):
        feeds = [follow(one, listening, f"live:{n}") for n in range(3)]
        await until(lambda: all(feed.acknowledgements == 1 for feed in feeds))
        assert proxy.cut("hub") == 1
        await until(lambda: all(feed.acknowledgements == 2 for feed in feeds))
        assert listening.losses == 1


async def test_a_connect_that_fails_loses_nothing_anew(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with subscribing(f"{redis_url}.not-there") as (one, listening):
        follow(one, listening, "live:a")
        with pytest.raises(TimeoutError):
            await until(lambda: listening.losses > 0, seconds=0.3)


@pytest.mark.slow
async def test_a_deaf_connection_is_asked_then_cut_and_replaced(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pubsub, "DEAF_SECONDS", 2.0)
    async with Proxy(redis_url) as proxy, following(redis_url, hub_url=proxy.url) as f:
        stream = await Stream.create(f.log)
        async with reading(f.relay, stream) as [reader]:
            await reader.has(await stream_bytes(f, stream))
            ear = f.hub.subscriber
            for _ in range(2):  # it answers PING, so it is left alone
                heard = ear._heard_at
                await until(lambda heard=heard: ear._heard_at > heard)  # type: ignore[misc]
            assert proxy.accepted["hub"] == 1
            proxy.hold("hub")
            await until(lambda: proxy.accepted["hub"] > 1, seconds=10)
            proxy.release()
            await stream.texts("a")
            await stream.end()
            assert await reader.all() == await stream_bytes(f, stream)


async def test_a_handshake_without_an_answer_is_given_up(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pubsub, "TIMEOUT_SECONDS", 0.2)
    async with Proxy(redis_url) as proxy, subscribing(proxy.url) as (one, listening):
        proxy.hold("hub", "answers")
        feed = follow(one, listening, "live:a")
        await until(lambda: proxy.accepted["hub"] > 1, seconds=5)
        proxy.release()
        await until(lambda: feed.acknowledgements == 1)


async def test_a_deaf_connection_whose_buffers_are_full_is_cut_too(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pubsub, "DEAF_SECONDS", 0.5)
    async with Proxy(redis_url) as proxy, subscribing(proxy.url) as (one, listening):
        feed = follow(one, listening, "live:" + "a" * 10_000)
        await until(lambda: feed.acknowledgements == 1)
        proxy.hold("hub")
        for _ in range(1500):  # 30 MB
            one.unsubscribe(feed)
            one.subscribe(feed)

        def replaced() -> bool:
            one.pulse()
            return proxy.accepted["hub"] == 2

        await until(replaced, seconds=5)
        proxy.release()
        await until(lambda: feed.acknowledgements >= 2)


async def test_a_server_that_refuses_to_subscribe_is_asked_again(redis_url: str) -> None:
    async with connection_of(redis_url) as redis, subscribing(redis_url) as (one, listening):
        await redis.call("ACL", "SETUSER", "default", "-subscribe")
        feed = follow(one, listening, "live:a")
        with pytest.raises(TimeoutError):
            await until(lambda: feed.acknowledgements > 0, seconds=0.2)
        await redis.call("ACL", "SETUSER", "default", "+subscribe")
        await until(lambda: feed.acknowledgements == 1)


@asynccontextmanager
async def connection_of(url: str) -> AsyncIterator[connection.Connection]:
    redis = connection.Connection(url, name="test")
    try:
        yield redis
    finally:
        await redis.call("ACL", "SETUSER", "default", "+subscribe")
        await redis.close()


async def stream_bytes(f: Following, stream: Stream) -> bytes:
    return (await f.log.read(stream.id, None, 1 << 20)).frames
