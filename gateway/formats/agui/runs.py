"""AG-UI's endpoints: a run is started, followed from any event on, and cancelled.

A run is known by its chain, its thread and its own id, whatever else a request brings: the same POST again is
the same run. The protocol knows no way back to a run; here each event has an `id:`, and `Last-Event-ID` is
taken by the repeated POST and by GET. To these clients a clean close is the end: theirs are cut elsewhere.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.formats.agui.interrupts import answer_of
from gateway.formats.agui.known import begun_as, keep, newest_of, projection_of, run_known
from gateway.formats.agui.request import Asked, Run, asked_of, run_of, spelled
from gateway.formats.agui.told import ChainNotFound, refused
from gateway.formats.base.projection import Place
from gateway.formats.base.serving import Route, begin, follow, place_given, stands
from gateway.protocol.errors import CursorLost, Invalid, NotWaiting, StreamNotFound, ThreadWaiting
from gateway.store.record import WAITING, Record
from gateway.streams.service import Gateway
from gateway.streams.start import read_json
from gateway.web import request_head
from gateway.web.answers import answered, json_answer

_FROM_THE_START = ("", "0", "-1")


@answered("/agui/{chain}", shape=refused)
async def agui_run(gateway: Gateway, request: Request) -> Response:
    """POST /agui/{chain}: a run, started unless it is known, and its events after `Last-Event-ID`."""
    owner = await request_head.owner(gateway, request)
    after, chain = _after(request), request.path_params["chain"]
    run, asked = await read_json(request, gateway.bounds, lambda value: _read(gateway, value, chain), owner)
    gateway.parts.hub.check_room(owner=owner)
    record = await run_known(gateway, owner, run)
    if record is None:
        if after is not None:
            raise StreamNotFound
        if isinstance(asked, Exception):
            raise asked
        record = await _begin(gateway, request, owner, run, asked)
    return await _follow(gateway, record, after)


@answered("/agui/{chain}/{run}", shape=refused)
async def agui_follow(gateway: Gateway, request: Request) -> Response:
    """GET /agui/{chain}/{run}: the events of a run, all of them or those after `Last-Event-ID`."""
    owner, after = await request_head.owner(gateway, request), _after(request)
    return await _follow(gateway, await _found(gateway, request, owner), after)


@answered("/agui/{chain}", shape=refused)
async def agui_join(gateway: Gateway, request: Request) -> Response:
    """GET /agui/{chain}?runId=&offset=: the same."""
    owner, after = await request_head.owner(gateway, request), _after(request)
    return await _follow(gateway, await _found(gateway, request, owner), after)


@answered("/agui/{chain}/{run}", shape=refused)
async def agui_cancel(gateway: Gateway, request: Request) -> Response:
    """DELETE /agui/{chain}/{run}: end it; its status document."""
    owner = await request_head.owner(gateway, request)
    record = await _found(gateway, request, owner)
    return json_answer(await gateway.cancel(record.id, owner))


def _read(gateway: Gateway, value: Any, chain: str) -> tuple[Run, Asked | Exception]:
    """The run that a body names, and what it asks for; that is not looked at where the run is known."""
    value = spelled(value)
    run = run_of(value, chain)
    if chain not in gateway.chains:
        return run, ChainNotFound()
    try:
        return run, asked_of(value, run, gateway.chains, gateway.inputs, gateway.bounds)
    except Invalid as error:
        return run, error


async def _begin(gateway: Gateway, request: Request, owner: str, run: Run, asked: Asked) -> Record:
    """Start a run, or have the one that waits in its thread go on. Raises ThreadWaiting, or as these do."""
    newest = await newest_of(gateway, owner, run)
    if asked.start is None:
        if newest is None:
            raise NotWaiting
        if newest.state != WAITING and newest.resumes:  # the same answer again is the same run
            newest = await gateway.find(newest.resumes, owner)
        record = await gateway.resume(
            newest.id,
            answer_of(newest.id, asked.resume, newest.questions),
            owner=owner,
            traceparent=request_head.traceparent(request),
            followed=True,
            claims=request_head.claims(request),
        )
        request_head.note(record)
    else:
        if newest is not None and newest.state == WAITING:
            raise ThreadWaiting(newest.id)
        record = await begin(gateway, request, asked.start, owner, followed=True, key=run.key)
    await keep(gateway, owner, run, record, asked.kept)
    return record


async def _found(gateway: Gateway, request: Request, owner: str) -> Record:
    """The run that a path or a query names. Raises StreamNotFound or StreamGone."""
    query, path = request.query_params, request.path_params
    name = path.get("run", query.get("runId", ""))
    if not name:
        raise Invalid("runId", "must be given")
    record = await begun_as(gateway, owner, Run(path["chain"], query.get("threadId", ""), name))
    request_head.note(record)
    return record


async def _follow(gateway: Gateway, record: Record, after: Place | None) -> Response:
    if after is not None and not await stands(gateway, record, after):
        raise CursorLost
    projection = await projection_of(gateway, record)
    return follow(gateway, record, projection, after, {"x-stream-id": record.id})


def _after(request: Request) -> Place | None:
    """The event that a client has had last; None: from the first. Raises Malformed."""
    query = request.query_params
    given = request.headers.get("last-event-id", query.get("last_event_id", query.get("offset", "")))
    if given in _FROM_THE_START:
        return None
    return place_given(given)


ROUTES = (
    Route("POST", "/agui/{chain}", agui_run),
    Route("GET", "/agui/{chain}", agui_join),
    Route("GET", "/agui/{chain}/{run}", agui_follow),
    Route("DELETE", "/agui/{chain}/{run}", agui_cancel),
)
