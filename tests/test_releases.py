"""Row 32: two releases at once. A job that this one cannot read is left alone for ten minutes, then ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.queue.job_queue import Message
from gateway.store.record import Record
from tests.support.jobs import Jobs, eventually
from workers.delivery.consumer import Loop
from workers.delivery.runner import DONE, FOREIGN_AGAIN_MS, FOREIGN_MS, Settled
from workers.delivery.sweeper import Sweeper

Fields = dict[bytes | bytearray | memoryview | str | int | float, Any]
LATER = Settled(again_in_ms=FOREIGN_AGAIN_MS)
UNTOUCHED = [b"queued", b"0", b"0", None, None]
# What another release may have made of it: only its message, its record, or the record's fields as well.
SHAPES: dict[str, Fields] = {
    "message": {},
    "record": {"version": 99},
    "fields": {"version": 2, "input": b"\x1f\x8bgz", "stages": "{", "params": "[", "usage": "-"},
}
NAMES = {str(name).encode() for fields in SHAPES.values() for name in fields}
SHAPED = pytest.mark.parametrize("shape", SHAPES)


class Untold:
    """A chain that must not be asked."""

    calls = 0

    async def __call__(self, _: Any) -> AsyncIterator[str]:
        self.calls += 1
        yield "told"


class Foreign:
    """A job of another release, which holds it and may come to know it."""

    def __init__(self, jobs: Jobs, redis: Redis, stream_id: str, message: Message) -> None:
        self.jobs, self.id, self.message = jobs, stream_id, message
        self._redis = redis
        self._known: Mapping[bytes | str, bytes | str] = {}
        self.job, self.log, self.index = jobs.log.keys(stream_id)

    async def run(self) -> Settled:
        """Deliver it to a worker of this release."""
        return await self.jobs.runner.run(self.message.encode())

    async def becomes(self, fields: Fields) -> None:
        self._known = await self._redis.hgetall(self.job)
        if fields:
            await self._redis.hset(self.job, mapping=fields)

    async def known(self) -> None:
        """For this worker: as if it were one of the release that knows it."""
        changed: Fields = {name: value for name, value in self._known.items() if name in NAMES}
        await self._redis.hdel(self.job, *map(bytes.decode, NAMES))
        await self._redis.hset(self.job, mapping=changed)

    async def touched(self) -> list[Any]:
        return list(
            await self._redis.hmget(self.job, ["status", "attempt", "failures", "token", "started_ms"])
        )

    async def pass_by(self, ms: int) -> None:
        """So much time goes by since it was first refused."""
        first = int(await self._redis.hget(self.job, "foreign_ms") or 0)
        await self._redis.hset(self.job, "foreign_ms", first - ms)


@asynccontextmanager
async def foreign(redis_url: str, redis: Redis, shape: str) -> AsyncIterator[tuple[Foreign, Untold]]:
    chain = Untold()
    async with Jobs(redis_url, chain) as jobs:
        stream_id = await jobs.stream("q")
        job = Foreign(jobs, redis, stream_id, Message(stream_id, version=99 if shape == "message" else 1))
        await job.becomes(SHAPES[shape])
        yield job, chain


@SHAPED
async def test_fault_32_what_this_release_does_not_know_is_left_alone_and_sent_again_later(
    redis_url: str, redis: Redis, shape: str
) -> None:
    async with foreign(redis_url, redis, shape) as (job, chain):
        assert [await job.run() for _ in range(5)] == [LATER] * 5
        assert await job.touched() == UNTOUCHED  # no try of the release that knows it is spent
        assert await job.jobs.kinds(job.id) == ["start"]
        assert chain.calls == 0


@SHAPED
async def test_fault_32_it_ends_ten_minutes_after_the_first_refusal(
    redis_url: str, redis: Redis, shape: str
) -> None:
    async with foreign(redis_url, redis, shape) as (job, chain):
        assert await job.run() == LATER
        await job.pass_by(FOREIGN_MS - 60_000)
        assert await job.run() == LATER
        await job.pass_by(60_000)
        assert await job.run() == DONE
        fold = await job.jobs.fold(job.id)
        assert fold.error is not None
        assert (fold.ended, fold.error["code"]) == ("failed", "unsupported_version")
        assert await redis.hget(job.job, "status") == b"failed"
        assert chain.calls == 0


@SHAPED
async def test_fault_32_a_job_that_had_waited_long_has_its_ten_minutes(
    redis_url: str, redis: Redis, shape: str
) -> None:
    async with foreign(redis_url, redis, shape) as (job, _):
        await redis.hset(job.job, "created_ms", await job.jobs.log.now_ms() - 2 * FOREIGN_MS)
        assert [await job.run() for _ in range(2)] == [LATER, LATER]


async def test_fault_32_a_release_that_knows_it_runs_it_at_once_with_all_its_tries(
    redis_url: str, redis: Redis
) -> None:
    async with foreign(redis_url, redis, "fields") as (job, chain):
        for _ in range(10):
            assert await job.run() == LATER
        before = await job.jobs.log.now_ms()
        await job.known()
        assert await job.run() == DONE
        record = await job.jobs.record(job.id)
        assert (record.status, record.attempt, record.failures) == ("done", 1, 0)
        assert record.started_ms is not None
        assert record.started_ms >= before
        assert chain.calls == 1


async def test_fault_32_a_job_that_another_release_runs_is_held_and_its_lost_lease_is_no_failure_of_ours(
    redis_url: str, redis: Redis
) -> None:
    async with foreign(redis_url, redis, "record") as (job, _):
        now_ms = await job.jobs.log.now_ms()
        held: Fields = {"status": "running", "token": "theirs", "attempt": 1, "progress": 0}
        held |= {"lease_ms": 60_000, "lease_end_ms": now_ms + 60_000}
        await redis.hset(job.job, mapping=held)
        settled = await job.run()
        assert settled.again_in_ms is not None
        assert 0 < settled.again_in_ms <= 60_000
        await redis.hset(job.job, "lease_end_ms", 1)
        assert await job.run() == LATER
        assert await job.touched() == [b"running", b"1", b"0", b"theirs", None]


async def test_fault_32_a_log_that_another_release_keeps_elsewhere_is_no_lost_one(
    redis_url: str, redis: Redis
) -> None:
    async with foreign(redis_url, redis, "fields") as (job, _):
        await redis.delete(job.log)
        assert await job.run() == LATER
        assert await job.touched() == UNTOUCHED


@SHAPED
async def test_fault_32_a_message_that_the_queue_gave_up_ends_no_job_that_others_know(
    redis_url: str, redis: Redis, shape: str
) -> None:
    async with foreign(redis_url, redis, shape) as (job, _):
        assert await job.jobs.runner.give_up(job.message.encode()) == LATER
        assert await job.touched() == UNTOUCHED


async def test_fault_32_the_sweeper_sends_it_whatever_its_shape(redis_url: str, redis: Redis) -> None:
    async with foreign(redis_url, redis, "fields") as (job, _):
        await job.jobs.queue.done(await job.jobs.delivery())
        await redis.zadd(job.index, {job.id: 1})
        assert await Sweeper(job.jobs.log, job.jobs.queue, backoff=60).sweep() == 1


@pytest.mark.slow
@SHAPED
async def test_fault_32_the_queue_delivers_it_again_until_it_ends(
    redis_url: str, redis: Redis, shape: str
) -> None:
    async with foreign(redis_url, redis, shape) as (job, chain):
        jobs = job.jobs
        await jobs.queue.done(await jobs.delivery())
        await jobs.queue.enqueue(job.message)
        key = f"{{{jobs.settings.queue_name}}}:queue"

        async def delivered_again() -> bool:
            pending = await redis.xpending_range(key, "workers", "-", "+", 10)
            return [entry["times_delivered"] for entry in pending] == [2]

        loop = asyncio.create_task(Loop(jobs.queue, jobs.runner, concurrency=1).run())
        try:
            await eventually(delivered_again)
            assert await job.touched() == UNTOUCHED
            await job.pass_by(FOREIGN_MS)
            fold = await jobs.ended(job.id)
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
        assert fold.error is not None
        assert fold.error["code"] == "unsupported_version"
        assert chain.calls == 0


def test_what_cannot_be_read_is_claimed_as_what_it_takes_to_end_it() -> None:
    raw = {"version": b"2", "input": b"\x1f", "attempt": b"7", "last_id": b"0-abcd", "created_ms": b"5"}
    record = Record.claimed("id", raw)
    assert (record.attempt, record.last_id, record.version, record.input) == (7, "0-abcd", 0, None)
