"""Functions that the endpoints of all formats share: to start, find and read streams.

A `Route` describes an endpoint for both hosts.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from gateway.formats.base.projection import Place, Projection, alive, events, projected
from gateway.formats.base.shared_frames import shared
from gateway.protocol import Cursor, sse
from gateway.protocol.errors import CursorLost, Malformed, StoreUnavailable, StreamGone
from gateway.relay.reader import Ending
from gateway.runtime.json_pieces import pieces
from gateway.store.record import Record
from gateway.streams.service import FOLD_TRIES, Gateway
from gateway.streams.start import Start
from gateway.web import request_head
from gateway.web.answers import JSON, Handler
from gateway.web.event_stream import CutStream

P = TypeVar("P", bound=Projection)
Wrap = Callable[[AsyncGenerator[bytes, None]], AsyncGenerator[bytes, None]]


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path, as in `gateway.hosts.asgi`.

    `open`: reading needs no function key, only the stream's id. `head`: a HEAD request is answered as GET,
    but without the body; False if the path has a separate HEAD route.
    """

    method: str
    path: str
    handler: Handler
    open: bool = False
    head: bool = True

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that this route accepts."""
        return (self.method, "HEAD") if self.method == "GET" and self.head else (self.method,)

    @property
    def name(self) -> str:
        """The function's name on Azure Functions.

        For OPTIONS the name contains the path, because one handler serves OPTIONS for all paths.
        """
        name = self.handler.__name__
        return name if self.method != "OPTIONS" else "_".join([name, *re.findall(r"\w+", self.path)])


async def begin(
    gateway: Gateway,
    request: Request,
    start: Start,
    owner: str,
    *,
    followed: bool,
    key: str | None = None,
) -> Record:
    """Start a stream by `Gateway.create`. If `key` is given, it replaces the header's Idempotency-Key."""
    record = await gateway.create(
        start,
        owner=owner,
        key=request_head.idempotency_key(request) if key is None else key,
        traceparent=request_head.traceparent(request),
        followed=followed,
        claims=request_head.claims(request),
    )
    request_head.note(record)
    return record


def follow(
    gateway: Gateway,
    record: Record,
    projection: Projection,
    after: Place | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    ages: bool = True,
    wrap: Wrap | None = None,
) -> Response:
    """Send the stream as this format's frames, after a place that is in the log (checked by `stands`).

    `ages` has the same meaning as in `CutStream`. `wrap` makes of the shared frames the bytes that
    this connection sends.

    Raises TooManyReaders.
    """
    gateway.parts.hub.check_room(record.id, record.owner)
    ending = Ending()
    if projection.shared_as() is not None:
        made = shared(gateway, record, projection, after, ending)
    else:
        chunks = gateway.parts.relay.follow(record.id, None, ending, record.owner)
        made = projected(chunks, projection, after)
    if wrap is not None:
        made = wrap(made)
    return CutStream(alive(made, gateway.settings.heartbeat), headers, ending, ages=ages)


def place_given(text: str) -> Place:
    """Read the place in a `Last-Event-ID`. Raises Malformed."""
    try:
        return Place.parse(text)
    except ValueError:
        raise Malformed("Last-Event-ID is not an event id of this gateway") from None


async def stands(gateway: Gateway, record: Record, after: Place) -> bool:
    """Return whether the log still has the event of a place."""
    try:
        await gateway.parts.log.read(record.id, Cursor.parse(str(after.cursor)))
    except CursorLost:
        return False
    return True


def at_its_end(
    gateway: Gateway,
    record: Record,
    projection: Projection,
    document: Callable[[], Any],
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Send a JSON document when the stream has ended, and white space until then.

    The connection is cut when it reaches its maximum age. Raises TooManyReaders.
    """
    chunks, ending = _from_the_start(gateway, record)
    told = alive(_awaited(chunks, projection, document), gateway.settings.heartbeat, b"\n")
    answer = CutStream(told, headers, ending)
    answer.headers["content-type"] = JSON
    return answer


async def replayed(gateway: Gateway, record: Record, make: Callable[[], P]) -> P:
    """Return a projection that has processed the whole present log. Its `share` of memory is reserved.

    Raises StreamGone, StoreUnavailable or TooManyReaders.
    """
    for _ in range(FOLD_TRIES):
        projection, after, at_end = make(), None, False
        projection.share = await gateway.room_for(record)
        try:
            async with gateway.folding:
                while not at_end:
                    piece = await gateway.parts.log.read(record.id, after)
                    if piece.last is None:
                        raise StreamGone
                    for event_id, event in events(piece.frames):
                        projection.feed(event_id, event)
                    after, at_end = piece.last, piece.at_end or piece.final
        except CursorLost:  # the store lost the log's tail during this read
            continue
        return projection
    raise StoreUnavailable


def _from_the_start(gateway: Gateway, record: Record) -> tuple[AsyncGenerator[bytes, None], Ending]:
    gateway.parts.hub.check_room(record.id, record.owner)
    ending = Ending()
    return gateway.parts.relay.follow(record.id, None, ending, record.owner), ending


async def _awaited(
    chunks: AsyncGenerator[bytes, None], projection: Projection, document: Callable[[], Any]
) -> AsyncGenerator[bytes, None]:
    async with aclosing(chunks) as source:
        async for chunk in source:
            if chunk == sse.LOG_LOST:
                return
            if chunk == sse.HEARTBEAT:
                yield chunk
                continue
            for event_id, event in events(chunk):
                projection.feed(event_id, event)
            yield b""
    if projection.fold.ended:
        for piece in pieces(document()):
            yield piece
            await asyncio.sleep(0)
