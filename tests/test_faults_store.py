"""A queue that refuses messages, and a store that has lost all its data."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from gateway.protocol import sse
from tests.support.jobs import Jobs, eventually
from tests.support.model_server import ModelServer, script
from tests.support.processes import GatewayProcess
from tests.support.redis_server import RedisServer
from workers.delivery.sweeper import Sweeper

BOUND_SECONDS = 60
UNCONFIRMED_MS = 60_000


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    """Start a Redis for this test, without AOF. It may refuse commands or lose all data."""
    async with RedisServer() as own:
        yield own


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer() as scripted:
        yield scripted


async def keys_like(redis: Redis, pattern: str) -> list[str]:
    return [key.decode() async for key in redis.scan_iter(pattern)]


@asynccontextmanager
async def no_xadd(redis: Redis) -> AsyncIterator[None]:
    """Make the queue refuse every message. The rest of the store works."""
    await redis.execute_command("ACL", "SETUSER", "default", "-xadd")
    try:
        yield
    finally:
        await redis.execute_command("ACL", "SETUSER", "default", "+xadd")


async def refused(web: GatewayProcess, redis: Redis, question: dict[str, Any], key: str) -> httpx.Response:
    async with no_xadd(redis), httpx.AsyncClient(timeout=BOUND_SECONDS) as client:
        return await client.post(f"{web.url}/stream", json=question, headers={"idempotency-key": key})


@pytest.mark.slow
async def test_fault_06_a_refused_job_is_503_and_its_record_expires_unrun(server: RedisServer) -> None:
    async with Redis.from_url(server.url) as redis:
        async with GatewayProcess("web", {"REDIS_URL": server.url}) as web:
            answer = await refused(web, redis, {"user": "q"}, key="k")
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["code"] == "queue_unavailable"

        made = await keys_like(redis, "*")
        # The id is in its owner's list, but the list does not show a stream that was not confirmed.
        [mine] = [key for key in made if key.endswith(":mine")]
        assert await redis.pttl(mine) > 0
        made.remove(mine)
        kinds = sorted(key.split(":")[1] for key in made)
        # No queue and no index exists. `starting` holds the stream's place, also for one minute.
        assert kinds == ["idem", "job", "log", "starting"]
        for key in made:
            assert 0 < await redis.pttl(key) <= UNCONFIRMED_MS

        await sweeper_leaves_alone(server.url, redis, made)
        for key in made:
            assert 0 < await redis.pttl(key) <= UNCONFIRMED_MS


async def sweeper_leaves_alone(url: str, redis: Redis, made: list[str]) -> None:
    """The sweeper ignores the stream even if the index says that it is long overdue."""
    [job] = [key for key in made if ":job:" in key]
    async with Jobs(url) as jobs:
        stream_id = job.rpartition(":")[2]
        _, _, index = jobs.log.keys(stream_id)
        for _ in range(2):
            await redis.zadd(index, {stream_id: 1})
            assert stream_id in await jobs.log.due(100)
            assert await Sweeper(jobs.log, jobs.queue, backoff=0).sweep() == 0
        assert await jobs.queue.depth() == 0


@pytest.mark.slow
async def test_fault_06_the_same_key_starts_the_same_stream_when_the_queue_takes_it(
    server: RedisServer, model: ModelServer
) -> None:
    environment = {"REDIS_URL": server.url, **model.environment()}
    async with Redis.from_url(server.url) as redis, GatewayProcess("all", environment) as both:
        question = {"user": script(["a", "b"])}
        assert (await refused(both, redis, question, key="k")).status_code == 503
        [job] = await keys_like(redis, "*:job:*")
        async with httpx.AsyncClient(base_url=both.url, timeout=BOUND_SECONDS) as client:
            headers = {"idempotency-key": "k", "accept": "text/event-stream"}
            answer = await client.post("/stream", json=question, headers=headers)
            assert answer.headers["x-stream-id"] == job.rpartition(":")[2]
            assert b"event: done\n" in answer.content
        assert len(model.requests) == 1
        assert await keys_like(redis, "*:job:*") == [job]


# Row 9: the store returns empty


class Attached:
    """A reader that stores everything it receives, until a clean end."""

    def __init__(self, url: str) -> None:
        self.frames = b""
        self.task = asyncio.create_task(self._read(url), name="test-reader")

    async def _read(self, url: str) -> None:
        async with (
            httpx.AsyncClient(timeout=BOUND_SECONDS) as client,
            client.stream("GET", url, headers={"accept": "text/event-stream"}) as answer,
        ):
            assert answer.status_code == 200
            async for chunk in answer.aiter_raw():  # This raises when the connection is cut.
                self.frames += chunk

    async def has(self, words: bytes) -> None:
        async def condition() -> bool:
            return words in self.frames or self.task.done()

        await eventually(condition, BOUND_SECONDS)
        assert words in self.frames


async def restarted(server: RedisServer) -> None:
    await server.kill()
    await server.start()


async def emptied(server: RedisServer) -> None:
    """Delete all data without cutting a connection, as after a failover to an empty server."""
    async with Redis.from_url(server.url) as redis:
        await redis.flushall()


@pytest.mark.slow
@pytest.mark.parametrize("loses", [restarted, emptied])
async def test_fault_09_a_store_that_is_empty_is_told_and_the_processes_go_on(
    server: RedisServer, model: ModelServer, loses: Callable[[RedisServer], Awaitable[None]]
) -> None:
    environment = {"REDIS_URL": server.url, "GATEWAY_LEASE_SECONDS": "2", **model.environment()}
    async with (
        GatewayProcess("web", environment) as web,
        GatewayProcess("worker", environment) as worker,
        httpx.AsyncClient(base_url=web.url, timeout=BOUND_SECONDS) as client,
    ):
        question = {"user": script(["before ", "after"], gate="held", gate_at=1)}
        where = (await client.post("/stream", json=question)).headers["location"]
        reader = Attached(web.url + where)
        await reader.has(b'"before "')
        shown = reader.frames
        await loses(server)
        async with asyncio.timeout(BOUND_SECONDS):
            await reader.task
        told = reader.frames.removeprefix(shown).replace(sse.HEARTBEAT, b"")
        # Then the connection closes cleanly, so no gap is hidden. A reader that found no store reconnects and
        # gets 404.
        assert told == sse.LOG_LOST or (told == b"" and loses is restarted)
        for accept in ("text/event-stream", "application/json"):
            assert (await client.get(where, headers={"accept": accept})).status_code == 404
        async with asyncio.timeout(BOUND_SECONDS):
            await model.until(cut=1)  # No worker waits for this answer any more.

        headers = {"accept": "text/event-stream"}
        answer = await client.post("/stream", json={"user": script(["new"])}, headers=headers)
        assert b'"new"' in answer.content
        assert b"event: done\n" in answer.content
        assert "Traceback" not in web.log() + worker.log()
