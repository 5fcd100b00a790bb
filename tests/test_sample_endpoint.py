"""POST /api/http_trigger: what the original one-function sample answered, on both hosts."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from gateway import protocol
from gateway.protocol import sse
from gateway.store.log import Log
from gateway.web.streams import _texts
from tests.hosts import (
    EVENTS,
    HOST_NAMES,
    LIMIT_SECONDS,
    Host,
    Wire,
    functions_host,
    until,
    uvicorn_host,
)
from tests.support.following import DONE, Stream, connected, text
from tests.support.model_server import DEFAULT_TEXT, ModelServer, script
from tests.support.redis_server import RedisServer

pytest_plugins = ("tests.hosts",)
pytestmark = pytest.mark.asyncio(loop_scope="session")

URL = "/api/http_trigger"


async def test_the_samples_body_is_answered_by_the_samples_frames(host: Host) -> None:
    answer = await host.http.post(URL, json={"user": "Who are you?"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream"
    wire = Wire(answer.content)
    texts = [json.loads(data) for data in wire.data[:-1]]
    assert {text["deployment"] for text in texts} == {"scripted"}
    assert "".join(text["delta_content"] for text in texts) == DEFAULT_TEXT + " "
    kinds = [kind for kind in wire.kinds if kind != "beat"]  # a busy machine may be slow to answer
    assert kinds == ["retry", *["frame"] * (len(texts) + 1)]


async def test_only_text_and_the_terminal_event_are_sent_as_they_stand_in_the_log(host: Host) -> None:
    answer = await host.http.post(URL, json={"user": script(["a", "b"])})
    wire = Wire(answer.content)
    assert wire.events == ["message", "message", "done"]
    frames = sse.split_frames(await host.log(answer.headers["location"]))
    assert wire.frames == b"".join(frames[i] for i in (2, 3, 5))


async def test_it_is_resumable_by_get(host: Host) -> None:
    answer = await host.http.post(URL, json={"user": script(["a", "b"])})
    wire = Wire(answer.content)
    where = f"/stream/{answer.headers['x-stream-id']}"
    assert where == answer.headers["location"]
    assert (await host.read(where, wire.ids[0])).events == ["message", "stage", "done"]
    ended = await host.http.get(where, headers={"last-event-id": wire.ids[-1]})
    assert ended.status_code == 204


async def test_a_reader_that_goes_away_costs_nothing(host: Host) -> None:
    gate = f"sample-{host.name}"
    body = {"user": script(["a", "b"], gate=gate, gate_at=1)}
    async with host.http.stream("POST", URL, json=body) as answer:
        first = Wire(await anext(answer.aiter_bytes()))
    assert first.events == ["message"]
    host.model.open_gate(gate)
    where = answer.headers["location"]
    assert (await host.read(where, first.ids[0])).events == ["message", "stage", "done"]


async def test_a_failure_and_a_cancellation_are_told(host: Host) -> None:
    answer = await host.http.post(URL, json={"user": script([], status=400)})
    assert Wire(answer.content).events == ["failed"]
    gate = f"sample-cancel-{host.name}"
    body = {"user": script(["a", "b"], gate=gate, gate_at=1)}
    async with host.http.stream("POST", URL, json=body) as live:
        chunks = live.aiter_bytes()
        raw = await anext(chunks)
        await host.http.delete(live.headers["location"])
        wire = Wire(raw + b"".join([chunk async for chunk in chunks]))
    assert wire.events == ["message", "cancelled"]


async def test_accept_does_not_change_it(host: Host) -> None:
    for headers in (EVENTS, {"accept": "application/json"}, {"accept": "text/plain"}):
        answer = await host.http.post(URL, json={"user": script(["a"])}, headers=headers)
        assert Wire(answer.content).events == ["message", "done"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"user": ""}, 422),
        ({"user": 7}, 422),
        ({"user": None}, 422),
        ({"user": "x", "chain": "chat"}, 422),
        ({"messages": [{"role": "user", "content": "x"}]}, 422),
        ([], 422),
        ("Who are you?", 422),
    ],
)
async def test_bad_input_is_answered_as_everywhere_else(host: Host, body: Any, status: int) -> None:
    before = await host.stored()
    answer = await host.http.post(URL, json=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "invalid"
    assert await host.stored() == before


async def test_it_goes_through_the_same_queue_and_record(host: Host) -> None:
    _, queued = await host.stored()
    answer = await host.http.post(URL, json={"user": script(["a"])})
    assert (await host.stored())[1] == queued + 1
    document = await until(lambda: host.status(answer.headers["location"]), lambda seen: seen["ended_at"])
    assert (document["status"], document["chain"], document["text"]) == ("done", "chat", "a")


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=HOST_NAMES)
async def workerless(request: pytest.FixtureRequest, model: ModelServer) -> AsyncIterator[tuple[Host, str]]:
    """A host on a store of its own, where the test itself is the worker."""
    async with RedisServer() as redis:
        host = uvicorn_host(model, redis.url, "web") if request.param == "uvicorn" else None
        async with host or functions_host(model, redis.url) as running:
            yield running, redis.url


async def test_it_ends_where_another_attempt_begins_anew(workerless: tuple[Host, str]) -> None:
    """A client that knows no `reset` is never handed the texts of two attempts as one."""
    host, store_url = workerless
    async with connected(store_url) as connection, asyncio.timeout(LIMIT_SECONDS):
        async with host.http.stream("POST", URL, json={"user": "q"}) as live:
            stream = Stream(Log(connection), live.headers["x-stream-id"])
            await stream.claim()
            began = await stream.write(protocol.stage("answer", run=1, index=0, count=1))
            await stream.texts("one ", "attempt's ")
            chunks = live.aiter_bytes()
            raw = b""
            while b"attempt's" not in raw:
                raw += await anext(chunks)
            await stream.take_over()
            await stream.write(void(began), text("the other's"))
            raw += b"".join([chunk async for chunk in chunks])  # to a clean end, while the stream goes on
        wire = Wire(raw)
        assert [json.loads(data)["delta_content"] for data in wire.data] == ["one ", "attempt's "]
        await stream.end()
    rest = await host.read(live.headers["location"], wire.ids[-1])
    assert rest.events == ["reset", "message", "done"]


@pytest.mark.parametrize("size", range(1, 8))
async def test_however_it_is_handed_over_nothing_after_a_reset_is_sent(size: int) -> None:
    events = [protocol.stage("answer", run=1, index=0, count=1), text("a"), text("b"), void("0-beef")]
    frames = [sse.encode(event, n, "beef") for n, event in enumerate([*events, text("c"), DONE])]

    async def chunks() -> AsyncGenerator[bytes, None]:
        for at in range(0, len(frames), size):
            yield sse.HEARTBEAT
            yield b"".join(frames[at : at + size])

    sent = [chunk async for chunk in _texts(chunks()) if chunk != sse.HEARTBEAT]
    assert b"".join(sent) == frames[1] + frames[2]


def void(began: str) -> protocol.Event:
    return protocol.reset(attempt=2, stage_name="answer", discard_after=began, reason="attempt_differs")
