"""Endpoints to read a stream by the Durable Streams protocol.

The clients are npm `@durable-streams/client` and similar ones (`docs/formats.md`). For them a stream of this
gateway is a stream in JSON mode that they cannot write to. It is closed by its terminal event. Pages,
long-polls and server-sent events read the same log from the same offsets. In this protocol a clean close is
normal, and a cut connection is an error. So a connection that is too old is closed cleanly, after a
`control` event.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

import gateway.formats.durable.wire as wire
from gateway.formats.base.serving import Route
from gateway.protocol import Cursor, sse
from gateway.protocol.errors import CursorLost, Malformed, StreamGone
from gateway.relay.reader import Ending, Why
from gateway.store.log import PIECE_BYTES
from gateway.store.record import Piece, Record
from gateway.streams.service import Gateway
from gateway.web import request_head
from gateway.web.answers import JSON, answered
from gateway.web.event_stream import EventStream, disconnected
from gateway.web.headers import SECURE

PAGE_BYTES = 1024 * 1024
# Longest wait of a long-poll; shorter if the connection's age is less. The platform gives up after 230 s.
LONG_POLL_SECONDS = 20.0
# An answer is only for its caller. A browser may keep a page, if it asks each time whether the page is
# still valid.
_OURS = {**SECURE, "cross-origin-resource-policy": "same-origin"}
_CHECKED = {**_OURS, "cache-control": "private, no-cache"}
_NOT_STORED = {**_OURS, "cache-control": "no-store"}


class OffsetLost(CursorLost):
    """The log does not hold this offset any more; read from the beginning."""

    # 5.6: at this status the client stops its retries. The answer does not say that the client's data are
    # right.
    status = 410


@dataclass(frozen=True, slots=True)
class Asked:
    """The query of a read. `live` is empty if the client asks for a page."""

    offset: str
    live: str
    cursor: str  # the cursor to send in the answer

    @classmethod
    def of(cls, request: Request) -> Asked:
        """Parse a request's query. Raises Malformed."""
        query = request.query_params
        offset, live = wire.one(query, "offset"), wire.one(query, "live")
        if live not in (None, wire.LONG_POLL, wire.SSE):
            raise Malformed(f"live is neither {wire.LONG_POLL} nor {wire.SSE}")
        if live is not None and offset is None:
            raise Malformed("a live read needs an offset")
        if offset not in (None, wire.BEGINNING, wire.NOW):
            wire.event_id(offset)
        cursor = wire.next_cursor(wire.one(query, "cursor") or "")
        return cls(wire.BEGINNING if offset is None else offset, live or "", cursor)

    def after(self, record: Record) -> Cursor | None:
        """Return the last event that is not sent: the reader has it or does not want it.

        None: send all events.
        """
        if self.offset == wire.NOW:
            return Cursor.parse(record.last_id)
        return None if self.offset == wire.BEGINNING else wire.event_id(self.offset)


@answered("/durable/{id}")
async def durable_read(gateway: Gateway, request: Request) -> Response:
    """GET /durable/{id}: send a page of the stream, a long-poll's answer, or server-sent events."""
    asked = Asked.of(request)
    record = await request_head.found(gateway, request)
    if asked.live == wire.SSE:
        return await _batches(gateway, record, asked)
    if asked.live == wire.LONG_POLL:
        return await _long_poll(gateway, request, record, asked)
    if asked.offset == wire.NOW:
        return _answer(b"[]", _end(record, asked.cursor), _NOT_STORED)
    after = asked.after(record)
    piece = await _piece(gateway, record, after)
    told = _place(piece, asked.cursor)
    tag = wire.etag(record.id, asked.offset, told)
    if _has(request, tag):
        return Response(status_code=304, headers={**_CHECKED, **told, "etag": tag})
    return _answer(wire.array(piece.frames), {**told, "etag": tag}, _CHECKED)


@answered("/durable/{id}")
async def durable_head(gateway: Gateway, request: Request) -> Response:
    """HEAD /durable/{id}: return the stream's present end in the headers."""
    record = await request_head.found(gateway, request)
    answer = _answer(b"", _end(record), _NOT_STORED)
    del answer.headers["content-length"]
    return answer


async def _long_poll(gateway: Gateway, request: Request, record: Record, asked: Asked) -> Response:
    after = asked.after(record)
    piece = await _piece(gateway, record, after)
    if not piece.frames and not piece.final:
        await _awaited(gateway, request, record, after)
        piece = await _piece(gateway, record, after)
    told = _place(piece, asked.cursor)
    if not piece.frames:
        return Response(status_code=204, headers={**_NOT_STORED, **told})
    told["etag"] = wire.etag(record.id, wire.offset(str(after)) if after else asked.offset, told)
    return _answer(wire.array(piece.frames), told, _NOT_STORED)


async def _batches(gateway: Gateway, record: Record, asked: Asked) -> Response:
    """Send the stream as server-sent events.

    A lost offset, or a process without room for another reader, is an error before anything is sent.
    """
    after, ending = asked.after(record), Ending()
    piece = None if after is None else await _piece(gateway, record, after, PIECE_BYTES)
    gateway.parts.hub.check_room(record.id, record.owner)
    first = b""
    if piece is not None and not piece.frames:  # the reader has all events: tell the reader at once (6)
        first = wire.control(str(after), up_to_date=True, closed=piece.final, cursor=asked.cursor)
        if piece.final:
            ending.why = Why.TERMINAL
            return EventStream(_only(first), _OURS, ending, retry=False)
    chunks = gateway.parts.relay.follow(record.id, after, ending, record.owner)
    return EventStream(_sent(chunks, first, asked.cursor, ending), _OURS, ending, retry=False)


async def _only(chunk: bytes) -> AsyncGenerator[bytes, None]:
    yield chunk


async def _sent(
    source: AsyncGenerator[bytes, None], first: bytes, cursor: str, ending: Ending
) -> AsyncGenerator[bytes, None]:
    """Yield `first`, then each chunk of the log with a `control` event that has the chunk's end."""
    if first:
        yield first
    async with aclosing(source) as chunks:
        async for chunk in chunks:
            if chunk == sse.LOG_LOST:
                return  # the client reconnects with its offset, and gets OffsetLost
            if chunk == sse.HEARTBEAT:
                yield chunk
            else:
                yield wire.batch(chunk, up_to_date=not ending.behind, cursor=cursor)


async def _piece(gateway: Gateway, record: Record, after: Cursor | None, limit: int = PAGE_BYTES) -> Piece:
    """Return a page of the log, which is empty at the log's end. Raises OffsetLost or StreamGone."""
    try:
        piece = await gateway.parts.log.read(record.id, after, limit)
    except CursorLost:
        raise OffsetLost from None
    if piece.last is None:  # the stream has expired since it was found
        raise StreamGone
    return piece


async def _awaited(gateway: Gateway, request: Request, record: Record, after: Cursor | None) -> None:
    """Wait until the log has more events, the time is up, or the client has disconnected.

    Raises StoreUnavailable or TooManyReaders.
    """
    more = asyncio.create_task(_more(gateway, record, after), name="long-poll")
    gone = asyncio.create_task(disconnected(request.receive), name="long-poll-gone")
    try:
        await asyncio.wait({more, gone}, timeout=LONG_POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if more.done():
            more.result()
    finally:
        more.cancel()
        gone.cancel()
        await asyncio.gather(more, gone, return_exceptions=True)


async def _more(gateway: Gateway, record: Record, after: Cursor | None) -> None:
    """Wait until the hub sends an event that this reader does not have."""
    relay = gateway.parts.relay
    async with aclosing(relay.follow(record.id, after, owner=record.owner)) as chunks:
        async for chunk in chunks:
            if chunk != sse.HEARTBEAT:
                return


def _place(piece: Piece, cursor: str) -> dict[str, str]:
    return wire.place(
        str(piece.last), up_to_date=piece.at_end or piece.final, closed=piece.final, cursor=cursor
    )


def _end(record: Record, cursor: str = "") -> dict[str, str]:
    return wire.place(record.last_id, up_to_date=True, closed=record.ended, cursor=cursor)


def _answer(body: bytes, told: dict[str, str], kept: dict[str, str]) -> Response:
    return Response(body, headers={**kept, **told}, media_type=JSON)


def _has(request: Request, tag: str) -> bool:
    """Return whether the client already has this page (RFC 9110, 13.1.2: weak comparison of the tags)."""
    named = ",".join(request.headers.getlist("if-none-match")).split(",")
    return any(name.strip().removeprefix("W/") in (tag, "*") for name in named)


ROUTES = (
    Route("GET", "/durable/{id}", durable_read, open=True, head=False),
    Route("HEAD", "/durable/{id}", durable_head, open=True),
)
