"""Rows 95 to 97 of docs/faults.md: no worker runs for longer than ended streams are kept.

A stream that has not ended stays readable, or it ends with an error that its readers receive.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from gateway.protocol import sse
from gateway.store.log import Log
from tests.support.clock import ClockServer
from tests.support.jobs import eventually
from tests.support.model_server import ModelServer, script
from tests.support.processes import GatewayProcess

# Seconds of the retention, and also of the tombstone. No ended stream exists for longer than twice this.
KEPT_SECONDS = 60
OUTAGE_SECONDS = 3 * KEPT_SECONDS
LIMIT_SECONDS = 60
JSON = {"accept": "application/json"}
EVENTS = {"accept": "text/event-stream"}


class Reader:
    """A connection that follows a stream until the server closes it."""

    def __init__(self, http: httpx.AsyncClient, where: str) -> None:
        self.raw = b""
        self.task = asyncio.create_task(self._read(http, where), name=f"reader-of-{where}")

    async def _read(self, http: httpx.AsyncClient, where: str) -> None:
        async with http.stream("GET", where, headers=EVENTS) as answer:
            assert answer.status_code == 200
            async for chunk in answer.aiter_raw():
                self.raw += chunk

    def messages(self) -> list[sse.Message]:
        return sse.Decoder().feed(self.raw)

    async def shows(self, count: int) -> None:
        """Wait until the reader has received `count` events."""

        async def condition() -> bool:
            return len(self.messages()) >= count

        await eventually(condition, LIMIT_SECONDS)

    async def ended(self) -> list[sse.Message]:
        """Wait until the server has closed the connection, and return all events."""
        async with asyncio.timeout(LIMIT_SECONDS):
            await self.task
        return self.messages()


class Outage:
    """A store with a clock that the test moves, a web process, and only the workers that the test starts."""

    def __init__(
        self,
        server: ClockServer,
        redis: Redis,
        model: ModelServer,
        http: httpx.AsyncClient,
        env: dict[str, str],
    ) -> None:
        self._server = server
        self._env = env
        self._moved = 0
        self._readers: list[Reader] = []
        self.redis, self.model, self.http = redis, model, http

    def worker(self) -> GatewayProcess:
        return GatewayProcess("worker", self._env)

    def reader(self, where: str) -> Reader:
        self._readers.append(Reader(self.http, where))
        return self._readers[-1]

    async def close(self) -> None:
        for reader in self._readers:
            reader.task.cancel()
        await asyncio.gather(*(reader.task for reader in self._readers), return_exceptions=True)

    async def post(self, content: str) -> str:
        """Start a stream, and return its location.

        The idempotency key is made from the question, so the same question gives the same stream.
        """
        key = {"idempotency-key": hashlib.sha256(content.encode()).hexdigest()}
        answer = await self.http.post("/stream", json={"user": content}, headers=key)
        assert answer.status_code == 202, answer.text
        return answer.headers["location"]

    async def passes(self, seconds: int) -> None:
        """Move the store's clock forward by this many seconds."""
        await self.all_expire()
        self._moved += seconds
        await self._server.move(self._moved)

    async def all_expire(self) -> None:
        """Check that every key of the store has an expiry."""
        keys = [key async for key in self.redis.scan_iter("*")]
        assert [key for key in keys if await self.redis.ttl(key) == -1] == []

    async def document(self, where: str) -> dict[str, Any]:
        answer = await self.http.get(where, headers=JSON)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def log(self, where: str) -> bytes:
        text = await self.redis.get(Log.keys(where.rpartition("/")[2])[1])
        assert isinstance(text, bytes)
        return text

    async def done(self, where: str) -> dict[str, Any]:
        """Wait until the stream is `done`, and return its status document."""

        async def condition() -> bool:
            return bool((await self.document(where))["status"] == "done")

        await eventually(condition, LIMIT_SECONDS)
        return await self.document(where)

    async def running(self, content: str) -> str:
        """Start a stream, kill its worker while the model answers, and return the stream's location."""
        asked = len(self.model.requests)
        where = await self.post(content)
        async with self.worker() as worker:
            await self.model.until(requests=asked + 1)
            await self.reader(where).shows(3)  # The events are start, stage and one text.
            await worker.kill()
        return where


@asynccontextmanager
async def outage(folder: Path, **settings: str) -> AsyncIterator[Outage]:
    async with ClockServer(folder) as server, ModelServer() as model, Redis.from_url(server.url) as redis:
        env = {
            **model.environment(),
            "REDIS_URL": server.url,
            "GATEWAY_LEASE_SECONDS": "1",
            "GATEWAY_WORKER_CONCURRENCY": "1",
            "GATEWAY_RETENTION_SECONDS": str(KEPT_SECONDS),
            "GATEWAY_TOMBSTONE_SECONDS": str(KEPT_SECONDS),
            **settings,
        }
        async with (
            GatewayProcess("web", env) as web,
            httpx.AsyncClient(base_url=web.url, timeout=LIMIT_SECONDS) as http,
        ):
            out = Outage(server, redis, model, http, env)
            try:
                yield out
                await out.all_expire()
            finally:
                await out.close()


def failed_with(messages: list[sse.Message]) -> tuple[str, bool]:
    """Return the code and `retryable` of the terminal event. It is the last event, and it is `failed`."""
    assert messages[-1].type == "failed"
    told = json.loads(messages[-1].data)
    return told["code"], told["retryable"]


@pytest.mark.slow
async def test_fault_95_what_runs_and_what_is_queued_outlives_an_outage_of_all_workers(
    tmp_path: Path,
) -> None:
    """The outage is longer than the retention and the tombstone together.

    Both streams still exist, readers can follow them, and both end with a correct log.
    """
    async with outage(tmp_path) as out:
        begun = await out.running(script(["a", "b", "c"], gate="open", gate_at=1))
        question = script(["x", "y"])
        waits = await out.post(question)
        attached = [out.reader(where) for where in (begun, waits)]
        await attached[0].shows(3)
        await attached[1].shows(1)
        await out.passes(OUTAGE_SECONDS)
        assert [(await out.document(where))["status"] for where in (begun, waits)] == ["running", "queued"]
        late = [out.reader(where) for where in (begun, waits)]
        await late[0].shows(3)
        await late[1].shows(1)
        assert await out.post(question) == waits  # Its Idempotency-Key lasts as long as the stream.
        await out.all_expire()
        out.model.open_gate("open")
        async with out.worker():
            for where, text, readers in (
                (begun, "abc", (attached[0], late[0])),
                (waits, "xy", (attached[1], late[1])),
            ):
                document = await out.done(where)
                log = await out.log(where)
                assert (document["text"], b"event: reset" in log) == (text, False)
                for reader in readers:
                    assert [m.id for m in await reader.ended()] == [m.id for m in sse.Decoder().feed(log)]
                    assert reader.messages()[-1].type == "done"
                assert 0 < await out.redis.ttl(Log.keys(where.rpartition("/")[2])[1]) <= KEPT_SECONDS


@pytest.mark.slow
async def test_fault_96_who_waits_for_what_no_worker_begins_is_told(tmp_path: Path) -> None:
    """No worker runs. The web process that serves the readers ends the stream and sends them the end."""
    async with outage(tmp_path, GATEWAY_MAX_WAIT_SECONDS=str(OUTAGE_SECONDS)) as out:
        attached, asked, unwatched = [await out.post(f"q{number}") for number in range(3)]
        reader = out.reader(attached)
        await reader.shows(1)
        await out.passes(OUTAGE_SECONDS + 1)
        messages = await reader.ended()
        assert [message.type for message in messages] == ["start", "failed"]
        assert failed_with(messages) == ("wait_limit", True)
        document = await out.document(asked)
        assert (document["status"], document["error"]["code"]) == ("failed", "wait_limit")
        async with out.worker():  # It finds the third stream by its message or by the sweeper.

            async def told() -> bool:
                return b"event: failed\n" in await out.log(unwatched)

            await eventually(told, LIMIT_SECONDS)
        assert out.model.requests == []


@pytest.mark.slow
async def test_fault_97_who_waits_for_what_nobody_runs_to_its_end_is_told(tmp_path: Path) -> None:
    async with outage(tmp_path, GATEWAY_MAX_RUN_SECONDS=str(OUTAGE_SECONDS)) as out:
        begun = await out.running(script(["a", "b"], gate="never", gate_at=1))
        reader = out.reader(begun)
        await reader.shows(3)
        await out.passes(OUTAGE_SECONDS + 1)
        messages = await reader.ended()
        assert failed_with(messages) == ("time_limit", False)
        document = await out.document(begun)
        # The text that the stream has sent stays.
        assert (document["status"], document["text"]) == ("failed", "a")
