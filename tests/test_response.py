"""Why a body ended, and how much of it was sent: told once, whoever ended it; and what the relay says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import pytest
from redis.asyncio import Redis
from starlette.types import Message

from gateway.protocol import sse
from gateway.protocol.errors import HoldfastError, StoreUnavailable, TooManyReaders
from gateway.relay.reader import Ending, Why
from gateway.web.event_stream import TAKE, CutStream, EventStream, LiveStream
from gateway.web.stream_body import StreamBody, why_cancelled
from tests.support.following import Stream, following

CHUNKS = (b"id: 0-aaaa\ndata: 1\n\n", sse.HEARTBEAT, b"id: 20-aaaa\ndata: 2\n\n")


async def chunks(then: BaseException | None = None) -> AsyncGenerator[bytes, None]:
    for chunk in CHUNKS:
        yield chunk
    if then is not None:
        raise then


class Client:
    """An ASGI client that may vanish, or stop taking."""

    def __init__(self) -> None:
        self.head: Message = {}
        self.body = b""
        self.told: list[tuple[str, int]] = []
        self.gone = asyncio.Event()
        self.ended = False  # its body was ended, and not only begun

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.head = message
        self.body += message.get("body", b"")
        self.ended = message["type"] == "http.response.body" and not message["more_body"]

    async def asks(self, response: EventStream) -> None:
        response.on_end = lambda why, sent: self.told.append((why, sent))
        await response({"type": "http"}, self.receive, self.send)


@pytest.mark.parametrize("retry", [False, True])
def test_the_retry_line_stands_once_before_the_first_frame(retry: bool) -> None:
    body = StreamBody(retry=retry)
    sent = [body.add(chunk) for chunk in (sse.HEARTBEAT, *CHUNKS)]
    assert (sent[0], sent[2:]) == (sse.HEARTBEAT, [*CHUNKS[1:]])
    line, found, frame = sent[1].rpartition(CHUNKS[0])
    assert (found, frame) == (CHUNKS[0], b"")
    assert re.fullmatch(rb"retry: [0-9]+\n" if retry else rb"", line)
    assert body.sent == sum(map(len, sent))


@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize("started", [False, True])
def test_who_finds_no_room_gets_a_retry_line_and_no_second_one(started: bool, retry: bool) -> None:
    body = StreamBody(retry=retry)
    before = body.add(CHUNKS[0]) if started else b""
    line = body.refuse(TooManyReaders())
    assert bool(line) == (not started and retry)
    assert (body.why, body.sent, body.in_order) == (Why.FULL, len(before + line), True)
    body.end(Why.GONE)
    assert body.why is Why.FULL


def test_a_body_for_who_takes_a_clean_close_for_the_end_is_in_order_at_the_streams_end_alone() -> None:
    for why in Why:
        whole, cut = StreamBody(), StreamBody(cut=True)
        whole.end(why)
        cut.end(why)
        assert (whole.in_order, cut.in_order) == (True, why is Why.TERMINAL)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ((Why.GONE,), Why.GONE),
        ((Why.STALLED,), Why.STALLED),
        (("gone",), None),
        ((), None),
        ((Why.AGE,), None),
    ],
)
def test_only_our_own_cancellations_are_the_readers(message: tuple[str, ...], why: Why | None) -> None:
    assert why_cancelled(asyncio.CancelledError(*message)) is why


async def test_who_writes_chunks_says_so_in_the_head_and_who_does_not_leaves_it_to_the_server(
    redis_url: str,
) -> None:
    async with following(redis_url) as f:
        stream = await Stream.create(f.log)
        record, _ = await f.log.record(stream.id)
        assert record is not None
        for extensions in ({}, {TAKE: lambda protocol: None}):
            client, live = Client(), LiveStream(f.relay, record, None, {})
            client.gone.set()
            scope = {"type": "http", "http_version": "1.1", "extensions": extensions}
            await live(scope, client.receive, client.send)
            ours = {b"transfer-encoding": b"chunked", b"connection": b"close"}
            told = {name: value for name, value in client.head["headers"] if name in ours}
            assert told == (ours if extensions else {})


@pytest.mark.parametrize("why", ["terminal", "age", "expired", "stopping"])
async def test_a_clean_end_has_the_reason_that_its_source_gave(why: str) -> None:
    client = Client()
    await client.asks(EventStream(chunks(), ending=Ending(Why(why))))
    assert client.told == [(why, len(client.body))]
    assert client.body.endswith(CHUNKS[-1])


@pytest.mark.parametrize("why", ["terminal", "age", "expired", "stopping", ""])
async def test_who_takes_a_clean_close_for_the_end_is_cut_before_it(why: str) -> None:
    client, other = Client(), Client()
    await client.asks(CutStream(chunks(), ending=Ending(Why(why))))
    await other.asks(EventStream(chunks(), ending=Ending(Why(why))))
    assert client.body == b"".join(CHUNKS)  # without `retry:`
    assert (client.ended, other.ended) == (why == "terminal", True)


async def test_who_takes_a_clean_close_for_the_end_is_cut_where_the_store_is_away() -> None:
    client = Client()
    await client.asks(CutStream(chunks(StoreUnavailable()), ending=Ending()))
    assert not client.ended


async def test_a_source_that_goes_no_further_without_a_reason_is_the_samples_reset() -> None:
    client = Client()
    await client.asks(EventStream(chunks()))
    assert client.told == [("reset", len(client.body))]


@pytest.mark.parametrize(("error", "why"), [(StoreUnavailable(), "store"), (TooManyReaders(), "full")])
async def test_a_reader_that_is_sent_away_is_told_why(error: HoldfastError, why: str) -> None:
    client = Client()
    await client.asks(EventStream(chunks(error)))
    assert client.told == [(why, len(client.body))]


async def waiting() -> AsyncGenerator[bytes, None]:
    yield CHUNKS[0]
    await asyncio.Event().wait()


async def test_a_reader_that_vanishes_is_gone() -> None:
    client = Client()
    task = asyncio.create_task(client.asks(EventStream(waiting())))
    while not client.body:  # noqa: ASYNC110 - the client is this very class
        await asyncio.sleep(0)
    client.gone.set()
    await task
    assert client.told == [("gone", len(client.body))]


async def test_a_reader_that_takes_nothing_is_stalled() -> None:
    client = Client()
    task = asyncio.create_task(client.asks(EventStream(waiting())))
    while not client.body:  # noqa: ASYNC110
        await asyncio.sleep(0)
    task.cancel(Why.STALLED)
    await task
    assert client.told == [("stalled", len(client.body))]


async def test_an_end_that_nobody_expected_is_told_too() -> None:
    client = Client()
    with pytest.raises(ZeroDivisionError):
        await client.asks(EventStream(chunks(ZeroDivisionError())))
    assert client.told == [("cut", len(client.body))]


async def followed(f: Any, stream: Stream, act: Callable[[], Any] | None = None) -> str:
    """Why the relay ended, when this was done at its first chunk."""
    ending = Ending()
    async with asyncio.timeout(30), aclosing(f.relay.follow(stream.id, None, ending)) as source:
        async for _ in source:
            if act is not None:
                await act()
                act = None
    return ending.why


async def test_the_relay_says_why_it_ended(redis_url: str, redis: Redis) -> None:
    async with following(redis_url, max_age=0.05) as f:
        assert await followed(f, await Stream.create(f.log)) == "age"
    async with following(redis_url) as f:
        ended = await Stream.create(f.log)
        await ended.end()
        assert await followed(f, ended) == "terminal"
        live = await Stream.create(f.log)
        assert await followed(f, live, live.end) == "terminal"
        lost = await Stream.create(f.log)
        await redis.delete(f.log.keys(lost.id)[1])
        assert await followed(f, lost) == "expired"
        assert await followed(f, await Stream.create(f.log), f.hub.close) == "stopping"
