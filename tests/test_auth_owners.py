"""Only the owner of a stream has access to it, on both hosts (`docs/protocol.md`, Who asks).

Fault 23: the answer for another owner's stream is the same, byte by byte, as for a stream that does not
exist. `python -m tests.guess` measures the time.
"""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.callers import ALICE, ALICE_TOO, BOB, Guarded, by_key
from tests.hosts import EVENTS, JSON, NOBODY, until
from tests.support.model_server import script

pytest_plugins = ("tests.hosts", "tests.callers")
pytestmark = pytest.mark.asyncio(loop_scope="session")

ASKS: dict[str, tuple[str, str, dict[str, str]]] = {
    "events": ("GET", "", EVENTS),
    "events after one": ("GET", "", {**EVENTS, "last-event-id": "0-0000"}),
    "status": ("GET", "", JSON),
    "cancel": ("DELETE", "", {}),
    "token": ("POST", "/token", {}),
}


def told(answer: httpx.Response) -> tuple[int, dict[str, str], bytes]:
    """Return the whole answer except its `date` header."""
    headers = {name: value for name, value in answer.headers.items() if name != "date"}
    return answer.status_code, headers, answer.content


@pytest.mark.parametrize(("method", "below", "headers"), ASKS.values(), ids=ASKS)
async def test_fault_23_anothers_stream_is_answered_as_none(
    guarded: Guarded, method: str, below: str, headers: dict[str, str]
) -> None:
    running = await guarded.start(ALICE, gate=f"owner-{method}-{below}-{len(headers)}", gate_at=1)
    ended = await guarded.finished(ALICE)
    nobodys = ["/stream/" + place for place in (NOBODY, running[len("/stream/") :][:-1] + "_", "x", "..%00")]
    answers = [
        told(await guarded.http.request(method, where + below, headers={**headers, **by_key(BOB)}))
        for where in (running, ended, *nobodys)
    ]
    status, _, body = answers[0]
    assert status == 404
    assert b'"not_found"' in body
    assert answers.count(answers[0]) == len(answers)
    document = (await guarded.http.get(running, headers={**JSON, **by_key(ALICE)})).json()
    # The other caller's requests have not changed the stream.
    assert document["status"] in ("queued", "running")
    await guarded.http.delete(running, headers=by_key(ALICE))


async def test_fault_23_what_is_past_its_retention_is_told_to_its_owner_only(guarded: Guarded) -> None:
    where = await guarded.finished(ALICE)
    place = where.rpartition("/")[2]
    await guarded.redis.delete(f"{{{place[:2]}}}:log:{place}")
    mine = await guarded.http.get(where, headers=by_key(ALICE))
    others = await guarded.http.get(where, headers=by_key(BOB))
    assert (mine.status_code, others.status_code) == (410, 404)


async def test_the_owner_follows_and_cancels(guarded: Guarded) -> None:
    where = await guarded.start(ALICE, gate=f"mine-{guarded.name}", gate_at=1)

    async def text() -> Any:
        return (await guarded.http.get(where, headers={**JSON, **by_key(ALICE_TOO)})).json()["text"]

    await until(text, lambda seen: seen == "a")
    answer = await guarded.http.delete(where, headers=by_key(ALICE_TOO))
    assert answer.json()["status"] == "cancelled"
    assert b"event: cancelled" in (await guarded.http.get(where, headers=by_key(ALICE))).content


async def test_an_idempotency_key_is_its_owners(guarded: Guarded) -> None:
    async def start(key: str, text: str) -> httpx.Response:
        headers = {**by_key(key), "idempotency-key": f"the same {guarded.name}"}
        return await guarded.http.post("/stream", json={"user": script([text])}, headers=headers)

    first, again, others = [await start(key, "a") for key in (ALICE, ALICE_TOO, BOB)]
    assert [answer.status_code for answer in (first, again, others)] == [202] * 3
    assert first.headers["location"] == again.headers["location"]
    assert first.headers["location"] != others.headers["location"]
    assert (await start(BOB, "b")).json()["code"] == "idempotency_key_reused"


async def test_the_original_samples_endpoint_makes_streams_of_their_callers(guarded: Guarded) -> None:
    body = {"user": script(["a"])}
    answer = await guarded.http.post("/api/http_trigger", json=body, headers=by_key(ALICE))
    where = answer.headers["location"]
    assert b"event: done" in answer.content
    assert (await guarded.http.get(where, headers={**JSON, **by_key(ALICE)})).status_code == 200
    assert (await guarded.http.get(where, headers={**JSON, **by_key(BOB)})).status_code == 404
