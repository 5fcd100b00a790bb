"""The feed of an owner's streams, GET /streams as an event stream, on both hosts: exact after any cut."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.client import Gateway
from gateway.protocol.sse import Decoder, Message
from tests.callers import ALICE, BOB, CAROL, Guarded, by_key
from tests.hosts import EVENTS
from tests.support.cutter import Cutter
from tests.support.model_server import ModelServer
from tests.support.programs import node

pytest_plugins = ("tests.hosts", "tests.callers")
pytestmark = pytest.mark.asyncio(loop_scope="session")


class Feed:
    """A reader of a feed, and all messages that it has received."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.decoder = Decoder()
        self.messages: list[Message] = []
        self._chunks = answer.aiter_bytes()

    async def until(self, count: int, stream_id: str = "") -> list[Message]:
        """Wait for this many events of this stream, or of all streams."""
        async with asyncio.timeout(20):
            while len(found := of(self.messages, stream_id)) < count:
                self.messages += self.decoder.feed(await anext(self._chunks))
        return found


def row(message: Message) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(message.data)
    return told


def of(messages: list[Message], stream_id: str) -> list[Message]:
    return [one for one in messages if stream_id in ("", row(one).get("id"))]


@asynccontextmanager
async def feed(guarded: Guarded, who: str = CAROL, after: str = "") -> AsyncIterator[Feed]:
    behind = {"last-event-id": after} if after else {}
    async with guarded.http.stream("GET", "/streams", headers={**EVENTS, **by_key(who), **behind}) as answer:
        assert answer.status_code == 200
        yield Feed(answer)


async def made(guarded: Guarded, who: str = CAROL, words: Any = ("a", "b"), **options: Any) -> str:
    return (await guarded.start(who, list(words), **options)).rpartition("/")[2]


async def test_it_tells_what_becomes_of_a_stream_as_it_happens(guarded: Guarded, model: ModelServer) -> None:
    gate = f"feed {uuid.uuid4()}"
    async with feed(guarded) as one, feed(guarded, BOB) as other:
        assert one.answer.headers["content-type"] == "text/event-stream"
        stream_id = await made(guarded, gate=gate, gate_at=1)
        foreign = await made(guarded, BOB)
        found = await one.until(2, stream_id)
        assert [message.type for message in found] == ["started", "stage"]
        assert row(found[1])["stage"]["state"] == "started"
        model.open_gate(gate)
        found = await one.until(4, stream_id)
        assert [message.type for message in found] == ["started", "stage", "stage", "ended"]
        await other.until(4, foreign)
    status = await guarded.http.get("/streams?limit=100", headers=by_key(CAROL))
    [listed] = [each for each in status.json()["streams"] if each["id"] == stream_id]
    assert row(found[-1]) == listed
    assert {row(message)["id"] for message in one.messages} & {foreign} == set()


def told(messages: list[Message]) -> list[tuple[str, str, str]]:
    return [(row(one)["id"], one.type, one.data) for one in messages]


async def test_it_begins_with_what_ended_just_now_and_then_what_runs(
    guarded: Guarded, model: ModelServer
) -> None:
    gate = f"feed begins {uuid.uuid4()}"
    running = await made(guarded, gate=gate, gate_at=1)
    done = await made(guarded)
    async with feed(guarded) as before:
        await before.until(1, running)
        count = 1  # How many events this reader gets depends on the progress of the stream.
        while (live := (await before.until(count, done))[-1]).type != "ended":
            count += 1
    async with feed(guarded) as begun:
        [one] = (await begun.until(1, running))[:1]
    assert one.type == "started"
    frames = [message for message in begun.messages if row(message)["id"] in (running, done)]
    assert told(frames[:1]) == [(done, "ended", live.data)]  # Every reader gets the same bytes.
    assert [message.type for message in frames] == ["ended", "started"]
    assert {message.id for message in begun.messages[:-1]} == {""}
    position = begun.messages[-1].id
    model.open_gate(gate)
    async with feed(guarded, after=position) as rest:
        found = await rest.until(2, running)
    assert [message.type for message in found] == ["stage", "ended"] or found[-1].type == "ended"
    assert row(found[-1])["status"] == "done"


async def test_two_readers_get_the_same_bytes(guarded: Guarded) -> None:
    async with feed(guarded) as one:
        first = await made(guarded)
        await one.until(4, first)
        after = one.messages[-1].id
        streams = [await made(guarded) for _ in range(3)]
        for each in streams:
            await one.until(4, each)
    behind = one.messages[[message.id for message in one.messages].index(after) + 1 :]
    async with feed(guarded, after=after) as other:
        for each in streams:
            await other.until(4, each)
    count = min(len(behind), len(other.messages))
    assert [(m.id, m.type, m.data) for m in behind[:count]] == [
        (m.id, m.type, m.data) for m in other.messages[:count]
    ]


@pytest.mark.parametrize("position", ["x", "7", "7-xyz1", "-1-beef", "1-beef-2"])
async def test_a_position_of_another_form_is_refused(guarded: Guarded, position: str) -> None:
    headers = {**EVENTS, **by_key(CAROL), "last-event-id": position}
    answer = await guarded.http.get("/streams", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")


async def test_a_position_that_the_feed_never_had_begins_anew(guarded: Guarded) -> None:
    stream_id = await made(guarded)
    async with feed(guarded, after="123456789-beef") as one:
        while not one.messages:
            one.messages += one.decoder.feed(await anext(one._chunks))
        lost = one.messages.pop(0)
        assert (lost.type, row(lost)) == ("reset", {"reason": "log_lost"})
        found = await one.until(1, stream_id)
    assert found[-1].type in ("started", "ended")


async def test_a_cancelled_one_and_a_waiting_one_end(guarded: Guarded) -> None:
    async with feed(guarded) as one:
        stream_id = await made(guarded, gate=f"feed cancel {uuid.uuid4()}")
        await one.until(1, stream_id)
        await guarded.http.delete(f"/stream/{stream_id}", headers=by_key(CAROL))
        while (found := of(one.messages, stream_id))[-1].type != "ended":
            await one.until(len(found) + 1, stream_id)
    assert row(found[-1])["status"] == "cancelled"
    assert [message.type for message in found if message.type in ("started", "ended")] == ["started", "ended"]


async def test_it_stays_open_where_nothing_runs(guarded: Guarded) -> None:
    async with feed(guarded, ALICE) as one:
        raw = b""
        async with asyncio.timeout(40):
            while not raw.endswith(b":\n"):  # Ends with a heartbeat. A frame has another end.
                raw += await anext(one._chunks)
        stream_id = await made(guarded, ALICE)
        one.decoder.feed(raw)
        found = await one.until(4, stream_id)
    assert found[-1].type == "ended"


@pytest.mark.parametrize("client", ["python", "node"])
async def test_the_clients_take_each_event_once_through_cuts(guarded: Guarded, client: str) -> None:
    chance = random.Random(client)
    bounds = [chance.randint(0, 4000) for _ in range(12)]
    async with feed(guarded, BOB) as whole, Cutter(str(guarded.http.base_url), bounds) as cutter:
        before = {row(one)["id"] for one in whole.messages}
        streams = await asyncio.gather(*(made(guarded, BOB) for _ in range(6)))
        seen: dict[str, list[tuple[str, str]]] = defaultdict(list)
        if client == "node":
            for line in await node("feed.mjs", cutter.url, BOB, *streams):
                seen[line["stream"]].append((line["id"], line["type"]))
        else:
            async with asyncio.timeout(60), Gateway(cutter.url, key=BOB) as gateway:
                left = set(streams)
                async with aclosing(gateway.feed()) as events:
                    async for event in events:
                        seen[event.data["id"]].append((event.id, event.type))
                        if event.type == "ended":
                            left.discard(event.data["id"])
                        if not left:
                            break
        for stream_id in streams:
            events_of = [kind for _, kind in seen[stream_id]]
            assert events_of.count("ended") == 1
            # A stream that ended before the first connection has no `started` event.
            assert events_of.count("started") <= 1
        assert before is not None


@pytest.mark.parametrize("attempt", range(3))
async def test_from_each_position_the_rest_comes_once(guarded: Guarded, attempt: int) -> None:
    chance = random.Random(attempt)
    async with feed(guarded, ALICE) as whole:
        first = await made(guarded, ALICE)
        await whole.until(4, first)
        begin = whole.messages[-1].id
        streams = await asyncio.gather(*(made(guarded, ALICE) for _ in range(5)))
        for stream_id in streams:
            await whole.until(4, stream_id)
    ids = [message.id for message in whole.messages]
    expected = whole.messages[ids.index(begin) + 1 :]
    seen: list[Message] = []
    position = begin
    while len(seen) < len(expected):
        async with feed(guarded, ALICE, after=position) as part:
            await part.until(1)
        taken = part.messages[: chance.randint(1, 5)]  # The rest was lost on its way.
        seen += taken
        position = taken[-1].id
    assert [(m.id, m.type, m.data) for m in seen[: len(expected)]] == [
        (m.id, m.type, m.data) for m in expected
    ]
