"""Row 30 for what is not ended: a job that waits longer than its retention, and one whose log is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.support.jobs import Jobs, body, eventually
from workers.delivery.runner import DONE
from workers.delivery.sweeper import Sweeper

RETENTION_SECONDS = 6.0  # several turns of the sweeper, on a busy machine too


class Counted:
    calls = 0

    async def __call__(self, _: Any) -> AsyncIterator[str]:
        self.calls += 1
        yield "a"


@pytest.mark.slow
async def test_fault_30_a_queued_jobs_log_outlives_a_wait_longer_than_its_retention(redis_url: str) -> None:
    chain = Counted()
    async with Jobs(redis_url, chain, retention=RETENTION_SECONDS, queue_grace=0.2) as jobs:
        stream_id = await jobs.stream("q")
        created = (await jobs.record(stream_id)).created_ms
        sweeper = asyncio.create_task(Sweeper(jobs.log, jobs.queue, backoff=0.01).run())

        async def long_past() -> bool:
            return await jobs.log.now_ms() > created + 2 * RETENTION_SECONDS * 1000

        await eventually(long_past)
        sweeper.cancel()
        await asyncio.gather(sweeper, return_exceptions=True)
        assert await jobs.kinds(stream_id) == ["start"]
        assert await jobs.runner.run(body(stream_id)) == DONE
        assert (await jobs.gateway.status(stream_id, "anonymous"))["text"] == "a"
        assert chain.calls == 1


@pytest.mark.parametrize("attempt", ["first", "second"])
async def test_fault_30_a_job_whose_log_is_gone_is_run_and_its_log_begins_anew(
    redis_url: str, redis: Redis, attempt: str
) -> None:
    """It waited past its retention, or the store has lost it: a reader finds a whole log, from `start` on."""
    chain = Counted()
    async with Jobs(redis_url, chain) as jobs:
        stream_id = await jobs.stream("q")
        [start] = await jobs.messages(stream_id)
        job, log, index = jobs.log.keys(stream_id)
        if attempt == "second":
            await jobs.claim(stream_id)
            await redis.hset(job, "lease_end_ms", 1)
        await redis.delete(log)
        assert await jobs.runner.run(body(stream_id)) == DONE
        begins, *rest = await jobs.messages(stream_id)
        assert begins.event() == start.event()
        assert [message.type for message in rest] == ["stage", "message", "stage", "done"]
        assert begins.id != start.id  # so a reader that had the old one is told
        assert (await jobs.gateway.status(stream_id, "anonymous"))["text"] == "a"
        assert await redis.pttl(log) > 0
        assert not await redis.exists(index)
        assert chain.calls == 1


@pytest.mark.parametrize(("field", "value"), [("failures", 50), ("chain", "none-of-ours")])
async def test_fault_30_a_job_whose_log_is_gone_and_that_is_not_run_ends_in_a_log_of_its_own(
    redis_url: str, redis: Redis, field: str, value: str | int
) -> None:
    chain = Counted()
    async with Jobs(redis_url, chain) as jobs:
        stream_id = await jobs.stream("q")
        job, log, _ = jobs.log.keys(stream_id)
        # A worker found long ago that it lacks the chain: nobody has come who has it.
        await redis.hset(job, mapping={field: value, "unknown_ms": 1})
        await redis.delete(log)
        assert await jobs.runner.run(body(stream_id)) == DONE
        assert await jobs.kinds(stream_id) == ["start", "failed"]
        assert chain.calls == 0
