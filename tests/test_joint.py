"""Several streams on one connection, on both hosts and with both clients.

Each event arrives exactly once, also when the connection is cut at any byte.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from typing import Any

import httpx
import pytest

from gateway.client import Gateway, Refused
from gateway.protocol import Cursor
from gateway.protocol.sse import Decoder, Message
from gateway.relay import joint
from tests.callers import ALICE, BOB, Guarded, by_key
from tests.hosts import EVENTS, NOBODY
from tests.support.cutter import Cutter
from tests.support.model_server import ModelServer
from tests.support.programs import node

pytest_plugins = ("tests.hosts", "tests.callers")
pytestmark = pytest.mark.asyncio(loop_scope="session")
WORDS = [f"{number} wörd\u2028" for number in range(20)]


async def started(guarded: Guarded, count: int, **options: Any) -> list[str]:
    """Start streams that Alice owns, and return their ids."""
    made = await asyncio.gather(*(guarded.start(ALICE, [f"{n}: ", *WORDS], **options) for n in range(count)))
    return [where.rpartition("/")[2] for where in made]


async def own(guarded: Guarded, stream_id: str) -> list[Message]:
    """Return all events that a reader of this stream alone receives."""
    answer = await guarded.http.get(f"/stream/{stream_id}", headers={**EVENTS, **by_key(ALICE)})
    return Decoder().feed(answer.content)


def apart(messages: list[Message]) -> dict[str, list[Message]]:
    """Return the events of a joint connection by stream id, each in the form that it has in its own log."""
    found: dict[str, list[Message]] = defaultdict(list)
    for message in messages:
        told = json.loads(message.data)
        assert set(told) == {"stream", "id", "data"}
        found[told["stream"]].append(Message(told["id"], message.type, json.dumps(told["data"])))
    return found


def same(one: list[Message], other: list[Message]) -> bool:
    return [(m.id, m.type, json.loads(m.data)) for m in one] == [
        (m.id, m.type, json.loads(m.data)) for m in other
    ]


def query(stream_ids: list[str]) -> str:
    return "/streams/events?" + "&".join(f"id={one}" for one in stream_ids)


async def get(guarded: Guarded, stream_ids: list[str], after: str = "", who: str = ALICE) -> httpx.Response:
    behind = {"last-event-id": after} if after else {}
    return await guarded.http.get(query(stream_ids), headers={**EVENTS, **by_key(who), **behind})


async def test_twenty_streams_come_on_one_connection_each_whole(guarded: Guarded) -> None:
    stream_ids = await started(guarded, 20)
    answer = await get(guarded, stream_ids)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.content.startswith(b"retry: ")
    found = apart(Decoder().feed(answer.content))
    assert set(found) == set(stream_ids)
    for stream_id in stream_ids:
        assert same(found[stream_id], await own(guarded, stream_id))
    position = Decoder()
    position.feed(answer.content)
    assert len(position.last_id) <= 1024
    again = await get(guarded, random.sample(stream_ids, len(stream_ids)), position.last_id)
    assert (again.status_code, again.content) == (204, b"")


@pytest.mark.parametrize("attempt", range(3))
async def test_from_each_position_the_rest_comes_once(guarded: Guarded, attempt: int) -> None:
    chance = random.Random(attempt)
    stream_ids = await started(guarded, 5)
    seen: dict[str, list[Message]] = defaultdict(list)
    position, connections = "", 0
    while True:
        shuffled = chance.sample(stream_ids, len(stream_ids))
        answer = await get(guarded, shuffled, position)
        if answer.status_code == 204:
            break
        connections += 1
        messages = Decoder().feed(answer.content)
        taken = messages[: chance.randint(1, 40)]  # The connection lost the other events.
        for stream_id, events in apart(taken).items():
            seen[stream_id] += events
        position = taken[-1].id
    assert connections > 2
    for stream_id in stream_ids:
        assert same(seen[stream_id], await own(guarded, stream_id))


async def test_a_stream_that_the_position_does_not_know_begins_at_its_first_event(guarded: Guarded) -> None:
    one, other = await started(guarded, 2)
    first = Decoder().feed((await get(guarded, [one])).content)
    both = apart(Decoder().feed((await get(guarded, [other, one], first[-1].id)).content))
    assert set(both) == {other}
    assert same(both[other], await own(guarded, other))


async def test_the_body_says_where_each_begins(guarded: Guarded) -> None:
    one, other = await started(guarded, 2)
    events = await own(guarded, one)
    await own(guarded, other)
    body = {"streams": [{"id": one, "last_event_id": events[2].id}, {"id": other}]}
    answer = await guarded.http.post("/streams/events", json=body, headers={**EVENTS, **by_key(ALICE)})
    found = apart(Decoder().feed(answer.content))
    assert same(found[one], events[3:])
    assert same(found[other], await own(guarded, other))


async def test_it_is_live_and_ends_when_the_last_one_has(guarded: Guarded, model: ModelServer) -> None:
    gate = f"joint {guarded.name}"
    [held] = await started(guarded, 1, gate=gate, gate_at=1)
    [done] = await started(guarded, 1)
    decoder, messages = Decoder(), list[Message]()
    async with guarded.http.stream("GET", query([held, done]), headers={**EVENTS, **by_key(ALICE)}) as answer:
        async for data in answer.aiter_bytes():
            messages += decoder.feed(data)
            if any(message.type == "done" for message in messages):
                model.open_gate(gate)
    found = apart(messages)
    assert [found[one][-1].type for one in (held, done)] == ["done", "done"]
    assert same(found[held], await own(guarded, held))


async def test_a_cancelled_one_ends_there_too(guarded: Guarded) -> None:
    [held] = await started(guarded, 1, gate=f"joint cancel {guarded.name}", gate_at=1)
    reading = asyncio.create_task(get(guarded, [held]))
    await guarded.http.delete(f"/stream/{held}", headers=by_key(ALICE))
    found = apart(Decoder().feed((await reading).content))
    assert found[held][-1].type == "cancelled"


async def test_what_is_refused(guarded: Guarded) -> None:
    [one] = await started(guarded, 1)
    for stream_ids, status, code in (
        ([one, NOBODY], 404, "not_found"),
        ([], 422, "invalid"),
        ([one, "x"], 422, "invalid"),
        ([f"{n:024d}" for n in range(101)], 422, "invalid"),
    ):
        answer = await get(guarded, stream_ids)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (await get(guarded, [one], who=BOB)).status_code == 404
    assert (await guarded.http.get(query([one]))).status_code == 401
    for position in ("x", "7-beef", "a" * 9, f"{'A' * 6}beefz."):
        assert (await get(guarded, [one], position)).status_code == 400
    plain = {"accept": "application/json", **by_key(ALICE)}
    assert (await guarded.http.get(query([one]), headers=plain)).status_code == 406
    wrong: list[Any] = [{}, [], {"streams": [{}]}, {"streams": []}]
    for body in (*wrong, {"streams": [{"id": one, "last_event_id": "x"}]}):
        answer = await guarded.http.post("/streams/events", json=body, headers=by_key(ALICE))
        assert answer.status_code == 422


async def test_a_lost_log_of_one_begins_anew_and_the_others_go_on(guarded: Guarded) -> None:
    one, other = await started(guarded, 2)
    logs = {stream_id: await own(guarded, stream_id) for stream_id in (one, other)}
    position = str(joint.Position((), {one: Cursor.parse("7-beef"), other: Cursor.parse(logs[other][-2].id)}))
    messages = Decoder().feed((await get(guarded, [one, other], position)).content)
    [lost] = [message for message in messages if message.type == "reset"]
    assert (
        joint.read(lost.id or "AAAAAAbeef0", [one]) == {}
    )  # A connection that is cut here reads this stream from the start, without a second reset.
    found = apart(messages)
    assert same(found[other], logs[other][-1:])
    assert (found[one][0].type, json.loads(found[one][0].data)) == ("reset", {"reason": "log_lost"})
    assert same(found[one][1:], logs[one])


@pytest.mark.parametrize("client", ["python", "node"])
async def test_the_clients_take_each_event_once_through_cuts(guarded: Guarded, client: str) -> None:
    chance = random.Random(client)
    stream_ids = await started(guarded, 4)
    bounds = [chance.randint(0, 4000) for _ in range(12)]
    seen: dict[str, list[tuple[str, str]]] = defaultdict(list)
    async with Cutter(str(guarded.http.base_url), bounds) as cutter:
        if client == "node":
            for line in await node("many.mjs", cutter.url, ALICE, *stream_ids):
                seen[line["stream"]].append((line["id"], line["type"]))
        else:
            async with Gateway(cutter.url, key=ALICE) as gateway:
                async for stream_id, event in gateway.follow_many(stream_ids):
                    seen[stream_id].append((event.id, event.type))
        assert cutter.cuts >= 5
    for stream_id in stream_ids:
        assert seen[stream_id] == [(message.id, message.type) for message in await own(guarded, stream_id)]


async def test_a_client_is_told_of_a_refusal(guarded: Guarded) -> None:
    async with Gateway(str(guarded.http.base_url), key=ALICE) as gateway:
        with pytest.raises(Refused) as refused:
            _ = [pair async for pair in gateway.follow_many([NOBODY])]
        assert refused.value.status == 404
        assert [pair async for pair in gateway.follow_many([])] == []


async def test_a_position_says_of_each_where_it_is() -> None:
    chance = random.Random(7)
    letters = "ABCabc012-_"
    ids = ["".join(chance.choices(letters, k=24)) for _ in range(100)]
    at = {
        one: Cursor.parse(f"{chance.randrange(512 * 1024**2)}-{chance.randrange(16**4):04x}") for one in ids
    }
    text = str(joint.Position((), at))
    assert len(text) <= 8192
    assert joint.read(text, ids) == at
    assert joint.read(text, ids[:3]) == {one: at[one] for one in ids[:3]}
