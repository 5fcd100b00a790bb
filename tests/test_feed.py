"""The feed of an owner's streams, GET /streams as an event stream, on both hosts: exact, whatever is cut."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.protocol.sse import Decoder, Message
from tests.callers import BOB, CAROL, Guarded, by_key
from tests.hosts import EVENTS
from tests.support.model_server import ModelServer

pytest_plugins = ("tests.hosts", "tests.callers")
pytestmark = pytest.mark.asyncio(loop_scope="session")


class Feed:
    """A reader of a feed, and all that it has got."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.decoder = Decoder()
        self.messages: list[Message] = []
        self._chunks = answer.aiter_bytes()

    async def until(self, count: int, stream_id: str = "") -> list[Message]:
        """Wait for so many events of this stream, or of all."""
        async with asyncio.timeout(20):
            while len(found := of(self.messages, stream_id)) < count:
                self.messages += self.decoder.feed(await anext(self._chunks))
        return found


def row(message: Message) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(message.data)
    return told


def of(messages: list[Message], stream_id: str) -> list[Message]:
    return [one for one in messages if stream_id in ("", row(one)["id"])]


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
