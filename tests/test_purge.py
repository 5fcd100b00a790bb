"""DELETE /stream/{id}?purge=true, and DELETE of tokens, on both hosts, with two owners."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import httpx
import pytest

from tests.callers import ALICE, BOB, Guarded, by_key
from tests.hosts import EVENTS, JSON, Wire, until
from tests.support.everything import keys_with
from tests.support.jobs import eventually
from tests.support.model_server import ModelServer, script

pytest_plugins = ("tests.hosts", "tests.callers")
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def post(guarded: Guarded, words: str, key: str = "", **body: Any) -> httpx.Response:
    """A start whose question and answer have these words."""
    asked = {"user": script([words, " said"], canary=words), **body}
    again = {"idempotency-key": key} if key else {}
    answer = await guarded.http.post("/stream", json=asked, headers={**by_key(ALICE), **again})
    assert answer.status_code == 202, answer.text
    return answer


async def ended(guarded: Guarded, where: str) -> Wire:
    answer = await guarded.http.get(where, headers={**EVENTS, **by_key(ALICE)})
    return Wire(answer.content)


async def purged(guarded: Guarded, where: str, who: str = ALICE) -> httpx.Response:
    return await guarded.http.delete(f"{where}?purge=true", headers=by_key(who))


async def nothing_is_left(guarded: Guarded, where: str, words: str) -> None:
    stream_id = where.rpartition("/")[2]
    assert await keys_with(guarded.redis, words) == set()

    async def only_the_start_is_left() -> bool:  # it counts as a start of this minute
        return {key.rpartition(":")[2] for key in await keys_with(guarded.redis, stream_id)} <= {"starts"}

    # The worker of a stream that ran takes the job's message off the queue once its chain has stopped.
    await eventually(only_the_start_is_left)
    for accept in (EVENTS, JSON):
        seen = await guarded.http.get(where, headers={**accept, **by_key(ALICE)})
        assert (seen.status_code, seen.json()["code"]) == (404, "not_found")
    assert (await purged(guarded, where)).status_code == 404


async def test_a_purge_leaves_no_key_with_what_was_asked_or_said(guarded: Guarded) -> None:
    words = f"purged{uuid.uuid4().hex}"
    first = await post(guarded, words, key=words, metadata={"about": words})
    where = first.headers["location"]
    assert (await ended(guarded, where)).events[-1] == "done"
    assert await keys_with(guarded.redis, words)
    other = await purged(guarded, where, BOB)
    assert (other.status_code, other.json()["code"]) == (404, "not_found")
    assert (await guarded.http.get(where, headers={**JSON, **by_key(ALICE)})).status_code == 200
    assert (await purged(guarded, where)).status_code == 204
    await nothing_is_left(guarded, where, words)
    again = await post(guarded, words, key=words, metadata={"about": words})
    assert again.headers["location"] != where  # the key asks as if for the first time
    await ended(guarded, again.headers["location"])
    await purged(guarded, again.headers["location"])


async def test_a_live_stream_is_cancelled_first(guarded: Guarded, model: ModelServer) -> None:
    words = f"live{uuid.uuid4().hex}"
    gate = f"purge {guarded.name}"
    asked = {"user": script([words, "never"], canary=words, gate=gate, gate_at=1)}
    answer = await guarded.http.post("/stream", json=asked, headers=by_key(ALICE))
    where, cut = answer.headers["location"], model.cut_answers
    async with guarded.http.stream("GET", where, headers={**EVENTS, **by_key(ALICE)}) as reading:
        chunks = reading.aiter_bytes()
        raw = await anext(chunks)
        while words.encode() not in raw:
            raw += await anext(chunks)
        assert (await purged(guarded, where)).status_code == 204
        wire = Wire(raw + b"".join([chunk async for chunk in chunks]))
    assert wire.events[-1] == "cancelled"
    async with asyncio.timeout(10):
        await model.until(cut=cut + 1)
    await nothing_is_left(guarded, where, words)


async def test_what_is_kept_for_a_retry_goes_as_well(guarded: Guarded) -> None:
    words = f"failed{uuid.uuid4().hex}"
    asked = {"user": script([words], canary=words, status=400)}
    answer = await guarded.http.post("/stream", json=asked, headers=by_key(ALICE))
    where = answer.headers["location"]
    assert (await ended(guarded, where)).events[-1] == "failed"
    assert any(":kept:" in key for key in await keys_with(guarded.redis, words))
    assert (await purged(guarded, where)).status_code == 204
    await nothing_is_left(guarded, where, words)


async def test_a_threads_memory_of_a_purged_stream_goes_and_the_others_stays(guarded: Guarded) -> None:
    thread = str(uuid.uuid4())
    words = [f"{name}{uuid.uuid4().hex}" for name in ("first", "second")]
    places = []
    for one in words:
        places.append((await post(guarded, one, thread=thread)).headers["location"])
        assert (await ended(guarded, places[-1])).events[-1] == "done"
    assert (await purged(guarded, places[1])).status_code == 204
    assert await keys_with(guarded.redis, words[1]) == set()
    state = await guarded.http.get(f"/threads/{thread}/state", headers=by_key(ALICE))
    assert words[0] in state.text
    third = await post(guarded, "third", thread=thread)
    assert (await ended(guarded, third.headers["location"])).events[-1] == "done"
    assert (await guarded.http.delete(f"/threads/{thread}", headers=by_key(ALICE))).status_code == 204
    assert await keys_with(guarded.redis, words[0]) == set()


async def test_what_is_past_its_retention_is_purged_too(guarded: Guarded) -> None:
    words = f"old{uuid.uuid4().hex}"
    where = (await post(guarded, words, metadata={"about": words})).headers["location"]
    await ended(guarded, where)
    place = where.rpartition("/")[2]
    await guarded.redis.delete(f"{{{place[:2]}}}:log:{place}")
    assert (await guarded.http.get(where, headers={**JSON, **by_key(ALICE)})).status_code == 410
    assert (await purged(guarded, where)).status_code == 204
    await nothing_is_left(guarded, where, words)


async def test_what_a_foreign_format_keeps_goes_as_well(guarded: Guarded) -> None:
    words = f"response{uuid.uuid4().hex}"
    asked = {"model": "chat", "input": script([words], canary=words), "background": True}
    counted = {"x-stainless-retry-count": "0"}  # as OpenAI's clients do: the body's digest names the stream
    made = await guarded.http.post("/v1/responses", json=asked, headers={**by_key(ALICE), **counted})
    where = f"/stream/{made.json()['id'].removeprefix('resp_')}"
    assert (await ended(guarded, where)).events[-1] == "done"
    assert any(":conversation" in key for key in await keys_with(guarded.redis, words))
    assert (await purged(guarded, where)).status_code == 204
    await nothing_is_left(guarded, where, words)


@pytest.mark.parametrize("given", ["purge=yes", "purge=", "purge=true&purge=true"])
async def test_another_value_deletes_nothing(guarded: Guarded, given: str) -> None:
    where = await guarded.finished(ALICE)
    answer = await guarded.http.delete(f"{where}?{given}", headers=by_key(ALICE))
    assert (answer.status_code, answer.json()["field"]) == (422, "purge")
    kept = await guarded.http.delete(f"{where}?purge=false", headers=by_key(ALICE))
    assert kept.json()["status"] == "done"


async def test_tokens_are_ended_and_given_anew(guarded: Guarded) -> None:
    where = await guarded.finished(ALICE)
    old = [(await guarded.token(where, ALICE))["stream"] for _ in range(2)]
    other = (await guarded.token(await guarded.finished(ALICE), ALICE))["stream"]
    denied = await guarded.http.delete(f"{where}/token", headers=by_key(BOB))
    assert (denied.status_code, denied.json()["code"]) == (404, "not_found")
    assert [(await guarded.http.get(one)).status_code for one in old] == [200, 200]
    for number in (1, 2):
        ended_now = await guarded.http.delete(f"{where}/token", headers=by_key(ALICE))
        assert (ended_now.status_code, ended_now.content) == (204, b"")
        assert {(await guarded.http.get(one)).status_code for one in old} == {401}
        new = await guarded.token(where, ALICE)
        assert f"-{number}." in new["token"]
        assert (await guarded.http.get(new["stream"])).status_code == 200
        forged = new["token"].replace(f"-{number}.", f"-{number + 1}.")
        assert (await guarded.http.get(f"{where}?token={forged}")).status_code == 401
        old.append(new["stream"])
    assert (await guarded.http.get(other)).status_code == 200
    await purged(guarded, where)
    assert {(await guarded.http.get(one)).status_code for one in old} <= {401, 404}


async def test_a_reader_that_is_connected_stays_when_its_token_is_ended(
    guarded: Guarded, model: ModelServer
) -> None:
    gate = f"token end {guarded.name}"
    where = await guarded.start(ALICE, ["a", "b"], gate=gate, gate_at=1)
    url = (await guarded.token(where, ALICE))["stream"]
    async with guarded.http.stream("GET", url, headers=EVENTS) as reading:
        chunks = reading.aiter_bytes()
        raw = await anext(chunks)
        await guarded.http.delete(f"{where}/token", headers=by_key(ALICE))
        assert (await guarded.http.get(url, headers=EVENTS)).status_code == 401
        model.open_gate(gate)
        wire = Wire(raw + b"".join([chunk async for chunk in chunks]))
    assert wire.events[-1] == "done"


async def test_all_at_once_one_purge_is_enough(guarded: Guarded) -> None:
    words = f"once{uuid.uuid4().hex}"
    where = (await post(guarded, words)).headers["location"]
    answers = await asyncio.gather(*(purged(guarded, where) for _ in range(10)))
    assert {answer.status_code for answer in answers} <= {204, 404}
    await until(lambda: keys_with(guarded.redis, words), lambda left: not left)
