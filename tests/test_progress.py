"""An attempt that says again what already stands is progress, though it appends nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from gateway.protocol import sse
from gateway.store.log import Log
from tests.support.jobs import eventually
from tests.support.model_server import ModelServer
from tests.support.pen import pen
from tests.support.processes import GatewayProcess

BOUND_SECONDS = 60
WORDS = [f"{number} " for number in range(20)]
RENEWALS = 8


@pytest.mark.parametrize(("matched", "failures"), [(True, 0), (False, 1)])
async def test_a_claim_that_dies_having_only_matched_is_no_failure(
    redis_url: str, redis: Redis, matched: bool, failures: int
) -> None:
    async with pen(redis_url, lease=0.3) as one:
        job, log, _ = one.log.keys(one.id)
        before = await redis.get(log)
        if matched:
            one.writer.progressed()
        await one.tried(2)  # the silence was broken once, and answered
        one.task.cancel()
        await asyncio.gather(one.task, return_exceptions=True)
        await redis.hset(job, "lease_end_ms", 1)
        record = (await one.jobs.claim(one.id)).record
        assert (record.attempt, record.failures) == (2, failures)
        assert await redis.get(log) == before


async def test_each_claim_must_make_progress_of_its_own(redis_url: str, redis: Redis) -> None:
    async with pen(redis_url, lease=0.3) as one:
        one.writer.progressed()
        await one.tried(2)
        one.task.cancel()
        await asyncio.gather(one.task, return_exceptions=True)
        failures = []
        for _ in range(3):
            await redis.hset(one.log.keys(one.id)[0], "lease_end_ms", 1)
            failures.append((await one.jobs.claim(one.id)).record.failures)
        assert failures == [0, 1, 2]


class Hesitant(ModelServer):
    """All its answers are one text; the first holds after half of it, the others after a quarter."""

    def _stream(self, told: dict[str, Any]) -> AsyncIterator[bytes]:
        number = len(self.requests)
        at = len(WORDS) // (2 if number == 1 else 4)
        return super()._stream(
            {"chunks": WORDS, "gate": "the last" if number > 2 else "never", "gate_at": at}
        )


async def settled(redis: Redis, stream_id: str, attempt: int, words: int) -> None:
    """Wait until this attempt has written so many words, and has progress to its name.

    Or, if it has none, until its lease was renewed so often that it ought to.
    """
    job, log, _ = Log.keys(stream_id)
    leases: set[bytes | str | None] = set()

    async def condition() -> bool:
        number, progress, lease = await redis.hmget(job, ["attempt", "progress", "lease_end_ms"])
        raw = await redis.get(log)
        assert isinstance(raw, bytes)
        if number != str(attempt).encode() or raw.count(b'"delta_content"') < words:
            return False
        leases.add(lease)
        return progress == b"1" or len(leases) > RENEWALS

    await eventually(condition, BOUND_SECONDS)


@pytest.mark.slow
async def test_fault_05_a_worker_killed_while_it_matches_does_not_spend_the_jobs_tries(
    redis_url: str, redis: Redis
) -> None:
    async with Hesitant() as model:
        environment = {
            "REDIS_URL": redis_url,
            "GATEWAY_LEASE_SECONDS": "1",
            "GATEWAY_MAX_FAILURES": "1",
            **model.environment(),
        }
        async with (
            GatewayProcess("web", environment) as web,
            httpx.AsyncClient(timeout=BOUND_SECONDS) as http,
        ):
            where = web.url + (await http.post(f"{web.url}/stream", json={"user": "q"})).headers["location"]
            stream_id = where.rpartition("/")[2]
            written = []
            for attempt in (1, 2):
                async with GatewayProcess("worker", environment) as worker:
                    await model.until(requests=attempt)
                    await settled(redis, stream_id, attempt, len(WORDS) // 2)
                    await worker.kill()
                written.append(await redis.get(Log.keys(stream_id)[1]))
            assert written[0] == written[1]  # the second has only matched
            model.open_gate("the last")
            async with GatewayProcess("worker", environment):
                answer = await http.get(where, headers={"accept": "text/event-stream"})
            told = sse.Decoder().feed(answer.content)
            document = (await http.get(where, headers={"accept": "application/json"})).json()
    assert told[-1].type == "done"
    assert "reset" not in [message.type for message in told]
    assert (document["text"], document["attempt"]) == ("".join(WORDS), 3)
