"""What one caller may have, on a real Redis: exact however many start at once, and found out, never told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway import protocol
from gateway.protocol.errors import KeyReused, OverQuota, QueueFull, QueueUnavailable, StoreUnavailable
from gateway.queue.job_queue import Message
from gateway.redis.connection import Connection
from gateway.settings import Settings
from gateway.store.log import Log
from gateway.store.quota import INDEX_BYTES, LOOKS, Quota
from gateway.streams.start import Start
from tests.support.jobs import Jobs, body
from workers.delivery.runner import DONE

SETTINGS = Settings(max_owner_streams=5, max_owner_starts=1000, max_owner_bytes=1_000_000)
MINUTE_MS = 60_000
QUESTION = {"role": "user", "content": "q"}


@pytest.fixture
async def redis_connection(redis_url: str) -> AsyncIterator[Connection]:
    connection = Connection(redis_url, name="test")
    yield connection
    await connection.close()


async def stream(connection: Connection, owner: str = "alice", stream_id: str = "") -> str:
    """A stream of this owner, confirmed."""
    log, stream_id = Log(connection), stream_id or protocol.new_stream_id()
    fields = {"owner": owner, "chain": "c", "keep_ms": 600_000, "tombstone_ms": 600_000, "last_id": "0-0000"}
    await log.create(stream_id, fields, b"id: 0-0000\nevent: start\ndata: {}\n\n")
    assert await log.confirm(stream_id, 60_000)
    return stream_id


async def admitted(quota: Quota, connection: Connection, owner: str = "alice") -> str:
    """One more stream of this owner. Raises OverQuota."""
    stream_id = protocol.new_stream_id()
    await quota.admit(owner, stream_id)
    return await stream(connection, owner, stream_id)


async def back_in_time(redis: Redis, key: str, ms: int) -> None:
    """As if all that stands in this sorted set had come so much earlier."""
    for member in await members(redis, key):
        await redis.zincrby(key, -ms, member)


async def members(redis: Redis, key: str) -> list[str]:
    """Of a sorted set, the lowest first."""
    return [bytes(item).decode() for item in await redis.execute_command("ZRANGE", key, 0, -1)]


def wait_of(error: OverQuota) -> int:
    """Seconds until the caller may come back."""
    assert error.retry_after_seconds is not None
    return error.retry_after_seconds


async def test_a_hundred_at_once_of_five_places_get_five(redis_connection: Connection) -> None:
    quotas = [Quota(redis_connection, SETTINGS) for _ in range(4)]  # as many processes
    asked = [quotas[n % 4].admit("alice", protocol.new_stream_id()) for n in range(100)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sorted(answer for answer in answers if isinstance(answer, int)) == [0, 1, 2, 3, 4]
    refused = [answer for answer in answers if isinstance(answer, OverQuota)]
    assert len(refused) == 95
    assert refused[0].detail == "a caller may have 5 streams that are not ended"
    assert refused[0].retry_after_seconds == 2


async def test_each_owner_has_its_own_places_and_nobody_in_particular_has_no_bound(
    redis_connection: Connection,
) -> None:
    quota = Quota(redis_connection, SETTINGS)
    for owner in ("alice", "bob"):
        assert [await quota.admit(owner, protocol.new_stream_id()) for _ in range(5)] == [0, 1, 2, 3, 4]
    for owner in ("alice", "bob"):
        with pytest.raises(OverQuota):
            await quota.admit(owner, protocol.new_stream_id())
    assert {await quota.admit(protocol.ANONYMOUS, protocol.new_stream_id()) for _ in range(20)} == {0}


async def test_the_same_stream_takes_one_place(redis_connection: Connection) -> None:
    quota, stream_id = Quota(redis_connection, SETTINGS), protocol.new_stream_id()
    assert [await quota.admit("alice", stream_id) for _ in range(9)] == [0] * 9


@pytest.mark.parametrize("how", ["cancelled", "gone"])
async def test_a_stream_that_ended_gives_its_place_back_though_nobody_told(
    redis_connection: Connection, redis: Redis, how: str
) -> None:
    quota, log = Quota(redis_connection, SETTINGS), Log(redis_connection)
    streams = [await admitted(quota, redis_connection) for _ in range(5)]
    for one in streams[:2]:
        if how == "cancelled":
            await log.cancel(one, "cafe")
        else:
            await redis.delete(*log.keys(one))
    if how == "gone":  # one without a record may be about to be made: it has a minute
        with pytest.raises(OverQuota):
            await quota.admit("alice", protocol.new_stream_id())
        await back_in_time(redis, quota.keys("alice")[0], MINUTE_MS)
    two = [await admitted(quota, redis_connection) for _ in range(2)]
    with pytest.raises(OverQuota):
        await quota.admit("alice", protocol.new_stream_id())
    assert set(await members(redis, quota.keys("alice")[0])) == {*streams[2:], *two}


async def test_the_place_of_a_post_that_died_is_free_when_its_record_expires_however_often_it_is_looked_at(
    redis_connection: Connection, redis: Redis
) -> None:
    quota, log = Quota(redis_connection, replace(SETTINGS, max_owner_streams=1)), Log(redis_connection)
    stream_id = protocol.new_stream_id()
    await quota.admit("alice", stream_id)
    fields = {"owner": "alice", "keep_ms": 600_000, "tombstone_ms": 600_000, "last_id": "0-0000"}
    await log.create(stream_id, fields, b"id: 0-0000\nevent: start\ndata: {}\n\n")
    live = quota.keys("alice")[0]
    await back_in_time(redis, live, MINUTE_MS - 1000)
    for _ in range(3):
        with pytest.raises(OverQuota):
            await quota.admit("alice", protocol.new_stream_id())
    await redis.delete(*log.keys(stream_id))  # a minute after it was made
    await back_in_time(redis, live, 1000)
    assert await quota.admit("alice", protocol.new_stream_id()) == 0


async def test_of_many_streams_those_longest_unseen_are_looked_at_and_all_before_a_refusal(
    redis_connection: Connection, redis: Redis
) -> None:
    most = 3 * LOOKS
    quota = Quota(redis_connection, replace(SETTINGS, max_owner_streams=most))
    log = Log(redis_connection)
    for _ in range(most):
        await admitted(quota, redis_connection)
    live = quota.keys("alice")[0]
    order = await members(redis, live)
    await log.cancel(order[-1], "cafe")  # the one that was seen last
    await admitted(quota, redis_connection)
    await log.cancel(order[-2], "cafe")
    await redis.delete(quota.keys("alice")[4])  # a second later
    await admitted(quota, redis_connection)
    with pytest.raises(OverQuota):
        await quota.admit("alice", protocol.new_stream_id())
    assert await redis.zcard(live) == most


async def test_all_are_looked_at_once_a_second_at_most(redis_connection: Connection, redis: Redis) -> None:
    most = 2 * LOOKS
    quota = Quota(redis_connection, replace(SETTINGS, max_owner_streams=most))
    for _ in range(most):
        await admitted(quota, redis_connection)
    await redis.config_resetstat()
    answers = [quota.admit("alice", protocol.new_stream_id()) for _ in range(50)]
    assert all(isinstance(a, OverQuota) for a in await asyncio.gather(*answers, return_exceptions=True))
    looks = (await redis.info("commandstats"))["cmdstat_hmget"]["calls"]
    assert looks <= 50 * LOOKS + most * 3  # 50 would be 1,600; a slow run may see a few seconds


async def test_starts_are_counted_over_any_minute(redis_connection: Connection, redis: Redis) -> None:
    quota = Quota(redis_connection, replace(SETTINGS, max_owner_streams=1000, max_owner_starts=7))
    asked = [quota.admit("alice", protocol.new_stream_id()) for _ in range(30)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, OverQuota)]
    assert len(refused) == 23
    assert refused[0].detail == "a caller may have 7 starts a minute"
    assert 50 <= wait_of(refused[0]) <= 60
    starts = quota.keys("alice")[1]
    await back_in_time(redis, starts, MINUTE_MS - 9000)
    with pytest.raises(OverQuota) as told:
        await quota.admit("alice", protocol.new_stream_id())
    assert 2 <= wait_of(told.value) <= 9
    await back_in_time(redis, starts, 9000)
    assert await quota.admit("alice", protocol.new_stream_id()) >= 0


async def test_a_clock_that_went_back_keeps_nobody_out(redis_connection: Connection, redis: Redis) -> None:
    quota = Quota(redis_connection, replace(SETTINGS, max_owner_streams=3, max_owner_starts=3))
    for _ in range(3):
        await quota.admit("alice", protocol.new_stream_id())
    for key in quota.keys("alice")[:2]:
        await back_in_time(redis, key, -10 * MINUTE_MS)
    assert await quota.admit("alice", protocol.new_stream_id()) == 0


async def held(redis: Redis, *keys: str) -> int:
    """The bytes that the store holds for these keys."""
    found = [await redis.memory_usage(key, samples=0) for key in keys]
    return sum(int(size or 0) for size in found)


async def test_fault_81_ended_streams_count_by_what_is_held_for_as_long_as_it_is(
    redis_connection: Connection, redis: Redis
) -> None:
    log = Log(redis_connection)
    live, _, kept, total, _ = Quota.keys("alice")
    quota = Quota(redis_connection, SETTINGS)
    two = [await admitted(quota, redis_connection) for _ in range(2)]
    for one in two:
        await log.cancel(one, "cafe")
    third = await admitted(quota, redis_connection)  # sees the two
    size = int(await redis.get(total) or 0)
    records = [log.keys(one)[0] for one in two]
    tombstones = await held(redis, *records) + 2 * INDEX_BYTES
    assert size == tombstones + await held(redis, *(log.keys(one)[1] for one in two))
    await log.cancel(third, "cafe")
    full = Quota(redis_connection, replace(SETTINGS, max_owner_bytes=size))
    with pytest.raises(OverQuota, match="bytes of ended streams") as told:
        await full.admit("alice", protocol.new_stream_id())
    assert 500 < wait_of(told.value) <= 600  # the retention
    await back_in_time(redis, kept, 600_000)
    await quota.admit("alice", protocol.new_stream_id())  # the logs have gone, the tombstones stand
    last = await held(redis, log.keys(third)[0]) + INDEX_BYTES
    assert int(await redis.get(total) or 0) == tombstones + last
    await back_in_time(redis, kept, 600_000)
    await quota.admit("alice", protocol.new_stream_id())
    assert await redis.get(total) is None
    assert await redis.zcard(live) == 2


async def test_fault_81_a_tombstone_counts_though_its_log_went_unseen(
    redis_connection: Connection, redis: Redis
) -> None:
    quota, log = Quota(redis_connection, SETTINGS), Log(redis_connection)
    one = await admitted(quota, redis_connection)
    await log.cancel(one, "cafe")
    await redis.delete(log.keys(one)[1])
    await admitted(quota, redis_connection)
    assert (
        int(await redis.get(quota.keys("alice")[3]) or 0) == await held(redis, log.keys(one)[0]) + INDEX_BYTES
    )


async def test_every_key_expires(redis_connection: Connection, redis: Redis) -> None:
    quota, log = Quota(redis_connection, SETTINGS), Log(redis_connection)
    await log.cancel(await admitted(quota, redis_connection), "cafe")
    await admitted(quota, redis_connection)
    live, starts, kept, total, _ = quota.keys("alice")
    longest_ms = (
        SETTINGS.record_seconds * 1000
    )  # a stream may run, then wait for an answer, then be a tombstone
    for key in (live, kept, total):
        assert longest_ms - MINUTE_MS < await redis.pttl(key) <= longest_ms
    assert 0 < await redis.pttl(starts) <= MINUTE_MS
    assert "alice" not in str(await redis.keys("*"))


class TestCreation:
    """Through the gateway's own verb."""

    def start(self, text: str = "q") -> Start:
        return Start("forgotten", {"input": text}, {})

    async def make(self, jobs: Jobs, owner: str = "key:alice", **given: Any) -> str:
        return (await jobs.gateway.create(self.start(), owner=owner, **given)).id

    async def test_over_quota_nothing_is_stored(self, redis_url: str, redis: Redis) -> None:
        async with Jobs(redis_url, max_owner_streams=1) as jobs:
            await self.make(jobs)
            assert jobs.log.projector is not None
            await jobs.log.projector.close()  # what is told of the streams before stands
            before = sorted(await redis.keys("*"))
            with pytest.raises(OverQuota):
                await self.make(jobs)
            assert sorted(await redis.keys("*")) == before
            assert await jobs.queue.depth() == 1

    async def test_a_key_that_has_its_stream_is_answered_with_it_whatever_the_quota(
        self, redis_url: str
    ) -> None:
        async with Jobs(redis_url, max_owner_streams=1) as jobs:
            made = await self.make(jobs, key="k")
            assert {await self.make(jobs, key="k") for _ in range(5)} == {made}
            with pytest.raises(KeyReused):
                await jobs.gateway.create(self.start("other"), owner="key:alice", key="k")
            with pytest.raises(OverQuota):
                await self.make(jobs, key="other")

    async def test_one_key_a_hundred_times_at_once_takes_one_place(
        self, redis_url: str, redis: Redis
    ) -> None:
        async with Jobs(redis_url, max_owner_streams=200) as jobs:
            made = await asyncio.gather(*(self.make(jobs, key="k") for _ in range(100)))
            assert len(set(made)) == 1
            live, starts, *_ = Quota.keys("key:alice")
            assert [await redis.zcard(live), await redis.zcard(starts)] == [1, 1]

    async def test_two_bodies_of_one_key_at_once_take_one_place(self, redis_url: str, redis: Redis) -> None:
        async with Jobs(redis_url) as jobs:
            asked = [jobs.gateway.create(self.start(t), owner="key:alice", key="k") for t in ("a", "b")]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert sum(isinstance(answer, KeyReused) for answer in answers) == 1
            assert await redis.zcard(Quota.keys("key:alice")[0]) == 1

    async def test_a_queue_that_is_full_takes_no_more_and_the_place_is_given_back(
        self, redis_url: str, redis: Redis
    ) -> None:
        async with Jobs(redis_url, max_queue=10, max_owner_streams=100) as jobs:
            made = await asyncio.gather(
                *(self.make(jobs, f"key:{n}") for n in range(30)), return_exceptions=True
            )
            assert Counter(type(one).__name__ for one in made) == {"str": 10, "QueueFull": 20}
            assert await jobs.queue.depth() == 10
            lives = [await redis.zcard(Quota.keys(f"key:{n}")[0]) for n in range(30)]
            assert sum(lives) == 10
            [first] = [one for one in made if isinstance(one, str)][:1]
            assert (await jobs.log.cancel(first, "cafe")).word == "cancelled"
            assert await jobs.runner.run(body(first)) == DONE
            await jobs.queue.done(await jobs.delivery())
            assert isinstance(await self.make(jobs, "key:new"), str)

    async def test_whoever_floods_the_queue_leaves_room_for_the_others(self, redis_url: str) -> None:
        async with Jobs(redis_url, max_queue=30, max_owner_streams=1000) as jobs:

            async def flood(owner: str) -> int:
                asked = [self.make(jobs, owner) for _ in range(50)]
                answers = await asyncio.gather(*asked, return_exceptions=True)
                return [isinstance(answer, str) for answer in answers].count(True)

            assert await flood("key:alice") == 15  # as many as are left
            assert await flood("key:bob") == 8
            assert await flood("key:carol") == 4
            assert await flood("key:alice") == 0

    async def test_what_is_cancelled_or_delivered_again_takes_no_place_in_the_queue(
        self, redis_url: str
    ) -> None:
        async with Jobs(redis_url, max_queue=3, max_owner_streams=100) as jobs:
            for _ in range(5):
                cancelled = await self.make(jobs)
                await jobs.gateway.cancel(cancelled, "key:alice")
            waiting = await self.make(jobs, "key:bob")
            for _ in range(5):
                await jobs.queue.enqueue(Message(waiting))  # by a sweeper, while nobody has room
            assert isinstance(await self.make(jobs, "key:carol"), str)

    async def test_many_posts_of_one_key_take_one_place_each_of_quota_and_queue(self, redis_url: str) -> None:
        async with Jobs(redis_url, max_queue=2, max_owner_streams=1) as jobs:
            made = await asyncio.gather(*(self.make(jobs, key="k") for _ in range(30)))
            assert len(set(made)) == 1
            assert await jobs.queue.depth() == 1
            assert isinstance(await self.make(jobs, "key:bob"), str)

    async def test_nobody_in_particular_may_fill_the_queue(self, redis_url: str) -> None:
        async with Jobs(redis_url, max_queue=10) as jobs:
            for _ in range(10):
                await self.make(jobs, protocol.ANONYMOUS)
            with pytest.raises(QueueFull):
                await self.make(jobs, protocol.ANONYMOUS)

    async def test_a_refusing_queue_takes_no_place_for_ever(
        self, redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with Jobs(redis_url, max_owner_streams=1) as jobs:

            async def refuse(message: Message, delay_ms: int = 0) -> None:
                raise QueueUnavailable

            with monkeypatch.context() as patched:
                patched.setattr(jobs.queue, "enqueue", refuse)
                with pytest.raises(QueueUnavailable):
                    await self.make(jobs)
            live = Quota.keys("key:alice")[0]
            [waiting] = await members(redis, live)
            await redis.delete(*jobs.log.keys(waiting))  # the record has expired
            await back_in_time(redis, live, MINUTE_MS)
            assert isinstance(await self.make(jobs), str)

    @pytest.mark.parametrize(("words", "streams"), [(1, 30), (200, 10)], ids=["small", "large"])
    @pytest.mark.parametrize("measured", [True, False], ids=["measured", "estimated"])
    async def test_fault_81_a_callers_bytes_are_what_redis_holds(
        self, redis_url: str, redis: Redis, words: int, streams: int, measured: bool
    ) -> None:
        """A server may refuse MEMORY USAGE, or not know it as fakeredis: then it is an estimate."""

        async def say(_: Any) -> AsyncIterator[str]:
            for number in range(words):
                yield f"word {number} "

        if not measured:
            await redis.execute_command("ACL", "SETUSER", "default", "-memory")
        start = Start("under-test", {"messages": [QUESTION]}, {}, {"of": "a test"})
        try:
            async with Jobs(redis_url, say, max_owner_starts=1000) as jobs:
                for number in range(streams):
                    made = await jobs.gateway.create(start, owner="key:alice", key=f"k{number}")
                    assert await jobs.runner.run(body(made.id)) == DONE
                await self.make(jobs)
                counted = int(await redis.get(Quota.keys("key:alice")[3]) or 0)
        finally:
            await redis.execute_command("ACL", "SETUSER", "default", "+memory")
        keys = [bytes(key).decode() for key in await redis.execute_command("KEYS", "*")]
        stored = [key for key in keys if any(part in key for part in (":job:", ":log:", ":idem:", ":kept"))]
        assert len(stored) >= 3 * streams
        truth = await held(redis, *stored)
        assert (0.8 if measured else 0.6) < counted / truth < (1.2 if measured else 1.7)

    async def test_a_store_out_of_reach_is_said_so(self) -> None:
        async with Jobs("unix:///nobody.sock") as jobs:
            with pytest.raises(StoreUnavailable):
                await self.make(jobs)


async def test_what_a_start_answers_is_what_stands_in_the_store(redis_url: str) -> None:
    """It is not read again: it was made of the same fields."""
    start = Start(
        chain="chat", input={"messages": [QUESTION]}, params={"temperature": 0}, metadata={"of": "é"}
    )
    async with Jobs(redis_url) as jobs:
        for key in ("", "a key"):
            made = await jobs.gateway.create(start, owner="alice", key=key)
            stands, _ = await jobs.log.record(made.id)
            assert stands is not None
            assert replace(made, confirmed=True) == stands
            assert made.input == stands.input == {"messages": [QUESTION]}
            await jobs.gateway.cancel(made.id, "alice")
