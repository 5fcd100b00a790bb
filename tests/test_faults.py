"""Workers that are killed one after another, and clients that disconnect during their POST."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from redis.asyncio import Redis

from gateway import protocol
from gateway.protocol import sse
from gateway.protocol.fold import Fold
from gateway.streams.order import Order
from gateway.streams.start import parse_start
from tests.support.jobs import Jobs
from tests.support.model_server import ModelServer, script
from tests.support.processes import GatewayProcess

pytestmark = pytest.mark.slow
BOUND_SECONDS = 90
EVENTS = {"accept": "text/event-stream"}


# Row 1, five times: a chain whose worker is killed again and again

KILLS = 5
STEP = 6
WORDS = [f"{number} " for number in range(STEP * (KILLS + 1))]


class DyingAudience(ModelServer):
    """A model server whose n-th answer stops after n steps, so that its worker can be killed there.

    The last answer does not stop. If `random` is true, each answer has different words.
    """

    def __init__(self, *, random: bool = False) -> None:
        super().__init__()
        self._random = random

    def words(self, number: int) -> list[str]:
        return [f"{number}:{word}" for word in WORDS] if self._random else WORDS

    def _stream(self, told: dict[str, Any]) -> AsyncIterator[bytes]:
        number = len(self.requests)
        told = {"chunks": self.words(number)}
        if number <= KILLS:
            told |= {"gate": f"never {number}", "gate_at": STEP * number}
        return super()._stream(told)


class Reader:
    """One connection, read to the end.

    At every event, its text must be the beginning of one attempt's text.
    """

    def __init__(self, texts: list[str]) -> None:
        self.kinds: list[str] = []
        self.fold = Fold()
        self._texts = texts
        self._changed = asyncio.Condition()

    async def follow(self, url: str) -> None:
        decoder = sse.Decoder()
        async with (
            httpx.AsyncClient(timeout=BOUND_SECONDS) as client,
            client.stream("GET", url, headers=EVENTS) as answer,
        ):
            assert answer.status_code == 200
            async for raw in answer.aiter_raw():
                for message in decoder.feed(raw):
                    self.take(message)
                async with self._changed:
                    self._changed.notify_all()

    def take(self, message: sse.Message) -> None:
        self.kinds.append(message.type)
        self.fold.feed(message.id, message.event())
        assert any(text.startswith(self.fold.text) for text in self._texts)

    async def until(self, words: str) -> None:
        async with asyncio.timeout(BOUND_SECONDS), self._changed:
            await self._changed.wait_for(lambda: self.fold.text == words)


async def killed_five_times(redis_url: str, model: DyingAudience) -> Reader:
    """Return an attached reader after five workers were killed and the sixth worker has ended the stream."""
    environment = {"REDIS_URL": redis_url, "GATEWAY_LEASE_SECONDS": "1", **model.environment()}
    reader = Reader(["".join(model.words(number)) for number in range(1, KILLS + 2)])
    async with GatewayProcess("web", environment) as web:
        async with httpx.AsyncClient(timeout=BOUND_SECONDS) as client:
            where = (await client.post(f"{web.url}/stream", json={"user": "q"})).headers["location"]
        following = asyncio.create_task(reader.follow(web.url + where))
        for number in range(1, KILLS + 1):
            async with GatewayProcess("worker", environment) as worker:
                await reader.until("".join(model.words(number)[: STEP * number]))
                await worker.kill()
        async with GatewayProcess("worker", environment), asyncio.timeout(BOUND_SECONDS):
            await following
    assert len(model.requests) == KILLS + 1, reader.kinds[-5:]
    assert reader.kinds[-1] == "done"
    return reader


@pytest.mark.timeout(300)
async def test_fault_01_a_deterministic_chain_killed_five_times_is_exact_without_a_reset(
    redis_url: str,
) -> None:
    async with DyingAudience() as model:
        reader = await killed_five_times(redis_url, model)
        assert "reset" not in reader.kinds
        assert reader.kinds.count("message") == len(WORDS)
        assert reader.fold.text == "".join(WORDS)


@pytest.mark.timeout(300)
async def test_fault_01_a_random_chain_killed_five_times_is_one_attempts_text(redis_url: str) -> None:
    async with DyingAudience(random=True) as model:
        reader = await killed_five_times(redis_url, model)
        assert 1 <= reader.kinds.count("reset") <= KILLS
        assert reader.fold.text == "".join(model.words(KILLS + 1))


# Row 7: the client disconnects during its POST, and returns with its idempotency key

CLIENTS = 20


async def goes_away(url: str, question: dict[str, Any], key: str, *, roughly: bool) -> None:
    """Send a complete POST without waiting for the answer. If `roughly` is true, reset the connection."""
    where = urlsplit(url)
    request = httpx.Request("POST", f"{url}/stream", json=question, headers={"idempotency-key": key})
    lines = [b"POST /stream HTTP/1.1", *(name + b": " + value for name, value in request.headers.raw)]
    _, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + request.content)
    if roughly:
        await writer.drain()
        writer.transport.abort()
    else:
        writer.close()
        await writer.wait_closed()


async def test_fault_07_a_client_gone_during_its_post_has_one_stream_when_it_comes_back(
    redis_url: str, redis: Redis
) -> None:
    async with ModelServer() as model:
        environment = {"REDIS_URL": redis_url, **model.environment()}
        async with (
            GatewayProcess("all", environment) as both,
            httpx.AsyncClient(base_url=both.url, timeout=BOUND_SECONDS) as client,
        ):

            async def lives_through_it(number: int) -> httpx.Response:
                question, key = {"user": script([f"{number}", "."])}, f"key {number}"
                await goes_away(both.url, question, key, roughly=number % 2 == 0)
                return await client.post("/stream", json=question, headers={**EVENTS, "idempotency-key": key})

            answers = await asyncio.gather(*(lives_through_it(number) for number in range(CLIENTS)))
        assert all(b"event: done\n" in answer.content for answer in answers)
        asked = [request["messages"][-1]["content"] for request in model.requests]
    assert sorted(asked) == sorted(script([f"{number}", "."]) for number in range(CLIENTS))
    assert len([key async for key in redis.scan_iter("*:job:*")]) == CLIENTS


async def test_fault_07_a_post_that_died_between_record_and_queue_is_finished_by_the_next(
    redis_url: str,
) -> None:
    async with ModelServer() as model:
        environment = {"REDIS_URL": redis_url, **model.environment()}
        question = {"user": script(["a", "b"])}
        async with GatewayProcess("all", environment) as both:
            made = await record_without_a_job(redis_url, question, "k")
            async with httpx.AsyncClient(base_url=both.url, timeout=BOUND_SECONDS) as client:
                headers = {**EVENTS, "idempotency-key": "k"}
                answers = [await client.post("/stream", json=question, headers=headers) for _ in range(2)]
        assert {answer.headers["x-stream-id"] for answer in answers} == {made}
        assert all(b"event: done\n" in answer.content for answer in answers)
        assert len(model.requests) == 1


async def record_without_a_job(redis_url: str, question: dict[str, Any], key: str) -> str:
    """Leave the record of a web process that was killed after its first command to the store."""
    async with Jobs(redis_url) as jobs:
        start = parse_start(question, jobs.gateway.chains)
        order = Order(start, protocol.ANONYMOUS, key)
        key_hash = order.key_hash
        stream_id = protocol.new_stream_id(key_hash)
        creation = jobs.gateway.parts.creation
        fields = creation._fields(order, 1)
        answer = await creation._record(stream_id, start, key_hash, fields)
        assert answer == ("created", stream_id)
        assert await jobs.queue.depth() == 0
        return stream_id
