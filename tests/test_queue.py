"""The contract of the JobQueue seam, for every implementation, and what is RedisQueue's own."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic

import pytest
from redis.asyncio import Redis

from gateway.protocol.errors import QueueUnavailable
from gateway.queue.job_queue import Delivery, Message
from gateway.queue.redis_queue import RedisQueue
from gateway.redis.embedded_fake import FakeStore
from tests.support.queues import LEASE_MS, Store

BOUND_SECONDS = 20


@pytest.fixture(params=["redis-server", "fakeredis"])
async def store(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Store]:
    """Redis itself, and what stands in for it where there is none."""
    if request.param == "redis-server":
        made = Store(redis_url)
        yield made
        await made.close()
        return
    fake = FakeStore()
    made = Store(await fake.start())
    yield made
    await made.close()
    await fake.stop()


async def take(queue: RedisQueue, count: int = 1) -> list[Delivery]:
    """Receive until something comes."""
    async with asyncio.timeout(BOUND_SECONDS):
        while not (found := await queue.receive(count)):
            pass
    return found


async def take_one(queue: RedisQueue) -> Delivery:
    [delivery] = await take(queue)
    return delivery


def ids(deliveries: list[Delivery]) -> list[str]:
    return [Message.decode(delivery.body).id for delivery in deliveries]


async def test_what_is_enqueued_is_received(store: Store) -> None:
    queue = store.queue("a")
    sent = Message("some-id", "00-trace", 1)
    await queue.enqueue(sent)
    assert Message.decode((await take_one(queue)).body) == sent


async def test_what_waited_before_any_worker_came_is_received(store: Store) -> None:
    for number in range(3):
        await store.queue("web").enqueue(Message(str(number)))
    worker = store.queue("worker")
    got: list[str] = []
    while len(got) < 3:
        got += ids(await take(worker, 2))
    assert got == ["0", "1", "2"]


async def test_an_empty_queue_answers_in_bounded_time(store: Store) -> None:
    queue = store.queue("a")
    async with asyncio.timeout(BOUND_SECONDS):
        assert await queue.receive(1) == []  # the first makes the group
        assert await queue.receive(1) == []


async def test_a_waiting_receive_is_woken_by_an_enqueue(store: Store) -> None:
    queue = store.queue("a")
    await queue.receive(1)
    waits = []
    for number in range(5):
        waiting = asyncio.create_task(take_one(queue))
        await _until_blocked(store)
        began = monotonic()
        await queue.enqueue(Message(str(number)))
        await queue.done(await waiting)
        waits.append(monotonic() - began)
    assert min(waits) < 0.5  # a queue that looked once a second would be later in each of five


async def test_a_settled_delivery_is_gone(store: Store) -> None:
    queue = store.queue("a")
    await queue.enqueue(Message("x"))
    await queue.done(await take_one(queue))
    assert await queue.depth() == 0
    await _comes_again(store, queue, [])


async def test_settling_twice_does_nothing(store: Store) -> None:
    queue = store.queue("a")
    await queue.enqueue(Message("x"))
    delivery = await take_one(queue)
    await queue.done(delivery)
    await queue.done(delivery)
    await queue.later(delivery, 0)
    await _comes_again(store, queue, [])


async def test_an_unsettled_delivery_comes_to_another_after_the_lease_and_not_before(store: Store) -> None:
    dead, other = store.queue("dead"), store.queue("other")
    await dead.enqueue(Message("x"))
    began = monotonic()
    await take_one(dead)
    again = await take_one(other)
    assert ids([again]) == ["x"]
    assert monotonic() - began >= LEASE_MS / 1000
    await other.done(again)
    assert await dead.depth() == 0


async def test_later_delivers_again_after_the_delay_and_not_before(store: Store) -> None:
    queue, other = store.queue("a", lease_ms=60_000), store.queue("b", lease_ms=60_000)
    await queue.enqueue(Message("x"))
    delivery, began = await take_one(queue), monotonic()
    await queue.later(delivery, 300)
    await queue.later(await take_one(other), 0)
    assert monotonic() - began >= 0.3
    assert ids(await take(other)) == ["x"]  # at once: the lease would be a minute


async def test_two_consumers_share_without_doubles(store: Store) -> None:
    sent = [str(number) for number in range(60)]
    queues = [store.queue("a", lease_ms=60_000), store.queue("b", lease_ms=60_000)]
    for name in sent:
        await queues[0].enqueue(Message(name))
    got: list[list[str]] = [[], []]
    while sum(map(len, got)) < len(sent):
        for queue, mine in zip(queues, got, strict=True):
            found = await queue.receive(3)
            mine += ids(found)
            await asyncio.gather(*(queue.done(delivery) for delivery in found))
    assert sorted(got[0] + got[1]) == sorted(sent)
    assert got[0]
    assert got[1]
    assert await queues[0].depth() == 0


async def test_many_at_once(store: Store) -> None:
    queue = store.queue("a", lease_ms=60_000)
    sent = [secrets.token_hex(4) for _ in range(200)]
    await asyncio.gather(*(queue.enqueue(Message(name)) for name in sent))
    assert await queue.depth() == 200
    got: list[str] = []
    while len(got) < 200:
        found = await take(queue, 50)
        assert len(found) <= 50
        got += ids(found)
    assert sorted(got) == sorted(sent)


async def test_what_many_others_hold_does_not_hide_what_is_due(store: Store) -> None:
    """A free place takes one job: it must find the one that is due behind dozens that are held."""
    queue = store.queue("a", lease_ms=60_000)
    for number in range(60):
        await queue.enqueue(Message(str(number)))
    held: list[Delivery] = []
    while len(held) < 60:
        held += await take(queue, 60)
    await queue.later(held[-1], 0)
    assert ids([await take_one(store.queue("b", lease_ms=60_000))]) == ["59"]


async def test_fault_05_a_malformed_body_passes_through_as_bytes(store: Store) -> None:
    queue, raw = store.queue("a"), b"\xff\0\r\n{not json"
    async with Redis.from_url(store.url) as client:
        await client.xadd("{jobs}:queue", {"job": raw})
        await client.pexpire("{jobs}:queue", 60_000)
    assert (await take_one(queue)).body == raw


async def test_the_group_is_made_again_after_the_store_was_emptied(store: Store) -> None:
    queue = store.queue("a")
    await queue.enqueue(Message("x"))
    lost = await take_one(queue)
    async with Redis.from_url(store.url) as client:
        await client.flushall()
        await queue.later(lost, 0)
        waiting = asyncio.create_task(take_one(queue))  # makes the group anew, then waits in it
        await _until_blocked(store)
        await client.flushall()
        await queue.enqueue(Message("y"))
    assert ids([await waiting]) == ["y"]


async def test_every_key_expires_from_its_first_moment(store: Store) -> None:
    queue = store.queue("a")
    async with Redis.from_url(store.url) as client:
        await queue.receive(1)  # makes the group, and the stream with it
        assert 0 < await client.pttl("{jobs}:queue") <= 60_000
        await queue.enqueue(Message("x"))
        await queue.done(await take_one(queue))
        assert 0 < await client.pttl("{jobs}:queue") <= 60_000


async def consumers(store: Store) -> list[bytes]:
    async with Redis.from_url(store.url) as client:
        return [each["name"] for each in await client.xinfo_consumers("{jobs}:queue", "workers")]


async def test_a_consumer_that_stops_in_order_leaves_the_group(store: Store) -> None:
    for number in range(3):
        queue = store.queue(f"gone-{number}")
        await queue.enqueue(Message("x"))
        await queue.done(await take_one(queue))
        assert await consumers(store) == [b"gone-%d" % number]
        await queue.close()
        assert await consumers(store) == []


async def test_a_consumer_with_deliveries_in_its_hands_stays_and_others_get_them(store: Store) -> None:
    stops, other = store.queue("stops"), store.queue("other")
    await stops.enqueue(Message("x"))
    await take_one(stops)
    await stops.close()
    assert await consumers(store) == [b"stops"]
    again = await take_one(other)
    assert ids([again]) == ["x"]
    await other.done(again)
    assert await other.depth() == 0


async def test_a_queue_that_was_never_used_or_is_out_of_reach_closes(store: Store, tmp_path: Path) -> None:
    await store.queue("a").close()
    away = Store(f"unix://{tmp_path}/nobody.sock")
    await away.queue("a").close()
    await away.close()


async def test_a_queue_out_of_reach_is_said_so(tmp_path: Path) -> None:
    store = Store(f"unix://{tmp_path}/nobody.sock")
    queue, delivery = store.queue("a"), Delivery(b"", "1-0")
    for call in (
        queue.reserve("x", 1, 0),
        queue.enqueue(Message("x")),
        queue.receive(1),
        queue.done(delivery),
        queue.later(delivery, 0),
    ):
        with pytest.raises(QueueUnavailable):
            await call
    await store.close()


async def _until_blocked(store: Store) -> None:
    """Until a receive waits within the server; fakeredis cannot tell, but loses nothing that comes before."""
    async with asyncio.timeout(BOUND_SECONDS), Redis.from_url(store.url) as client:
        while store.url.startswith("unix") and int((await client.info("clients"))["blocked_clients"]) == 0:
            pass


async def _comes_again(store: Store, queue: RedisQueue, expected: list[str]) -> None:
    """What is delivered until another message, sent after a lease, has been."""
    async with Redis.from_url(store.url) as client, asyncio.timeout(BOUND_SECONDS):
        began = await client.time()
        while True:
            now = await client.time()
            if (now[0] - began[0]) * 1000 + (now[1] - began[1]) / 1000 > LEASE_MS:
                break
    await queue.enqueue(Message("marker"))
    got: list[str] = []
    while "marker" not in got:
        got += ids(await take(queue))
    assert got == [*expected, "marker"]


async def test_places_are_exact_for_all_processes_and_however_many_ask_at_once(store: Store) -> None:
    queues = [store.queue(name) for name in "abcd"]
    for number in range(3):
        await queues[0].enqueue(Message(f"before-{number}"))
    asked = [queues[n % 4].reserve(str(n), 10, 0) for n in range(40)]
    got = [n for n, given in enumerate(await asyncio.gather(*asked)) if given]
    assert len(got) == 7
    assert await queues[0].reserve(str(got[0]), 10, 0)  # it has its place
    for number in got:
        await queues[0].enqueue(Message(str(number)))
    assert not await queues[1].reserve("late", 10, 0)
    await queues[0].done(await take_one(queues[0]))
    assert await queues[1].reserve("late", 10, 0)


async def test_a_caller_may_have_as_many_as_there_are_places_left(store: Store) -> None:
    queue = store.queue("a")
    assert [await queue.reserve(str(n), 10, n) for n in range(7)] == [True] * 5 + [False] * 2
    assert await queue.reserve("another's", 10, 0)


async def test_a_place_that_nobody_used_is_free_again(store: Store) -> None:
    queue = store.queue("a")
    assert await queue.reserve("died", 1, 0)
    assert not await queue.reserve("other", 1, 0)
    async with Redis.from_url(store.url) as client:
        assert 0 < await client.pttl("{jobs}:starting") <= 60_000
        for jump_ms in (-60_000, 5000):  # a minute later; before, by a clock that has gone back since
            seconds, _ = await client.time()
            await client.zadd("{jobs}:starting", {"died": seconds * 1000 + jump_ms})
            assert await queue.reserve(f"other{jump_ms}", 1, 0)
            await client.zrem("{jobs}:starting", f"other{jump_ms}")
