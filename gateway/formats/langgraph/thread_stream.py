"""GET /threads/{thread}/stream: sends the frames of a thread's runs, one run after another.

All frames are sent on one connection. A frame's id contains the run's id and the place in the run, so a
reader can resume from it. A thread never ends, so the connection is cut when it reaches its maximum age.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from gateway.formats.base.projection import Place, alive, projected
from gateway.formats.base.serving import Route, place_given
from gateway.formats.langgraph.next_run import awaited
from gateway.formats.langgraph.threads import Thread, name_of, refused
from gateway.protocol import sse
from gateway.protocol.errors import Invalid
from gateway.relay.reader import Ending, Why
from gateway.store.record import Record
from gateway.streams.service import Gateway
from gateway.web import request_head
from gateway.web.answers import answered
from gateway.web.event_stream import CutStream

_MODES = ("run_modes",)


@answered("/threads/{thread}/stream", shape=refused)
async def langgraph_thread_stream(gateway: Gateway, request: Request) -> Response:
    """GET: send the frames of the thread's runs from now on, or after a `Last-Event-ID`.

    Each run is sent in the modes with which it was started.
    """
    thread = Thread(gateway, await request_head.owner(gateway, request), name_of(gateway, request))
    modes = [mode for mode in request.query_params.getlist("stream_mode") if mode]
    if any(mode not in _MODES for mode in modes):
        raise Invalid("stream_mode", f"must be {', '.join(_MODES)}")
    run, after = _after(request)
    gateway.parts.hub.check_room(owner=thread.owner)
    if not run and (newest := await thread.newest()) is not None:
        run, after = newest.id, Place.behind(newest.last_id)
    ending = Ending()
    frames = _frames(thread, run, after, ending)
    return CutStream(alive(frames, gateway.settings.heartbeat), {}, ending)


async def _frames(
    thread: Thread, run: str, after: Place | None, ending: Ending
) -> AsyncGenerator[bytes, None]:
    """Yield the frames of the run `run` after a place, then the frames of all later runs."""
    loop, settings = asyncio.get_running_loop(), thread.gateway.settings
    until = loop.time() + settings.stream_max_age if settings.stream_max_age else None
    while until is None or loop.time() < until:
        if run and (record := await thread.found(run)) is not None:
            made = Ending()
            async with aclosing(_of_run(thread, record, after, made)) as frames:
                async for frame in frames:
                    yield frame
            if made.why is not Why.TERMINAL:
                ending.why = made.why
                return
        after = None
        async with aclosing(awaited(thread, partial(_following, thread, run), until, ending)) as waiting:
            async for found in waiting:
                if isinstance(found, str):
                    run = found
                else:
                    yield b""
        if ending.why:
            return
    ending.why = Why.AGE


async def _of_run(
    thread: Thread, record: Record, after: Place | None, ending: Ending
) -> AsyncGenerator[bytes, None]:
    began = await thread.began(record)
    projection = thread.projection(record, began, tuple(began.modes), subgraphs=began.subgraphs)
    projection.id_before = f"{record.id}/"
    chunks = thread.gateway.parts.relay.follow(record.id, None, ending, record.owner)
    async with aclosing(projected(chunks, projection, after)) as frames:
        async for frame in frames:
            yield b"" if frame == sse.HEARTBEAT else frame


async def _following(thread: Thread, run: str) -> str | None:
    """Return the id of the run that follows this run in the thread; None if there is none yet."""
    if (await thread.stands()).newest == run:
        return None
    ids = await thread.gateway.parts.threads.streams(thread.owner, thread.name)
    if run in ids:
        ids = ids[: ids.index(run)]
    return ids[-1] if ids else None


def _after(request: Request) -> tuple[str, Place | None]:
    """Return the run's id and the place from a `Last-Event-ID`; an empty id if there is none.

    Raises Malformed.
    """
    given = request.headers.get("last-event-id") or request.query_params.get("last_event_id") or ""
    if given in ("", "-", "-1", "0"):
        return "", None
    run, _, place = given.partition("/")
    return run, place_given(place)


ROUTES = (Route("GET", "/threads/{thread}/stream", langgraph_thread_stream),)
