"""Row 26 on both hosts: over quota is 429 with Retry-After on POST; reading goes on, and so do the others."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack

import httpx
import pytest

from tests.callers import BOB, MOST_STREAM_READERS, MOST_STREAMS, Guarded, by_key, flooding
from tests.hosts import EVENTS, JSON
from tests.support.model_server import ModelServer, script

pytest_plugins = ["tests.hosts", "tests.callers"]
pytestmark = pytest.mark.asyncio(loop_scope="session")

RETRY_LINE = re.compile(rb"retry: ([0-9]+)\n")


def told_to_wait(answer: httpx.Response, code: str) -> int:
    """The seconds, of a refusal that is as the contract says."""
    assert answer.status_code == 429, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code
    return int(answer.headers["retry-after"])


async def test_fault_26_of_twice_the_quota_half_is_taken_and_reading_goes_on(
    guarded: Guarded, model: ModelServer
) -> None:
    carol, gate = flooding("quota", guarded.name), f"quota-{guarded.name}"
    question = {"user": script(["a", "b"], gate=gate, gate_at=1)}

    async def post(key: str, **headers: str) -> httpx.Response:
        return await guarded.http.post("/stream", json=question, headers={**by_key(key), **headers})

    answers = await asyncio.gather(*(post(carol) for _ in range(2 * MOST_STREAMS)))
    taken = [answer for answer in answers if answer.status_code == 202]
    refused = [answer for answer in answers if answer.status_code != 202]
    assert len(taken) == MOST_STREAMS
    assert {told_to_wait(answer, "over_quota") for answer in refused} == {2}
    assert "streams that are not ended" in refused[0].json()["detail"]
    for path, body in (("/stream", question), ("/api/http_trigger", question)):
        events = {**by_key(carol), **EVENTS}  # a refusal of an event stream is a problem document, too
        told_to_wait(await guarded.http.post(path, json=body, headers=events), "over_quota")

    where = taken[0].headers["location"]
    assert (await guarded.http.get(where, headers={**JSON, **by_key(carol)})).status_code == 200
    assert (await post(BOB)).status_code == 202  # another's quota is another's
    for answer in taken[1:]:
        cancelled = await guarded.http.delete(answer.headers["location"], headers=by_key(carol))
        assert cancelled.json()["status"] == "cancelled"
    assert (await post(carol)).status_code == 202
    model.open_gate(gate)
    read = await guarded.http.get(where, headers={**EVENTS, **by_key(carol)})
    assert b"event: done\n" in read.content


async def test_a_known_key_is_answered_over_quota_too(guarded: Guarded, model: ModelServer) -> None:
    carol, gate = flooding("known", guarded.name), f"quota-key-{guarded.name}"
    question = {"user": script(["a"], gate=gate)}
    headers = {**by_key(carol), "idempotency-key": gate}
    first = await guarded.http.post("/stream", json=question, headers=headers)
    assert first.status_code == 202
    more = await asyncio.gather(
        *(guarded.http.post("/stream", json=question, headers=by_key(carol)) for _ in range(MOST_STREAMS + 1))
    )
    assert 429 in {answer.status_code for answer in more}
    again = await guarded.http.post("/stream", json=question, headers=headers)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    model.open_gate(gate)
    for answer in (first, *more):
        if answer.status_code == 202:
            await guarded.http.delete(answer.headers["location"], headers=by_key(carol))


async def test_readers_past_the_bound_are_told_to_come_back_and_an_event_source_never_gives_up(
    guarded: Guarded, model: ModelServer
) -> None:
    gate = f"readers-{guarded.name}"
    where = await guarded.start(BOB, ["a", "b"], gate=gate, gate_at=1)
    headers = by_key(BOB)
    async with AsyncExitStack() as stack:
        readers = []
        for _ in range(MOST_STREAM_READERS):
            answer = await stack.enter_async_context(
                guarded.http.stream("GET", where, headers={**EVENTS, **headers})
            )
            chunks = answer.aiter_bytes()
            await anext(chunks)  # it is attached
            readers.append(chunks)
        for kind in ({}, {"accept": "text/*"}):
            told_to_wait(await guarded.http.get(where, headers={**headers, **kind}), "too_many_readers")
        sent_away = await guarded.http.get(where, headers={**EVENTS, **headers})
        assert (sent_away.status_code, sent_away.headers["content-type"]) == (200, "text/event-stream")
        line = RETRY_LINE.fullmatch(sent_away.content)
        assert line is not None, sent_away.content
        assert 5000 <= int(line[1]) <= 15_000
        model.open_gate(gate)
        for chunks in readers:
            assert b"event: done\n" in b"".join([chunk async for chunk in chunks])
    read = await guarded.http.get(where, headers={**EVENTS, **headers})
    assert b"event: done\n" in read.content
