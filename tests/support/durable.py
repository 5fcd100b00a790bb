"""Helpers that the tests of Durable Streams share: streams that a test writes itself, and readers.

PYTEST_DONT_REWRITE: this module is imported before pytest sees it as a plugin.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest_asyncio
from redis.asyncio import Redis

from gateway.protocol import Event, EventType, sse
from gateway.protocol.fold import Fold
from gateway.redis.connection import Connection
from gateway.store.log import Log
from tests.hosts import LIMIT_SECONDS, Host, until
from tests.support.following import Stream, connected
from tests.support.redis_server import RedisServer

NOWHERE = "0000000005-beef"  # it has the form of an offset but is in no stream
LIVE = ("long-poll", "sse")
Said = list[dict[str, Any]]  # the lines that durable.mjs prints


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def redis_log(store: RedisServer) -> AsyncIterator[Redis]:
    """Connect to the Redis behind the log, to inspect it."""
    async with Redis.from_url(store.url) as redis:
        yield redis


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def connection(store: RedisServer) -> AsyncIterator[Connection]:
    """Connect to the store of the hosts, for streams that a test writes itself."""
    async with connected(store.url) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def written(connection: Connection) -> AsyncIterator[Stream]:
    """Start a stream. The test then writes to it."""
    stream = await Stream.create(Log(connection))
    yield stream
    await stream.discard()


def at(where: str) -> str:
    """Return the Durable Streams path for a stream's location or id."""
    return f"/durable/{where.rpartition('/')[2]}"


def place(answer: httpx.Response) -> str:
    offset: str = answer.headers["stream-next-offset"]
    return offset


def expected(log: bytes) -> list[dict[str, Any]]:
    """Return the messages that a client must get for this log."""
    said = [(m.type, m.id, json.loads(m.data)) for m in sse.Decoder().feed(log)]
    return [{"type": kind, "id": event_id, "data": data} for kind, event_id, data in said]


async def closed(host: Host, where: str, **asked: str) -> httpx.Response:
    """Return a page of the stream when the stream has ended."""
    answers = await until(
        lambda: host.http.get(at(where), params=asked), lambda a: "stream-closed" in a.headers
    )
    assert answers.status_code == 200
    return answers


class Events:
    """The server-sent events of a connection, in the order of arrival."""

    def __init__(self, answer: httpx.Response) -> None:
        self._chunks = answer.aiter_bytes()
        self._decoder = sse.Decoder()
        self.messages: list[dict[str, Any]] = []
        self.controls: list[dict[str, Any]] = []
        self.kinds: list[str] = []

    async def until(self, controls: int) -> dict[str, Any]:
        """Read until this number of control events has arrived; return the last control event."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while len(self.controls) < controls:
                self._take(await anext(self._chunks))
        return self.controls[-1]

    async def end(self) -> None:
        """Read on until the body ends cleanly."""
        async with asyncio.timeout(LIMIT_SECONDS):
            async for chunk in self._chunks:
                self._take(chunk)

    def _take(self, chunk: bytes) -> None:
        for said in self._decoder.feed(chunk):
            self.kinds.append(said.type)
            told = json.loads(said.data)
            if said.type == "data":
                self.messages += told
            else:
                self.controls.append(told)


@asynccontextmanager
async def events(http: httpx.AsyncClient, where: str, offset: str, **headers: str) -> AsyncIterator[Events]:
    """Open a connection that sends server-sent events from this offset."""
    asked = {"offset": offset, "live": "sse"}
    async with http.stream("GET", at(where), params=asked, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"
        yield Events(answer)


async def subscribed(redis: Redis, stream_id: str, readers: int = 1) -> None:
    """Wait until a host is subscribed to the stream, or with `readers=0` until no host is."""
    channel = f"live:{stream_id}"
    await until(lambda: redis.pubsub_numsub(channel), lambda told: bool(told[0][1]) == bool(readers))


def messages(said: Said) -> Said:
    """Return all messages that the client has delivered, in order."""
    return [item for line in said for item in line.get("batch", [])]


def types(said: Said) -> list[str]:
    return [one["type"] for one in messages(said)]


def deltas(said: Said) -> list[str]:
    return [one["data"]["delta_content"] for one in messages(said) if one["type"] == "message"]


def folded(said: Said) -> Fold:
    """Return the state that an application builds from the messages by the documented rules."""
    fold = Fold()
    for one in messages(said):
        kind = EventType.MESSAGE if one["type"] == "message" else EventType(one["type"])
        fold.feed(one["id"], Event(kind, one["data"]))
    return fold


def errors(said: Said) -> Said:
    return [line for line in said if "error" in line]
