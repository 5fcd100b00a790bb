"""POST /threads/{thread}/stream/events: sends the events of a thread's runs, one run after another.

A reader without a position starts at the run that has the thread's turn, or that had the turn last. A client
gets the content of older runs from the thread's state. The connection is never closed cleanly, so clients
reconnect.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from gateway.formats.base.projection import events
from gateway.formats.base.serving import Route
from gateway.formats.langgraph.next_run import awaited
from gateway.formats.langgraph.protocol_filter import PLACE_BITS, EventFilter, parse_filter
from gateway.formats.langgraph.protocol_projection import ThreadRun
from gateway.formats.langgraph.threads import Thread, name_of, refused
from gateway.protocol import sse
from gateway.protocol.errors import Malformed, NotJson
from gateway.relay.reader import Ending, Why
from gateway.runtime.off_loop import aside
from gateway.store.record import Record
from gateway.store.threads import Turn
from gateway.streams.service import Gateway
from gateway.streams.start import read_json
from gateway.web import request_head
from gateway.web.answers import answered
from gateway.web.event_stream import CutStream

T = TypeVar("T")
# A connection is cut at a random age between this share of `stream_max_age` and the whole `stream_max_age`.
_YOUNGEST_SHARE = 0.75


@answered("/threads/{thread}/stream/events", shape=refused, relative=True)
async def langgraph_thread_events(gateway: Gateway, request: Request) -> Response:
    """POST: send a thread's events on the channels that the body names.

    If the thread has no run yet, the connection waits for the first run.
    """
    thread = Thread(gateway, await request_head.owner(gateway, request), name_of(gateway, request))
    last = request.headers.get("last-event-id")
    wanted = await read_body(thread, request, lambda value: parse_filter(value, last))
    gateway.parts.hub.check_room(owner=thread.owner)
    ending = Ending()
    return CutStream(_followed(thread, wanted, ending), None, ending)


async def read_body(thread: Thread, request: Request, then: Callable[[Any], T]) -> T:
    """Read the body as `read_json` does.

    A body that is not JSON is refused with 400, as by LangGraph's server. Raises Malformed.
    """
    try:
        return await read_json(request, thread.gateway.bounds, then, thread.owner)
    except NotJson as error:
        raise Malformed(error.detail) from None


def projection_of(
    thread: Thread, record: Record, turn: int, given: dict[str, Any], wanted: EventFilter
) -> ThreadRun:
    """Return the projection that makes a run's events for this reader."""
    # The log stores no times, but each event needs a timestamp. Clients ignore events that are older than
    # their state. This is the latest time at which the run can end, so no event is older.
    at_ms = record.created_ms + round(thread.gateway.settings.open_seconds * 1000)
    return ThreadRun(record.id, thread.name, given, turn, at_ms, wanted)


async def _followed(thread: Thread, wanted: EventFilter, ending: Ending) -> AsyncGenerator[bytes, None]:
    loop, threads = asyncio.get_running_loop(), thread.gateway.parts.threads
    age = thread.gateway.settings.stream_max_age
    until = loop.time() + age * random.uniform(_YOUNGEST_SHARE, 1.0) if age else None
    yield sse.HEARTBEAT  # sent at once, because clients wait for the first bytes
    last = await threads.last_turn(thread.owner, thread.name)
    number = last.number if last is not None else 0
    if wanted.since and number < wanted.since >> PLACE_BITS:
        wanted = replace(wanted, since=0)  # the number is of a thread that was deleted since
    if wanted.since:
        number = wanted.since >> PLACE_BITS
    turn: Turn | None = None
    while True:
        look = partial(threads.turn_from, thread.owner, thread.name, number)  # finds this turn or a later one
        async with aclosing(awaited(thread, look, until, ending)) as waiting:
            async for found in waiting:
                if isinstance(found, bytes):
                    yield found
                else:
                    turn = found
        if ending.why:
            return
        assert turn is not None
        if (record := await thread.found(turn.stream_id)) is not None:
            async with aclosing(_of_run(thread, record, turn, wanted, until, ending)) as frames:
                async for chunk in frames:
                    yield chunk
            if ending.why not in (Why.TERMINAL, Why.EXPIRED):
                return
            ending.why = Why.NONE
        number = turn.number + 1


async def _of_run(
    thread: Thread, record: Record, turn: Turn, wanted: EventFilter, until: float | None, ending: Ending
) -> AsyncGenerator[bytes, None]:
    """Yield a run's frames, until the run ends."""
    loop, gateway = asyncio.get_running_loop(), thread.gateway
    began = await thread.began(record)
    projection = projection_of(thread, record, turn.number, dict(began.given), wanted)
    sent_at = loop.time()
    chunks = gateway.parts.relay.follow(record.id, None, ending, record.owner)
    async with aclosing(chunks) as source:
        async for chunk in source:
            now = loop.time()
            if until is not None and now >= until:
                ending.why = Why.AGE
                return
            if chunk == sse.LOG_LOST:  # the events that were sent are void
                ending.why = Why.CUT
                return
            if chunk != sse.HEARTBEAT:
                for frame in await aside(len(chunk), partial(_taken, projection, chunk), thread.owner):
                    sent_at = now
                    yield frame
            if now - sent_at >= gateway.settings.heartbeat or chunk == sse.HEARTBEAT:
                sent_at = now
                yield sse.HEARTBEAT


def _taken(projection: ThreadRun, chunk: bytes) -> list[bytes]:
    return [frame for event_id, event in events(chunk) for frame in projection.take(event_id, event)]


ROUTES = (Route("POST", "/threads/{thread}/stream/events", langgraph_thread_events),)
