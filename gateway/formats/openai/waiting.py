"""An answer to who waits for the end of a run; where that takes long, with white space before it.

A proxy on the way ends an answer that stays silent, and the client then asks again. So after one heartbeat
the answer begins with white space, which readers of JSON skip. From then on the status is told: what can be
answered by no 200 any more cuts the connection, and the client's repetition is told (`repeats.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from gateway.formats.base.projection import Projection, events
from gateway.formats.openai.common import Unfinished, where
from gateway.protocol import sse
from gateway.protocol.errors import StreamGone
from gateway.relay.reader import Ending, Why
from gateway.runtime.json_pieces import pieces
from gateway.store.record import Record
from gateway.streams.service import Gateway
from gateway.web.answers import JSON, json_answer
from gateway.web.event_stream import CutStream, disconnected

P = TypeVar("P", bound=Projection)
SPACE = b"\n"


@dataclass(frozen=True, slots=True)
class ToldLate:
    """An answer: its JSON, its status, and headers beside those of every answer."""

    value: Any = field(repr=False)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


async def at_the_end(
    gateway: Gateway, request: Request, record: Record, start: Callable[[], P], tell: Callable[[P], ToldLate]
) -> Response:
    """What `tell` makes of what `start` makes, when that was fed the whole stream, which is waited for.

    Raises Unfinished where the connection's age or the caller ends the waiting, StreamGone, StoreUnavailable
    or TooManyReaders.
    """
    reading = asyncio.create_task(_read(gateway, record, start), name="read-to-the-end")
    gone = asyncio.create_task(disconnected(request.receive), name="caller-gone")
    beat = gateway.settings.heartbeat
    is_late = False
    try:
        await asyncio.wait({reading, gone}, timeout=beat, return_when=asyncio.FIRST_COMPLETED)
        is_late = not reading.done() and not gone.done()
        if is_late:
            ending = Ending()
            answer = CutStream(_late(reading, tell, beat, ending), where(record.id), ending)
            answer.headers["content-type"] = JSON
            return answer
        reader = reading.result() if reading.done() else None
    finally:
        gone.cancel()
        if not is_late:
            reading.cancel()
        await asyncio.gather(gone, *(() if is_late else (reading,)), return_exceptions=True)
    if reader is None:
        raise Unfinished(stream=record.id)
    told = tell(reader)
    return json_answer(told.value, told.status, {**where(record.id), **told.headers})


async def _late(
    reading: asyncio.Task[P | None], tell: Callable[[P], ToldLate], beat: float, ending: Ending
) -> AsyncGenerator[bytes, None]:
    """White space while it is read, then the JSON; nothing more, and no orderly end, where that is none."""
    try:
        yield SPACE
        while not reading.done():
            await asyncio.wait({reading}, timeout=beat)
            if not reading.done():
                yield SPACE
        told = None if reading.exception() else _of(reading.result(), tell)
        if told is None or told.status != 200:
            ending.why = Why.CUT
            return
        for piece in pieces(told.value):
            yield piece
            await asyncio.sleep(0)
        ending.why = Why.TERMINAL
    finally:
        reading.cancel()


def _of(reader: P | None, tell: Callable[[P], ToldLate]) -> ToldLate | None:
    return None if reader is None else tell(reader)


async def _read(gateway: Gateway, record: Record, start: Callable[[], P]) -> P | None:
    """To the end, or None where that is further away than a connection may be old."""
    ending, reader = Ending(), start()
    relay = gateway.parts.relay
    async with aclosing(relay.follow(record.id, None, ending, record.owner)) as chunks:
        async for chunk in chunks:
            if chunk == sse.LOG_LOST:
                reader = start()
            elif chunk != sse.HEARTBEAT:
                for event_id, event in events(chunk):
                    reader.feed(event_id, event)
    if ending.why is Why.EXPIRED:
        raise StreamGone
    return reader if reader.fold.ended else None
