"""kill -9 at every step of a question and its answer: one run continues, and every log is exact."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from redis.asyncio import Redis

from gateway.protocol import Event, sse
from tests.support.killing import POINTS
from tests.support.processes import GatewayProcess

pytestmark = pytest.mark.slow
BOUND_SECONDS = 60


class Reborn:
    """A gateway with web and worker in one process. It is restarted when it has died."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._lives = AsyncExitStack()
        self.lives = 0

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._lives.aclose()

    async def _begin(self) -> None:
        await self._lives.aclose()
        process = await self._lives.enter_async_context(GatewayProcess("all", self._environment))
        self._http = await self._lives.enter_async_context(
            httpx.AsyncClient(base_url=process.url, timeout=BOUND_SECONDS)
        )
        self.lives += 1

    async def ask(self, call: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]) -> httpx.Response:
        while True:
            try:
                return await call(self._http)
            except httpx.TransportError:
                await self._begin()

    async def post(self, path: str, body: Any, **headers: str) -> Any:
        answer = await self.ask(lambda http: http.post(path, json=body, headers=headers))
        assert answer.status_code == 202, answer.text
        return answer.json()

    async def events(self, stream_id: str) -> list[Event]:
        """Return all events of the stream, read on one connection to its end."""
        accept = {"accept": "text/event-stream"}
        answer = await self.ask(lambda http: http.get(f"/stream/{stream_id}", headers=accept))
        return [message.event() for message in sse.Decoder().feed(answer.content)]


def said(events: list[Event]) -> str:
    return "".join(event.data["delta_content"] for event in events if event.type == "")


@pytest.mark.timeout(300)
async def test_processes_killed_at_every_step_of_a_question_and_its_answer(
    redis_url: str, redis: Redis, tmp_path: Path
) -> None:
    environment = {
        "REDIS_URL": redis_url,
        "GATEWAY_CHAINS": "tests.support.killing",
        "GATEWAY_MODEL": "none",
        "GATEWAY_LEASE_SECONDS": "1",
        "OPENAI_BASE_URL": "http://127.0.0.1:9",
        "KILLED": str(tmp_path),
    }
    async with Reborn(environment) as gateway:
        start = {"chain": "asks-and-dies", "input": {"text": "q"}}
        first = await gateway.post("/stream", start, **{"idempotency-key": "one"})
        streams = [first["id"]]
        logs = [await gateway.events(first["id"])]
        for answer in (1, 2):
            [asked] = logs[-1][-1].data["interrupts"]
            body = {"responses": [{"interrupt_id": asked["id"], "response": answer}]}
            resumed = await gateway.post(f"/stream/{streams[-1]}/resume", body)
            assert resumed["resumes"] == streams[-1]
            streams.append(resumed["id"])
            logs.append(await gateway.events(resumed["id"]))
    assert sorted(os.listdir(tmp_path)) == sorted(POINTS)
    assert gateway.lives == 1 + len(POINTS)
    assert list(map(said, logs)) == ["well then", "", "first=1 second=2"]
    assert [event.type for log in logs for event in log if event.type in ("reset", "failed")] == []
    assert [log[-1].data["finish_reason"] for log in logs] == ["interrupted", "interrupted", "stop"]
    made = {str(key).rpartition(":")[2].rstrip("'") for key in await redis.keys("*:job:*")}
    assert made == set(streams)
