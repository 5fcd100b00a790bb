"""`report`: its workers are killed in each of its stages, or their time ends again and again."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from gateway.protocol import sse
from gateway.store.log import Log
from tests.support.jobs import Jobs
from tests.support.model_server import ModelServer
from tests.support.processes import REPOSITORY, GatewayProcess

pytestmark = pytest.mark.slow
BOUND_SECONDS = 60
OUTLINE = ["1. Rain", "\n2. Snow\n"]
# The model's answers by the text in the question, one for each stage run of `report`, in order.
ANSWERS = {
    "Name three": OUTLINE,
    "section “Rain”": ["Rain ", "is ", "wet."],
    "section “Snow”": ["Snow ", "is ", "white."],
    "Say in a few": ["Too ", "short."],
    "the final report": ["Rain ", "and ", "snow."],
}
STEPS = list(ANSWERS)
NAMES = [("outline", 1), ("sections", 1), ("sections", 2), ("critique", 1), ("final", 1)]


class Author(ModelServer):
    """A model server that answers by the question.

    It holds the first answer of each step in `holds` after one chunk.
    """

    def __init__(self, *holds: str) -> None:
        super().__init__()
        self._holds = holds

    def asked(self) -> list[str]:
        """Return the step of each request."""
        return [self.step(request) for request in self.requests]

    def step(self, body: Any) -> str:
        [step] = [step for step in STEPS if step in body["messages"][-1]["content"]]
        return step

    def told(self, body: Any) -> dict[str, Any]:
        step = self.step(body)
        held = step in self._holds and self.asked().count(step) == 1
        return {"chunks": ANSWERS[step]} | ({"gate": f"never {step}", "gate_at": 1} if held else {})


async def followed(url: str, where: str) -> bytes:
    """Return the frames of one connection from the first event to the end, without other lines."""
    async with httpx.AsyncClient(timeout=BOUND_SECONDS) as client:
        answer = await client.get(url + where, headers={"accept": "text/event-stream"})
    lines = answer.content.split(b"\n")
    return b"\n".join(line for line in lines if line != b":" and not line.startswith(b"retry:"))


async def log_of(redis: Redis, where: str) -> bytes:
    raw = await redis.get(Log.keys(where.rpartition("/")[2])[1])
    assert isinstance(raw, bytes)
    return raw


def check_text(frames: bytes) -> None:
    """Check that every stage sends the model's text once and in order, without a reset and with one end."""
    messages = sse.Decoder().feed(frames)
    texts: dict[tuple[str, int], list[str]] = {}
    for event in (message.event() for message in messages):
        assert event.type not in ("reset", "failed")
        if event.type == "stage" and event.data["state"] == "started":
            texts[event.data["name"], event.data["run"]] = []
        if event.type == "":
            texts[list(texts)[-1]].append(event.data["delta_content"])
    assert texts == dict(zip(NAMES, ANSWERS.values(), strict=True))
    assert [message.type for message in messages].count("done") == 1
    usage = messages[-1].event().data["usage"]
    assert usage["output_tokens"] == sum(map(len, ANSWERS.values()))
    assert usage["input_tokens"] == 7 * len(ANSWERS)


@pytest.mark.timeout(300)
async def test_fault_01_a_worker_killed_in_each_stage_of_report_in_turn(redis_url: str, redis: Redis) -> None:
    """The model is asked again for the stage that died, and for no stage that was finished."""
    async with Author(*STEPS) as model:
        environment = {"REDIS_URL": redis_url, "GATEWAY_LEASE_SECONDS": "1", **model.environment()}
        async with GatewayProcess("web", environment) as web:
            async with httpx.AsyncClient(timeout=BOUND_SECONDS) as client:
                question = {"chain": "report", "user": "Weather"}
                where = (await client.post(f"{web.url}/stream", json=question)).headers["location"]
            reading = asyncio.create_task(followed(web.url, where))
            async with Jobs(redis_url) as jobs:
                stream_id = where.rpartition("/")[2]
                for number in range(len(STEPS)):
                    async with GatewayProcess("worker", environment) as worker:
                        await jobs.shows(stream_id, ANSWERS[STEPS[number]][0])
                        assert len(model.requests) == 2 * number + 1
                        await worker.kill()
            async with GatewayProcess("worker", environment), asyncio.timeout(BOUND_SECONDS):
                frames = await reading
        assert model.asked() == [step for step in STEPS for _ in range(2)]
    assert frames == await log_of(redis, where)
    check_text(frames)


async def one_delivery(environment: dict[str, str]) -> int:
    """Run one delivery in a process of its own and return the process id."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.once"), cwd=REPOSITORY, env=environment
    )
    async with asyncio.timeout(BOUND_SECONDS):
        assert await process.wait() == 0
    return process.pid


@pytest.mark.timeout(300)
async def test_fault_29_a_chain_longer_than_its_budget_crosses_workers_without_a_seam(
    redis_url: str, redis: Redis
) -> None:
    """Every stage exceeds the time budget. Each of the first deliveries has a process of its own."""
    async with Author() as model:
        environment = {"REDIS_URL": redis_url, **model.environment()}
        environment |= {"GATEWAY_RUN_BUDGET_SECONDS": "0.000001", "GATEWAY_MAX_ATTEMPTS": "1"}
        async with GatewayProcess("web", environment) as web:
            async with httpx.AsyncClient(timeout=BOUND_SECONDS) as client:
                question = {"chain": "report", "user": "Weather"}
                where = (await client.post(f"{web.url}/stream", json=question)).headers["location"]
            reading = asyncio.create_task(followed(web.url, where))
            workers = {await one_delivery(environment) for _ in range(3)}
            settings: dict[str, Any] = {"openai_base_url": f"{model.url}/v1", "openai_api_key": "k"}
            async with Jobs(redis_url, max_attempts=1, run_budget=1e-6, **settings) as jobs:
                while not reading.done():
                    delivery = await jobs.delivery()
                    if (await jobs.runner.run(delivery.body)).again_in_ms is None:
                        await jobs.queue.done(delivery)
                        break
                    await jobs.queue.later(delivery, 0)
                frames = await reading
        assert model.asked() == STEPS
    assert len(workers) == 3
    assert frames == await log_of(redis, where)
    check_text(frames)
    tags = [message.id.partition("-")[2] for message in sse.Decoder().feed(frames)]
    assert len(dict.fromkeys(tags)) == len(STEPS) + 1  # One tag of the web process, and one for each stage.
