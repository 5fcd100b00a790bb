"""Many orphaned jobs, which no worker runs, are handled concurrently. A broken one delays no other job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from redis.asyncio import Redis

from gateway.protocol import new_token
from gateway.protocol.errors import QueueUnavailable
from gateway.queue.job_queue import Message
from gateway.queue.redeliver import revive
from gateway.relay import feed as feed_module
from gateway.relay.hub import ORPHANS_AT_ONCE
from tests.support.following import Stream, following, reading, until
from tests.support.jobs import Jobs, eventually
from tests.support.proxy import Proxy, dropped
from workers.delivery.sweeper import AT_ONCE, Sweeper

# Time limit in seconds for an event whose publish was lost. It is three times the promise: 2 s for a stream
# with recent events.
FOUND_SECONDS = 3 * 2.0
BACKOFF_MS = 1000


class Refusing:
    """A queue that refuses the first `times` messages, and accepts all messages after that."""

    def __init__(self, times: int = 1_000_000) -> None:
        self.times = times
        self.taken: list[str] = []

    async def enqueue(self, message: Message) -> None:
        if self.times > 0:
            self.times -= 1
            raise QueueUnavailable
        self.taken.append(message.id)

    async def forget(self, stream_id: str) -> None:
        """Do nothing: this queue stores no places."""


class Slow:
    """A queue that answers only when `together` calls wait. `most` is the highest number of waiting calls."""

    def __init__(self, together: int) -> None:
        self._barrier = asyncio.Barrier(together)
        self.now = self.most = 0

    async def wait(self, _: str = "") -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self._barrier.wait()
        finally:
            self.now -= 1

    async def enqueue(self, message: Message) -> None:
        await self.wait(message.id)

    async def forget(self, stream_id: str) -> None:
        """Do nothing: this queue stores no places."""


async def orphan(jobs: Jobs, redis: Redis) -> str:
    """Create a stream whose message is gone from the queue and whose worker is dead. Return its id."""
    stream_id = await jobs.stream("q", chain="chat")
    await jobs.queue.done(await jobs.delivery())
    assert (await jobs.log.claim(stream_id, new_token(), 2000)).claim is not None
    job, _, index = jobs.log.keys(stream_id)
    await redis.hset(job, "lease_end_ms", 1)
    await redis.zadd(index, {stream_id: 1})
    return stream_id


@asynccontextmanager
async def sweeping(sweeper: Sweeper) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(sweeper.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# Orphaned jobs that are broken


async def test_a_record_that_cannot_be_kept_track_of_is_looked_at_no_more(
    redis_url: str, redis: Redis
) -> None:
    async with Jobs(redis_url) as jobs:
        bad, good = [await orphan(jobs, redis) for _ in range(2)]
        job, _, index = jobs.log.keys(bad)
        await redis.hdel(job, "keep_ms")
        assert await Sweeper(jobs.log, jobs.queue, backoff=60).sweep() == 1
        assert good.encode() in (await jobs.delivery()).body
        assert await redis.zscore(index, bad) is None
        assert (await jobs.log.ask(bad, BACKOFF_MS)).word == "unknown"


async def test_a_record_on_which_a_script_fails_is_told_and_keeps_no_other(
    redis_url: str, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with Jobs(redis_url) as jobs:
        bad, *good = [await orphan(jobs, redis) for _ in range(3)]
        await redis.set(jobs.log.keys(bad)[0], "no hash", ex=60)
        assert await Sweeper(jobs.log, jobs.queue, backoff=60).sweep() == 2
        assert f"stream {bad} cannot be looked after" in caplog.text
        assert not any(f"{stream_id} cannot" in caplog.text for stream_id in good)


@pytest.mark.slow
async def test_a_sweeper_outlives_what_it_cannot_sweep(
    redis_url: str, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with Jobs(redis_url) as jobs:
        await orphan(jobs, redis)
        broken = "{00}:open" if not await redis.exists("{00}:open") else "{01}:open"
        await redis.set(broken, "no sorted set", ex=60)

        async def told() -> bool:
            return "sweep failed" in caplog.text

        async def enqueued() -> bool:
            return await jobs.queue.depth() == 1

        async with sweeping(Sweeper(jobs.log, jobs.queue, backoff=60)) as task:
            await eventually(told)
            assert not task.done()
            await redis.delete(broken)
            await eventually(enqueued)


@pytest.mark.slow
async def test_an_orphan_that_cannot_be_looked_after_ends_no_reader_and_no_look(
    redis_url: str, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []
    error = RuntimeError("canary")

    async def fails(stream_id: str) -> None:
        asked.append(stream_id)
        raise error

    async with Proxy(redis_url) as proxy, following(redis_url, hub_url=proxy.url, orphaned=fails) as f:
        bad, good = await Stream.create(f.log), await Stream.create(f.log)
        await redis.hset(f.log.keys(bad.id)[0], "lease_end_ms", 1)
        async with reading(f.relay, bad) as [of_bad], reading(f.relay, good) as [of_good]:
            await of_good.has(await good.log_bytes(redis))
            await until(lambda: len(asked) >= 2)  # The hub has asked about the bad stream again.
            proxy.fault = dropped
            await good.texts("a")
            await of_good.has(await good.log_bytes(redis), FOUND_SECONDS)
            assert not of_bad.task.done()
            async with f.hub.subscribe(bad.id):  # new readers are served
                pass
    assert set(asked) == {bad.id}
    assert "asking the store about followed streams failed" in caplog.text
    assert "canary" not in caplog.text


# A queue that refuses messages


async def test_what_the_queue_did_not_take_does_not_lengthen_the_back_off(
    redis_url: str, redis: Redis
) -> None:
    async with Jobs(redis_url) as jobs:
        stream_id = await orphan(jobs, redis)
        job, _, index = jobs.log.keys(stream_id)
        queue = Refusing(10)
        for _ in range(10):
            with pytest.raises(QueueUnavailable):
                await revive(jobs.log, queue, stream_id, backoff=BACKOFF_MS / 1000)
            waiting = await jobs.log.ask(stream_id, BACKOFF_MS)
            # No other process tries sooner, so a queue that is down does not get many requests.
            assert waiting.word == "wait"
            assert 0 < waiting.number <= BACKOFF_MS
            look_at = await redis.zscore(index, stream_id)
            assert look_at is not None
            assert look_at <= await jobs.log.now_ms() + BACKOFF_MS
            await redis.hset(job, "asked_ms", await jobs.log.now_ms() - BACKOFF_MS)
        assert await revive(jobs.log, queue, stream_id, backoff=BACKOFF_MS / 1000)
        assert queue.taken == [stream_id]


async def test_what_the_queue_took_before_still_counts(redis_url: str, redis: Redis) -> None:
    async with Jobs(redis_url) as jobs:
        stream_id = await orphan(jobs, redis)
        job = jobs.log.keys(stream_id)[0]
        for asks in (1, 2, 3):
            assert (await jobs.log.ask(stream_id, BACKOFF_MS)).word == "yes"
            assert await redis.hget(job, "asks") == str(asks).encode()
            await redis.hset(job, "asked_ms", 1)
        assert (await jobs.log.ask(stream_id, BACKOFF_MS)).word == "yes"
        await jobs.log.ask(stream_id, BACKOFF_MS, undo=True)
        waiting = await jobs.log.ask(stream_id, BACKOFF_MS)
        assert 2 * BACKOFF_MS < waiting.number <= 4 * BACKOFF_MS


async def test_nothing_is_taken_back_that_was_not_asked(redis_url: str, redis: Redis) -> None:
    async with Jobs(redis_url) as jobs:
        stream_id = await orphan(jobs, redis)
        # There is no earlier `yes` to withdraw, for example because a worker has claimed the job meanwhile.
        await jobs.log.ask(stream_id, BACKOFF_MS, undo=True)
        assert (await jobs.log.ask(stream_id, BACKOFF_MS)).word == "yes"


async def test_a_sweep_that_the_queue_refuses_is_told_and_made_up_for(redis_url: str, redis: Redis) -> None:
    async with Jobs(redis_url) as jobs:
        ids = {await orphan(jobs, redis) for _ in range(3)}
        queue = Refusing(1)
        sweeper = Sweeper(jobs.log, queue, backoff=BACKOFF_MS / 1000)
        with pytest.raises(QueueUnavailable):
            await sweeper.sweep()
        assert len(queue.taken) == 2  # One refusal does not stop the other messages.
        [left] = ids - set(queue.taken)
        job, _, index = jobs.log.keys(left)
        await redis.hset(job, "asked_ms", await jobs.log.now_ms() - BACKOFF_MS)
        await redis.zadd(index, {left: 1})
        assert await sweeper.sweep() == 1
        assert set(queue.taken) == ids


# Many orphaned jobs at once


async def test_a_sweep_looks_after_many_at_once_and_no_more(redis_url: str, redis: Redis) -> None:
    queue = Slow(AT_ONCE)
    async with Jobs(redis_url) as jobs:
        for _ in range(2 * AT_ONCE):
            await orphan(jobs, redis)
        # If the sweeper handled one job after the other, the queue would never answer.
        async with asyncio.timeout(30):
            assert await Sweeper(jobs.log, queue, backoff=60).sweep() == 2 * AT_ONCE
    assert queue.most == AT_ONCE


async def test_a_look_tells_of_many_orphans_at_once_and_no_more(
    redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(ORPHANS_AT_ONCE)
    monkeypatch.setattr(feed_module, "LIVELY_SECONDS", 600.0)
    # The hub asks the store nothing until all readers have subscribed.
    monkeypatch.setattr(feed_module, "SILENT_SECONDS", 600.0)
    async with following(redis_url, orphaned=slow.wait) as f, AsyncExitStack() as readers:
        streams = [await Stream.create(f.log) for _ in range(2 * ORPHANS_AT_ONCE)]
        for stream in streams:
            await redis.hset(f.log.keys(stream.id)[0], "lease_end_ms", 1)
            await readers.enter_async_context(f.hub.subscribe(stream.id))
        monkeypatch.setattr(feed_module, "SILENT_SECONDS", 0.0)
        await until(lambda: len(set(f.orphans)) == len(streams))
    assert slow.most == ORPHANS_AT_ONCE
