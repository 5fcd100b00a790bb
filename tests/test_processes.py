"""Real processes on one Redis: killed, stopped, paused. What their readers see is exact all the same."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from gateway.protocol.fold import Fold
from gateway.protocol.sse import Decoder
from tests.support.jobs import eventually
from tests.support.model_server import ModelServer, script
from tests.support.processes import GatewayProcess

pytestmark = pytest.mark.slow
LEASE_SECONDS = 2
WORDS = [f"{number} " for number in range(40)]
BOUND_SECONDS = 60


@dataclass
class Reader:
    """Follows one stream at one gateway; `text` grows."""

    url: str
    kinds: list[str] = field(default_factory=list)
    fold: Fold = field(default_factory=Fold)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def follow(self) -> None:
        decoder = Decoder()
        async with (
            httpx.AsyncClient(timeout=BOUND_SECONDS) as client,
            client.stream("GET", self.url, headers={"accept": "text/event-stream"}) as answer,
        ):
            assert answer.status_code == 200
            async for raw in answer.aiter_raw():
                for message in decoder.feed(raw):
                    self.kinds.append(message.type)
                    self.fold.feed(message.id, message.event())
                async with self.changed:
                    self.changed.notify_all()

    async def until(self, events: int) -> None:
        async with asyncio.timeout(BOUND_SECONDS), self.changed:
            await self.changed.wait_for(lambda: len(self.kinds) >= events)

    def exact(self, text: str) -> None:
        """All of it, once, without a reset, and one end."""
        assert self.fold.text == text
        assert self.kinds.count("reset") == 0
        assert self.kinds[-1] == "done"
        assert sum(kind in ("done", "failed", "cancelled") for kind in self.kinds) == 1


class Fleet:
    """Two gateways, and as many workers as a test starts."""

    def __init__(self, redis_url: str, model: ModelServer) -> None:
        self.environment = {
            "REDIS_URL": redis_url,
            "GATEWAY_LEASE_SECONDS": str(LEASE_SECONDS),
            "GATEWAY_CHAINS": "tests.support.jobs",
            "GATEWAY_MAX_FAILURES": "1",
            **model.environment(),
        }
        self.stack = AsyncExitStack()

    async def start(self, *modes: str) -> list[GatewayProcess]:
        made = [GatewayProcess(mode, self.environment) for mode in modes]
        return list(await asyncio.gather(*(self.stack.enter_async_context(one) for one in made)))

    async def ready(self, workers: int) -> None:
        """Wait until so many workers have asked the queue for a job."""
        async with Redis.from_url(self.environment["REDIS_URL"]) as client:

            async def condition() -> bool:
                names = [other["name"] for other in await client.client_list()]
                return names.count("holdfast-queue") >= workers

            await eventually(condition, BOUND_SECONDS)

    async def post(self, web: GatewayProcess, question: dict[str, Any]) -> str:
        async with httpx.AsyncClient(timeout=BOUND_SECONDS) as client:
            answer = await client.post(f"{web.url}/stream", json=question)
            assert answer.status_code == 202, answer.text
            return str(answer.headers["location"])


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        yield server


@pytest.fixture
async def fleet(redis_url: str, model: ModelServer) -> AsyncIterator[Fleet]:
    made = Fleet(redis_url, model)
    async with made.stack:
        yield made


async def test_a_stream_posted_at_one_gateway_is_followed_at_another(fleet: Fleet) -> None:
    one, other, *_ = await fleet.start("web", "web", "worker", "worker")
    where = await fleet.post(one, {"user": script(["a", "b", "c"])})
    readers = [Reader(web.url + where) for web in (one, other)]
    async with asyncio.timeout(BOUND_SECONDS):
        await asyncio.gather(*(reader.follow() for reader in readers))
    for reader in readers:
        reader.exact("abc")


async def test_fault_01_a_killed_workers_job_is_taken_over_and_its_reader_sees_no_seam(
    fleet: Fleet, model: ModelServer
) -> None:
    web, holder = await fleet.start("web", "worker")
    where = await fleet.post(web, {"user": script(WORDS, gate="g", gate_at=20)})
    reader = Reader(web.url + where)
    following = asyncio.create_task(reader.follow())
    await reader.until(events=22)  # start, stage, and twenty words
    await fleet.start("worker")
    await fleet.ready(workers=2)
    began = monotonic()
    await holder.kill()
    await model.until(requests=2)  # the second attempt has asked the model
    assert monotonic() - began < 3 * (LEASE_SECONDS + 2)
    model.open_gate("g")
    async with asyncio.timeout(BOUND_SECONDS):
        await following
    reader.exact("".join(WORDS))


async def test_a_worker_told_to_stop_hands_over_at_once_and_exits_0(fleet: Fleet, model: ModelServer) -> None:
    fleet.environment["GATEWAY_LEASE_SECONDS"] = "60"
    web, holder = await fleet.start("web", "worker")
    where = await fleet.post(web, {"user": script(WORDS, gate="g", gate_at=20)})
    reader = Reader(web.url + where)
    following = asyncio.create_task(reader.follow())
    await reader.until(events=22)
    await fleet.start("worker")
    await fleet.ready(workers=2)
    assert await holder.stop() == 0
    await model.until(requests=2)  # far below the lease
    model.open_gate("g")
    async with asyncio.timeout(BOUND_SECONDS / 2):
        await following
    reader.exact("".join(WORDS))


async def test_fault_03_a_worker_paused_past_its_lease_stops_its_model_call(
    fleet: Fleet, model: ModelServer
) -> None:
    web, holder = await fleet.start("web", "worker")
    where = await fleet.post(web, {"user": script(["a", "b"], gate="g", gate_at=1)})
    reader = Reader(web.url + where)
    following = asyncio.create_task(reader.follow())
    await reader.until(events=3)
    holder.signal(signal.SIGSTOP)
    await fleet.start("worker")
    await model.until(requests=2)  # another has the job, and waits at the gate as well
    assert model.cut_answers == 0
    holder.signal(signal.SIGCONT)
    async with asyncio.timeout(3 * 2):
        await model.until(cut=1)  # the zombie has noticed; the other goes on
    model.open_gate("g")
    async with asyncio.timeout(BOUND_SECONDS):
        await following
    reader.exact("ab")


async def test_fault_05_a_chain_that_kills_its_process_again_and_again_ends_failed(fleet: Fleet) -> None:
    fleet.environment["GATEWAY_LEASE_SECONDS"] = "1"
    [web] = await fleet.start("web")
    where = await fleet.post(web, {"chain": "dies", "input": ""})
    reader = Reader(web.url + where)
    following = asyncio.create_task(reader.follow())
    killed = 0
    while not following.done():
        [worker] = await fleet.start("worker")
        dying = asyncio.create_task(worker.ended())
        async with asyncio.timeout(BOUND_SECONDS):
            await asyncio.wait({dying, following}, return_when=asyncio.FIRST_COMPLETED)
        killed += dying.done()
        dying.cancel()
        await asyncio.gather(dying, return_exceptions=True)
    await following
    assert reader.kinds[-1] == "failed"
    assert reader.fold.error is not None
    assert reader.fold.error["code"] == "attempts_exhausted"
    # Who writes did not fail: the first its stage, another perhaps the chain's last words, the last none
    assert 2 <= killed <= len(reader.kinds) - 1
