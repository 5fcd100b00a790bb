"""A run comes to its end though the other half of it has: the writer has given up, or the process stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway import protocol
from gateway.errors import StoreUnavailable
from gateway.queue import Message
from gateway.writing.writer import BUFFER_BYTES
from tests.support.jobs import Jobs, body, eventually
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer
from workers.loop import Loop
from workers.runner import AGAIN, DONE, FOREIGN_AGAIN_MS

ENDS_SECONDS = 20.0
PATIENCE_SECONDS = 0.5
LEASE_SECONDS = 60.0  # nobody waits for it here


async def fine(_: Any) -> AsyncIterator[str]:
    yield "a"


async def silent(_: Any) -> AsyncIterator[str]:
    yield "before"
    await asyncio.Event().wait()


# The writer has given up


async def test_a_chain_that_cancels_itself_ends_also_when_the_writer_has_given_up() -> None:
    """The store is away; one batch is on its way, and what has gathered is more than the writer takes."""
    gone = asyncio.Event()

    async def answering(_: Any) -> AsyncIterator[str]:
        yield "first"
        await gone.wait()
        for _ in range(2):
            yield "x" * (BUFFER_BYTES + 1)
        raise asyncio.CancelledError

    async with RedisServer() as server, Jobs(server.url, answering, store_patience=PATIENCE_SECONDS) as jobs:
        stream_id = await jobs.stream("q")
        running = asyncio.create_task(jobs.runner.run(body(stream_id)))
        await jobs.shows(stream_id, "first")
        await server.kill()
        gone.set()
        done, _ = await asyncio.wait({running}, timeout=ENDS_SECONDS)
        assert done, "the run does not end"
        with pytest.raises(StoreUnavailable):  # the delivery stays pending
            running.result()
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert not any(stream_id in name for name in names)


# The process stops


async def test_a_claim_on_its_way_when_the_process_stops_is_released(redis_url: str, redis: Redis) -> None:
    async with Proxy(redis_url) as proxy, Jobs(proxy.url, fine, lease=LEASE_SECONDS) as jobs:
        stream_id = await jobs.stream("q")
        job = jobs.log.keys(stream_id)[0]
        await script_known(jobs)
        proxy.hold("commands", "answers")
        running = asyncio.create_task(jobs.runner.run(body(stream_id)))
        await eventually(lambda: is_running(redis, job))
        running.cancel()
        proxy.release()
        assert await running == AGAIN
        assert await redis.hmget(job, ["status", "attempt", "failures"]) == [b"queued", b"0", b"0"]
        assert await jobs.runner.run(body(stream_id)) == DONE  # at once, long before the lease's end
        record = await jobs.record(stream_id)
        assert (record.status, record.attempt, record.failures) == ("done", 1, 0)


async def test_a_claim_on_its_way_that_takes_nothing_leaves_the_delivery_as_it_would_have(
    redis_url: str, redis: Redis
) -> None:
    async with Proxy(redis_url) as proxy, Jobs(proxy.url, fine, lease=LEASE_SECONDS) as jobs:
        held, ended, foreign = [await jobs.stream("q") for _ in range(3)]
        await jobs.claim(held)
        await jobs.gateway.cancel(ended, "anonymous")
        for message, again_ms in (
            (body(held), range(1, round(LEASE_SECONDS * 1000) + 1)),
            (body(ended), (None,)),
            (Message(foreign, version=99).encode(), (FOREIGN_AGAIN_MS,)),
        ):
            proxy.hold("commands", "answers")
            running = asyncio.create_task(jobs.runner.run(message))
            await asyncio.sleep(0)
            running.cancel()
            proxy.release()
            assert (await running).again_in_ms in again_ms
        assert [(await jobs.record(stream_id)).attempt for stream_id in (held, foreign)] == [1, 0]


async def test_a_loop_that_stops_while_it_claims_gives_the_job_to_another_at_once(
    redis_url: str, redis: Redis
) -> None:
    async with (
        Proxy(redis_url) as proxy,
        Jobs(proxy.url, fine, lease=LEASE_SECONDS) as stops,
        Jobs(redis_url, lease=LEASE_SECONDS) as other,
    ):
        stream_id = await other.stream("q")
        job = other.log.keys(stream_id)[0]
        await script_known(stops)
        claim = stops.log.claim

        async def slow(*given: Any, **told: Any) -> Any:
            proxy.hold("commands", "answers")
            return await claim(*given, **told)

        stops.log.claim = slow  # type: ignore[method-assign]
        loop = asyncio.create_task(Loop(stops.queue, stops.runner, concurrency=1).run())
        await eventually(lambda: is_running(redis, job))
        loop.cancel()
        await asyncio.sleep(0)
        proxy.release()
        await asyncio.gather(loop, return_exceptions=True)
        assert await redis.hget(job, "status") == b"queued"
        next_loop = asyncio.create_task(Loop(other.queue, other.runner, concurrency=1).run())
        assert (await other.ended(stream_id)).text == "a"
        record = await other.record(stream_id)
        assert (record.attempt, record.failures) == (1, 0)
        next_loop.cancel()
        await asyncio.gather(next_loop, return_exceptions=True)


async def script_known(jobs: Jobs) -> None:
    """The store has been told the script: what is held back is then the claim's own answer."""
    answer = await jobs.log.claim(protocol.new_stream_id(), protocol.new_token(), 1000)
    assert answer.word == "unknown"


async def is_running(redis: Redis, job: str) -> bool:
    return await redis.hget(job, "status") == b"running"
