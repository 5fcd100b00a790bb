"""Row 31 of docs/faults.md.

Redis's clock goes back ten minutes, as at a failover. Times that were set by the old clock count as over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.protocol import new_token
from gateway.protocol.errors import StoreUnavailable
from tests.support.clock import ClockServer
from tests.support.jobs import Jobs, eventually
from workers.delivery.consumer import Loop
from workers.delivery.sweeper import Sweeper

LEASE_SECONDS = 1.0
TAKEN_SECONDS = 3 * (LEASE_SECONDS + 2.0)  # The promise: another attempt starts within the lease and 2 s.
BACK_SECONDS = -600


async def fine(_: Any) -> AsyncIterator[str]:
    yield "a"


@asynccontextmanager
async def clock(folder: Path) -> AsyncIterator[tuple[ClockServer, Redis, Jobs]]:
    """Yield a Redis whose clock can be moved, and a process that uses this Redis."""
    async with (
        ClockServer(folder) as server,
        Redis.from_url(server.url) as redis,
        Jobs(server.url, fine, lease=LEASE_SECONDS) as jobs,
    ):
        yield server, redis, jobs


@asynccontextmanager
async def running(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def turn_taken(redis: Redis) -> None:
    """Wait until a sweeper has the turn and the turn is not yet over."""

    async def condition() -> bool:
        return bool(await redis.exists("turn:sweep"))

    await eventually(condition)


async def dies(jobs: Jobs, *, settled: bool) -> str:
    """Start a stream whose worker is dead, and return its id.

    If `settled` is true, delete its queue message, too.
    """
    stream_id = await jobs.stream("q")
    delivery = await jobs.delivery()
    if settled:
        await jobs.queue.done(delivery)
    assert (await jobs.log.claim(stream_id, new_token(), round(LEASE_SECONDS * 1000))).claim is not None
    return stream_id


async def test_the_server_tells_the_time_that_it_is_told(tmp_path: Path) -> None:
    async with clock(tmp_path) as (server, redis, jobs):
        await redis.set("a", "a", px=1000)
        before = await jobs.log.now_ms()
        await server.move(BACK_SECONDS)
        assert -600_000 <= await jobs.log.now_ms() - before < -540_000
        assert await redis.pttl("a") > 540_000


@pytest.mark.slow
@pytest.mark.parametrize("settled", [False, True], ids=["message-pending", "message-gone"])
@pytest.mark.parametrize("claimed", ["before", "after"])
async def test_fault_31_a_dead_workers_job_goes_on_in_time_though_the_clock_went_back(
    tmp_path: Path, claimed: str, settled: bool
) -> None:
    """By the new clock, lease, index, turn and pending message end only in ten minutes.

    No reader watches the stream.
    """
    async with clock(tmp_path) as (server, redis, jobs), Jobs(server.url, lease=LEASE_SECONDS) as other:
        async with running(Sweeper(jobs.log, jobs.queue, backoff=LEASE_SECONDS).run()):
            await turn_taken(redis)
            if claimed == "after":
                await server.move(BACK_SECONDS)
            stream_id = await dies(jobs, settled=settled)
            if claimed == "before":
                await turn_taken(redis)
                await server.move(BACK_SECONDS)
            async with (
                running(Loop(other.queue, other.runner, concurrency=1).run()),
                asyncio.timeout(TAKEN_SECONDS),
            ):
                assert (await jobs.ended(stream_id)).text == "a"
        record = await jobs.record(stream_id)
        assert (record.attempt, record.failures) == (2, 1)


async def test_fault_31_a_turn_that_is_too_far_away_is_over_and_the_way_back_is_told_once(
    tmp_path: Path,
) -> None:
    async with clock(tmp_path) as (server, _, jobs):
        assert await jobs.log.take_turn("sweep", 60_000) == "yes"
        await server.move(BACK_SECONDS)
        assert [await jobs.log.take_turn("sweep", 60_000) for _ in range(3)] == ["back", "no", "no"]


async def test_fault_31_a_way_back_is_told_also_when_the_turn_was_free(tmp_path: Path) -> None:
    async with clock(tmp_path) as (server, redis, jobs):
        assert await jobs.log.take_turn("sweep", 60_000) == "yes"
        await redis.delete("turn:sweep")
        await server.move(BACK_SECONDS)
        assert await jobs.log.take_turn("sweep", 60_000) == "back"
        await server.move(0)
        await redis.delete("turn:sweep")
        assert await jobs.log.take_turn("sweep", 60_000) == "yes"  # A clock that goes forward is no problem.


@pytest.mark.slow
async def test_fault_31_a_sweep_that_fails_after_the_way_back_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock goes back at a failover. At that moment the store is also unavailable."""
    async with clock(tmp_path) as (server, _, jobs):
        await dies(jobs, settled=True)
        assert await jobs.log.take_turn("sweep", 1) == "yes"
        await server.move(BACK_SECONDS)
        due = jobs.log.due
        refused: list[dict[str, Any]] = []

        async def unsteady(*given: Any, **told: Any) -> list[str]:
            if not refused:
                refused.append(told)
                raise StoreUnavailable
            return await due(*given, **told)

        async def enqueued() -> bool:
            return await jobs.queue.depth() == 1

        monkeypatch.setattr(jobs.log, "due", unsteady)
        async with running(Sweeper(jobs.log, jobs.queue, backoff=LEASE_SECONDS).run()):
            await eventually(enqueued, TAKEN_SECONDS)
        assert refused == [{"all_of_them": True}]
