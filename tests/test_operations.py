"""Readiness, metrics and one log line for each request are the same on both hosts."""

from __future__ import annotations

import json
import re

import pytest

from tests.callers import ALICE, METRICS_KEY, Guarded, by_key
from tests.hosts import EVENTS, JSON, NOBODY, until

pytest_plugins = ("tests.hosts", "tests.callers")
pytestmark = pytest.mark.asyncio(loop_scope="session")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
_VALUE = re.compile(r' ([a-z]+)=("(?:[^"\\]|\\.)*"|\S+)')


def lines(host: Guarded, what: str, **wanted: object) -> list[dict[str, str]]:
    """Return the values of each line in a host's log that has this kind and the wanted values, in order."""
    found = []
    for line in host.log().splitlines():
        _, kind, rest = line.partition(f"holdfast.{what} {what}")
        if kind:
            values = {name: json.loads(v) if v[0] == '"' else v for name, v in _VALUE.findall(rest)}
            if all(values.get(name) == str(value) for name, value in wanted.items()):
                found.append(values)
    return found


async def line(host: Guarded, what: str, **wanted: object) -> dict[str, str]:
    """Wait until the host's log has a line with the wanted values, and return the values of that one line."""

    async def look() -> list[dict[str, str]]:
        return lines(host, what, **wanted)

    [found] = await until(look, bool)
    return found


async def test_probes_need_no_leave(guarded: Guarded) -> None:
    for path in ("/health", "/ready"):
        assert (await guarded.http.get(path)).status_code == 200


async def test_metrics_ask_for_their_own_key(guarded: Guarded) -> None:
    answer = await guarded.http.get("/metrics", headers=by_key(METRICS_KEY))
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert "\nprocess_resident_memory_bytes " in answer.text
    for wrong in ({}, by_key(ALICE), by_key(METRICS_KEY + "x"), {"x-api-key": METRICS_KEY}):
        refused = await guarded.http.get("/metrics", headers=wrong)
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
    assert (await guarded.http.get(f"/metrics?token={METRICS_KEY}")).status_code == 401


async def test_both_hosts_count_what_was_asked_and_refused(guarded: Guarded) -> None:
    where = await guarded.finished(ALICE)
    assert (await guarded.http.get(where)).status_code == 401

    async def shown() -> str:
        return (await guarded.http.get("/metrics", headers=by_key(METRICS_KEY))).text

    def counted(text: str) -> bool:
        return all(
            re.search(pattern, text, re.MULTILINE)
            for pattern in (
                r'^holdfast_streams_started_total\{chain="chat"\} [1-9]',
                r'^holdfast_streams_ended_total\{code="",status="done"\} [1-9]',
                r'^holdfast_refusals_total\{code="unauthorized"\} [1-9]',
                r'^holdfast_request_seconds_count\{method="POST",route="/stream",status="2xx"\} [1-9]',
                r'^holdfast_request_seconds_count\{method="GET",route="/stream/\{id\}",status="4xx"\} [1-9]',
                r"^holdfast_queue_depth [0-9]",
                r"^holdfast_readers 0.0",
            )
        )

    await until(shown, counted)


async def test_one_line_for_a_request_with_who_what_and_how_it_was_answered(guarded: Guarded) -> None:
    caller = {**by_key(ALICE), "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    answer = await guarded.http.post("/stream", json={"user": "?"}, headers=caller)
    stream = answer.json()["id"]
    told = await line(guarded, "request", stream=stream, method="POST")
    assert float(told.pop("ms")) > 0
    assert told == {
        "method": "POST",
        "route": "/stream",
        "status": "202",
        "stream": stream,
        "owner": "key:alice",
        "trace": TRACE,
    }
    await guarded.http.delete(f"/stream/{stream}", headers=by_key(ALICE))
    told = await line(guarded, "request", stream=stream, method="DELETE")
    assert (told["status"], told["route"], told["owner"]) == ("200", "/stream/{id}", "key:alice")


async def test_a_refusal_is_told_by_its_code(guarded: Guarded) -> None:
    nobody = f"{NOBODY[:-4]}ops{guarded.name[0]}"
    await guarded.http.get(f"/stream/{nobody}?token=not-to-be-told", headers=by_key(ALICE))
    told = await line(guarded, "request", stream=nobody)
    assert (told["status"], told["code"], told["owner"]) == ("404", "not_found", "key:alice")
    assert "not-to-be-told" not in guarded.log()


async def test_an_event_streams_line_comes_at_its_end_with_bytes_and_reason(guarded: Guarded) -> None:
    where = await guarded.start(ALICE)
    stream = where.rpartition("/")[2]
    whole = await guarded.http.get(where, headers={**EVENTS, **by_key(ALICE)})
    told = await line(guarded, "request", stream=stream, method="GET")
    assert (told["ended"], told["bytes"]) == ("terminal", str(len(whole.content)))
    token = (await guarded.token(where, ALICE))["token"]
    await guarded.http.get(f"{where}?token={token}", headers=EVENTS)
    told = await line(guarded, "request", stream=stream, by="token")
    assert (told["ended"], told["owner"]) == ("terminal", "key:alice")


async def test_a_reader_that_goes_is_told_as_gone(guarded: Guarded) -> None:
    where = await guarded.start(ALICE, gate=f"gone-{guarded.name}", gate_at=1)
    stream = where.rpartition("/")[2]
    headers = {**EVENTS, **by_key(ALICE)}
    async with guarded.http.stream("GET", where, headers=headers) as reader:
        await anext(reader.aiter_raw())
        assert not lines(guarded, "request", stream=stream, method="GET")
    told = await line(guarded, "request", stream=stream, method="GET")
    assert told["ended"] == "gone"
    assert int(told["bytes"]) > 0
    await guarded.http.delete(where, headers=by_key(ALICE))


async def test_one_line_for_an_attempt_with_what_it_came_to(guarded: Guarded) -> None:
    where = await guarded.finished(ALICE)
    stream = where.rpartition("/")[2]
    told = await line(guarded, "attempt", stream=stream)
    document = (await guarded.http.get(where, headers={**JSON, **by_key(ALICE)})).json()
    assert json.loads(told.pop("usage")) == document["usage"]
    assert int(told.pop("ms")) >= 0
    assert int(told.pop("bytes")) > 100
    assert len(told.pop("trace")) == 32
    assert told == {
        "stream": stream,
        "owner": "key:alice",
        "chain": "chat",
        "attempt": "1",
        "word": "ok",
        "status": "done",
        "events": "5",
    }


async def test_a_good_probe_is_told_at_debug_only(guarded: Guarded) -> None:
    await guarded.http.get("/ready")

    async def probes() -> list[str]:
        return [text for text in guarded.log().splitlines() if "route=/ready" in text]

    assert all("DEBUG holdfast.request" in text for text in await until(probes, bool))
