"""POST /api/http_trigger: what the original one-function sample answered, on both hosts."""

import json
from typing import Any

import pytest

from gateway import sse
from tests.hosts import EVENTS, Host, Wire, until
from tests.support.model_server import DEFAULT_TEXT, script

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
    assert wire.kinds == ["retry", *["frame"] * (len(texts) + 1)]


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
