"""A response that must not be stored: some seconds after its end nothing of it is left, on both hosts."""

from __future__ import annotations

import uuid
from functools import partial
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from tests.callers import ALICE, BOB, CAROL, Guarded, by_key
from tests.hosts import EVENTS, JSON, Wire, until
from tests.mortals import Mortal
from tests.support.everything import keys_with
from tests.support.model_server import ModelServer, script

pytest_plugins = ("tests.hosts", "tests.callers", "tests.mortals")
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

LONGEST_MS = 10_000
SLOW = {"x-stainless-retry-count": "0"}  # OpenAI's clients send this header.


async def made(
    http: httpx.AsyncClient, words: str, headers: dict[str, str], **options: Any
) -> tuple[str, str]:
    """Start a response with these words in its question, answer, metadata and keys.

    Return its id and its stream's id.
    """
    asked = {
        "model": "chat",
        "input": script(**({"chunks": [words, " said"]} | options), canary=words),
        "instructions": f"say {words}",
        "metadata": {"about": words},
        "background": True,
        "store": False,
    }
    answer = await http.post("/v1/responses", json=asked, headers=headers)
    assert answer.status_code == 200, answer.text
    stream_id = answer.json()["id"].removeprefix("resp_")
    return stream_id, f"/stream/{stream_id}"


async def left(redis: Redis, words: str, stream_id: str) -> set[str]:
    """Return the keys with the words and the keys with the id, except the counter of this minute's starts."""
    named = {key for key in await keys_with(redis, stream_id) if not key.endswith(":starts")}
    return named | await keys_with(redis, words)


async def at_the_end(redis: Redis, stream_id: str) -> None:
    """Check that the store itself soon deletes log and record, even if all processes die."""
    for kind in ("log", "job"):
        assert await redis.pttl(f"{{{stream_id[:2]}}}:{kind}:{stream_id}") <= LONGEST_MS


async def refused_as_previous(http: httpx.AsyncClient, stream_id: str, who: dict[str, str]) -> None:
    asked = {"model": "chat", "input": "more", "previous_response_id": f"resp_{stream_id}"}
    answer = await http.post("/v1/responses", json=asked, headers=who)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "previous_response_not_found")
    assert (error["type"], error["param"]) == ("invalid_request_error", "previous_response_id")


async def tokens(guarded: Guarded, who: str) -> int:
    told = (await guarded.http.get("/usage", headers=by_key(who))).json()
    used: int = told["day"]["total_tokens"]
    return used


@pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
async def test_fault_82_whatever_its_end_nothing_is_left_but_what_it_has_used(
    guarded: Guarded, model: ModelServer, end: str
) -> None:
    words, gate = f"unstored{uuid.uuid4().hex}", f"unstored {guarded.name} {end}"
    options: dict[str, Any] = {
        "done": {},
        "failed": {"gate": gate, "gate_at": 1, "status": 400},
        "cancelled": {"gate": gate, "gate_at": 1},
    }[end]
    who, before = by_key(CAROL), await tokens(guarded, CAROL)
    key = {"idempotency-key": words} if end == "cancelled" else SLOW
    stream_id, where = await made(guarded.http, words, {**who, **key}, **options)
    if end == "cancelled":
        assert (await guarded.http.delete(where, headers=who)).status_code == 200
    model.open_gate(gate)
    wire = Wire((await guarded.http.get(where, headers={**EVENTS, **who})).content)
    assert wire.events[-1] == end  # A reader that was cut just now or comes late gets the end, too.
    await at_the_end(guarded.redis, stream_id)
    assert await keys_with(guarded.redis, words)
    await refused_as_previous(guarded.http, stream_id, who)
    await until(partial(left, guarded.redis, words, stream_id), lambda keys: not keys)
    for accept in (EVENTS, JSON):
        gone = await guarded.http.get(where, headers={**accept, **who})
        assert (gone.status_code, gone.json()["code"]) == (404, "not_found")
    rows = (await guarded.http.get("/streams", headers=who)).json()["streams"]
    assert stream_id not in {row["id"] for row in rows}
    assert (await guarded.http.post(f"{where}/retry", headers=who)).status_code == 404
    await refused_as_previous(guarded.http, stream_id, who)
    if end == "done":
        assert await tokens(guarded, CAROL) > before


async def test_anothers_and_those_that_are_stored_stay(guarded: Guarded) -> None:
    words, theirs = (f"both{uuid.uuid4().hex}" for _ in range(2))
    stream_id, _ = await made(guarded.http, words, by_key(ALICE))
    asked = {"model": "chat", "input": script([theirs], canary=theirs)}
    kept = await guarded.http.post("/v1/responses", json=asked, headers=by_key(BOB))
    await until(partial(left, guarded.redis, words, stream_id), lambda keys: not keys)
    told = await guarded.http.get(f"/v1/responses/{kept.json()['id']}", headers=by_key(BOB))
    assert (told.status_code, told.json()["status"]) == (200, "completed")
    assert await keys_with(guarded.redis, theirs)


async def test_its_feed_tells_of_it_without_metadata_and_then_no_more(guarded: Guarded) -> None:
    words = f"fed{uuid.uuid4().hex}"
    seen = ""
    async with guarded.http.stream("GET", "/streams", headers={**EVENTS, **by_key(ALICE)}) as feed:
        chunks = feed.aiter_text()
        seen += await anext(chunks)  # The feed is open.
        stream_id, _ = await made(guarded.http, words, by_key(ALICE))
        while not any("event: ended" in frame and stream_id in frame for frame in seen.split("\n\n")[:-1]):
            seen += await anext(chunks)
    assert words not in seen
    await until(partial(left, guarded.redis, words, stream_id), lambda keys: not keys)


async def test_fault_82_a_killed_workers_response_leaves_nothing_either(mortal: Mortal) -> None:
    words, gate = f"killed{uuid.uuid4().hex}", f"unstored kill {mortal.name}"
    async with (
        httpx.AsyncClient(base_url=mortal.url, timeout=30) as http,
        Redis.from_url(mortal.environment["REDIS_URL"]) as redis,
    ):
        options = {"chunks": [words, "b", "c"], "gate": gate, "gate_at": 1}
        async with mortal.worker() as first:
            stream_id, where = await made(http, words, {}, **options)
            await until(
                partial(http.get, where, headers=JSON), lambda told: words in (told.json()["text"] or "")
            )
            await first.kill()
        mortal.model.open_gate(gate)
        async with mortal.worker():
            wire = Wire((await http.get(where, headers=EVENTS)).content)
            assert wire.events[-1] == "done"
            await at_the_end(redis, stream_id)
            await until(partial(left, redis, words, stream_id), lambda keys: not keys)
