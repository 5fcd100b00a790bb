"""Deliveries through a real queue, and what happens to running jobs when their process must stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway import protocol
from tests.support.jobs import Jobs, body, eventually
from tests.support.pen import paused
from tests.support.redis_server import RedisServer
from workers.delivery.consumer import Loop
from workers.delivery.runner import DONE


class Gated:
    """A chain that yields one word, waits until `gate` is set, and yields another word."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.most = self.now = self.calls = 0

    async def __call__(self, given: Any) -> AsyncIterator[str]:
        self.calls += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            yield "before "
            await self.gate.wait()
            yield "after"
        finally:
            self.now -= 1


@asynccontextmanager
async def working(jobs: Jobs, concurrency: int = 4) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(Loop(jobs.queue, jobs.runner, concurrency=concurrency).run())
    try:
        yield task
    finally:
        await stop(task)


async def stop(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def no_depth(jobs: Jobs) -> None:
    async def condition() -> bool:
        return await jobs.queue.depth() == 0

    await eventually(condition)


async def test_jobs_run_and_are_settled(redis_url: str) -> None:
    gated = Gated()
    gated.gate.set()
    async with Jobs(redis_url, gated) as jobs, working(jobs):
        ids = [await jobs.stream("q") for _ in range(10)]
        for stream_id in ids:
            assert (await jobs.ended(stream_id)).text == "before after"
        await no_depth(jobs)


async def test_a_full_process_takes_no_more_than_it_has_places(redis_url: str) -> None:
    gated = Gated()
    async with Jobs(redis_url, gated, lease=30.0) as jobs, working(jobs, concurrency=2):
        ids = [await jobs.stream("q") for _ in range(5)]
        for stream_id in ids[:2]:
            await jobs.shows(stream_id, "before")
        assert [(await jobs.record(stream_id)).attempt for stream_id in ids] == [1, 1, 0, 0, 0]
        gated.gate.set()
        for stream_id in ids:
            await jobs.ended(stream_id)
        assert gated.most == 2


async def test_fault_05_poison_is_dropped_and_the_loop_goes_on(redis_url: str, redis: Redis) -> None:
    gated = Gated()
    gated.gate.set()
    async with Jobs(redis_url, gated) as jobs, working(jobs):
        for raw in (b"{", b"[" * 100_000, b'{"v":1,"id":"short"}', body(protocol.new_stream_id())):
            await redis.xadd("{holdfast-jobs}:queue", {"job": raw})
        assert (await jobs.ended(await jobs.stream("q"))).text == "before after"
        await no_depth(jobs)


async def test_fault_33_a_delivery_answered_held_is_run_when_its_holder_dies(redis_url: str) -> None:
    gated = Gated()
    gated.gate.set()
    async with Jobs(redis_url, gated, lease=1.0) as jobs:
        stream_id = await jobs.stream("q")
        await jobs.claim(stream_id)  # The worker that makes this claim is dead: it does nothing more.
        async with working(jobs):
            assert (await jobs.ended(stream_id)).text == "before after"
            assert (await jobs.record(stream_id)).attempt == 2
            await no_depth(jobs)


async def test_a_stopped_loop_hands_its_jobs_over_at_once(redis_url: str) -> None:
    gated = Gated()
    async with Jobs(redis_url, gated, lease=60.0) as jobs:
        async with working(jobs) as first:
            stream_id = await jobs.stream("q")
            await jobs.shows(stream_id, "before")
            await stop(first)
            assert gated.now == 0  # no chain is left running
            assert (await jobs.record(stream_id)).status == "queued"
        gated.gate.set()
        # The job ends within the time limit of `ended`, which is much shorter than the lease.
        async with working(jobs):
            assert (await jobs.ended(stream_id)).text == "before after"
        kinds = await jobs.kinds(stream_id)
        assert "reset" not in kinds
        assert kinds.count("message") == 2


async def test_a_job_that_comes_while_the_loop_stops_is_given_to_another_at_once(redis_url: str) -> None:
    gated = Gated()
    gated.gate.set()
    async with Jobs(redis_url, gated, lease=60.0) as jobs, Redis.from_url(redis_url) as client:
        async with working(jobs) as first:
            await eventually(lambda: _a_read_waits(client))
            first.cancel()
            await asyncio.sleep(0)
            stream_id = await jobs.stream("q")
            await asyncio.gather(first, return_exceptions=True)
        async with working(jobs):
            assert (await jobs.ended(stream_id)).text == "before after"


async def _a_read_waits(client: Redis) -> bool:
    return int((await client.info("clients"))["blocked_clients"]) == 1


async def test_a_hand_over_that_meets_the_end_is_the_end(redis_url: str, redis: Redis) -> None:
    """The runner is stopped during the last append. The job has ended, and it is not run again."""
    gated = Gated()
    async with Jobs(redis_url, gated) as jobs:
        stream_id = await jobs.stream("q")
        running = asyncio.create_task(jobs.runner.run(body(stream_id)))
        await jobs.shows(stream_id, "before")
        async with paused(redis):
            gated.gate.set()
            await eventually(lambda: _idle(gated))
            for _ in range(20):
                await asyncio.sleep(0)  # After this, the runner waits only for the pen.
            running.cancel()
        await running
        assert (await jobs.fold(stream_id)).ended == "done"
        assert await jobs.runner.run(body(stream_id)) == DONE
        assert gated.calls == 1


async def _idle(gated: Gated) -> bool:
    return gated.now == 0


async def test_a_store_that_is_away_at_the_stop_does_not_keep_the_process() -> None:
    gated = Gated()
    async with RedisServer() as server, Jobs(server.url, gated, drain=0.5) as jobs:
        async with working(jobs) as loop:
            stream_id = await jobs.stream("q")
            await jobs.shows(stream_id, "before")
            await server.kill()
            began = monotonic()
            await stop(loop)
            assert monotonic() - began < 3 * (0.5 + 2.0)
        assert gated.now == 0


@pytest.mark.slow
async def test_a_queue_that_goes_and_comes_back_is_read_on() -> None:
    gated = Gated()
    gated.gate.set()
    async with RedisServer(aof=True) as server, Jobs(server.url, gated) as jobs, working(jobs):
        assert (await jobs.ended(await jobs.stream("q"))).text == "before after"
        await server.kill()
        await server.start()
        assert (await jobs.ended(await jobs.stream("q"))).text == "before after"


async def test_fault_08_a_lost_tail_lets_the_job_go_and_another_attempt_ends_it(
    redis_url: str, redis: Redis
) -> None:
    gated = Gated()
    async with Jobs(redis_url, gated, lease=60.0) as jobs, working(jobs):
        stream_id = await jobs.stream("q")
        await jobs.shows(stream_id, "before")
        key = jobs.log.keys(stream_id)[1]
        await redis.set(key, b"", keepttl=True)  # The writer cannot restore this much from memory.
        gated.gate.set()
        assert (await jobs.ended(stream_id)).text == "before after"
        assert (await jobs.record(stream_id)).attempt == 2
