"""A job that nobody holds comes back: by the relay that watches it, or by the sweeper when nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from gateway.protocol import new_token
from gateway.queue.redeliver import revive
from tests.support.jobs import Jobs, eventually
from tests.support.model_server import ModelServer, script
from tests.support.processes import GatewayProcess
from workers.delivery.sweeper import Sweeper


async def fine(_: Any) -> AsyncIterator[str]:
    yield "a"


async def orphan(jobs: Jobs, redis: Redis) -> str:
    """A stream whose message is gone from the queue and whose worker is dead."""
    stream_id = await jobs.stream()
    await jobs.queue.done(await jobs.delivery())
    assert (await jobs.log.claim(stream_id, new_token(), 2000)).claim is not None
    job, _, index = jobs.log.keys(stream_id)
    now_ms = await jobs.log.now_ms()
    await redis.hset(job, "lease_end_ms", now_ms - 1)
    await redis.zadd(index, {stream_id: now_ms - 1})
    return stream_id


async def test_fault_02_a_dead_workers_job_is_enqueued_again_once(redis_url: str, redis: Redis) -> None:
    async with Jobs(redis_url, fine) as jobs:
        stream_id = await orphan(jobs, redis)
        sweeper = Sweeper(jobs.log, jobs.queue, backoff=60)
        assert [await sweeper.sweep() for _ in range(3)] == [1, 0, 0]
        assert await jobs.queue.depth() == 1
        assert stream_id.encode() in (await jobs.delivery()).body


async def test_fault_02_a_confirmed_job_whose_message_vanished_is_found(redis_url: str, redis: Redis) -> None:
    async with Jobs(redis_url, fine, queue_grace=0.0) as jobs:
        await jobs.stream()
        await jobs.queue.done(await jobs.delivery())
        sweeper = Sweeper(jobs.log, jobs.queue, backoff=60)
        assert await sweeper.sweep() == 1


async def test_a_held_job_a_waiting_one_and_an_ended_one_are_left_alone(redis_url: str) -> None:
    async with Jobs(redis_url, fine) as jobs:
        held, _, ended = [await jobs.stream() for _ in range(3)]
        await jobs.claim(held)
        await jobs.log.cancel(ended, "abcd")
        assert await jobs.log.due(100) == []
        assert await Sweeper(jobs.log, jobs.queue, backoff=60).sweep() == 0


async def test_fault_34_a_thousand_who_see_one_lease_end_send_one_message(
    redis_url: str, redis: Redis
) -> None:
    async with Jobs(redis_url, fine) as jobs:
        stream_id = await orphan(jobs, redis)
        asked = await asyncio.gather(
            *(revive(jobs.log, jobs.queue, stream_id, backoff=60) for _ in range(1000))
        )
        assert sum(asked) == 1
        assert await jobs.queue.depth() == 1


async def test_one_process_at_a_time_has_the_turn(redis_url: str, redis: Redis) -> None:
    async with Jobs(redis_url, fine) as jobs:
        assert [await jobs.log.take_turn("sweep", 60_000) for _ in range(3)] == ["yes", "no", "no"]
        assert await redis.pttl("turn:sweep") > 0
        await redis.delete("turn:sweep")
        assert await jobs.log.take_turn("sweep", 60_000) == "yes"


async def test_a_relay_at_a_leases_end_has_the_job_enqueued(redis_url: str, redis: Redis) -> None:
    async with Jobs(redis_url, fine, lease=1.0) as jobs:
        stream_id = await jobs.stream()
        await jobs.queue.done(await jobs.delivery())
        assert (await jobs.log.claim(stream_id, new_token(), 1000)).claim is not None

        async def read() -> None:
            async for _ in jobs.gateway.parts.relay.follow(stream_id, None):
                pass

        async def enqueued() -> bool:
            return await jobs.queue.depth() == 1

        reader = asyncio.create_task(read())
        await eventually(enqueued)
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


@pytest.mark.slow
async def test_fault_02_the_whole_instance_is_gone_and_nobody_watches(redis_url: str, redis: Redis) -> None:
    async with ModelServer() as model:
        environment = {"REDIS_URL": redis_url, "GATEWAY_LEASE_SECONDS": "1", **model.environment()}
        async with GatewayProcess("all", environment) as gone:
            async with httpx.AsyncClient(base_url=gone.url) as client:
                question = {"user": script(["a", "b"], gate="open", gate_at=1)}
                where = (await client.post("/stream", json=question)).headers["location"]
            await model.until(requests=1)
            await gone.kill()
        queues = [key async for key in redis.scan_iter("*:queue")]
        await redis.delete(*queues)  # the message, too
        model.open_gate("open")
        async with (
            GatewayProcess("all", environment) as other,
            httpx.AsyncClient(base_url=other.url, headers={"accept": "application/json"}) as client,
        ):

            async def done() -> bool:
                document = (await client.get(where)).json()
                return bool(document["status"] == "done" and document["text"] == "ab")

            await eventually(done)
