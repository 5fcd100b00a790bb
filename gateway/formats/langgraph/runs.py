"""LangGraph's endpoints for runs: those that its SDKs and `useStream` need to run chains and to reconnect.

A run continues even if it has no reader. `on_disconnect` has no effect, because the gateway cannot
distinguish a client that has left from a client whose network has changed. The path in a run's `Location`
returns the run from the start, or after a `Last-Event-ID`.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from hashlib import sha256
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

import gateway.formats.langgraph.told as told
from gateway.formats.base.projection import Place
from gateway.formats.base.serving import Route, at_its_end, begin, follow, place_given, stands
from gateway.formats.langgraph.names import chain_of
from gateway.formats.langgraph.projection import RUN_STATUS
from gateway.formats.langgraph.request import (
    NOTHING,
    Asked,
    Command,
    begin_state,
    parse_modes,
    parse_run,
    start_of,
    turn_of,
)
from gateway.formats.langgraph.threads import (
    MOST_WALKED,
    RUN,
    Base,
    Began,
    Thread,
    name_of,
    refused,
    whole_number,
)
from gateway.protocol.errors import Invalid, NotWaiting, ThreadBusy, ThreadMoved
from gateway.runtime.off_loop import aside
from gateway.store.record import Record
from gateway.streams.purging import purge
from gateway.streams.service import Gateway
from gateway.streams.start import Start, read_json
from gateway.web import request_head
from gateway.web.answers import answered, json_answer
from gateway.web.headers import SECURE

_FROM_THE_START = ("-1", "0", "")
# A start fails with ThreadBusy after this many tries, if each time another request started its run first.
_TURNS = 10
_PAGE = (("limit", 10), ("offset", 0))
_MESSAGE_BYTES = 64  # the work for one earlier message equals the work for this many bytes of a body


@answered("/threads/{thread}/runs/stream", shape=refused, relative=True)
async def langgraph_stream(gateway: Gateway, request: Request) -> Response:
    """POST: start a run in a thread, and send its frames."""
    return await _streamed(gateway, request)


@answered("/runs/stream", shape=refused, relative=True)
async def langgraph_stream_alone(gateway: Gateway, request: Request) -> Response:
    """POST: start a run without a thread, and send its frames."""
    return await _streamed(gateway, request)


@answered("/threads/{thread}/runs/wait", shape=refused, relative=True)
async def langgraph_wait(gateway: Gateway, request: Request) -> Response:
    """POST: start a run in a thread, and return its state when it ends."""
    return await _awaited(gateway, request)


@answered("/runs/wait", shape=refused, relative=True)
async def langgraph_wait_alone(gateway: Gateway, request: Request) -> Response:
    """POST: start a run without a thread, and return its state when it ends."""
    return await _awaited(gateway, request)


@answered("/threads/{thread}/runs", shape=refused, relative=True)
async def langgraph_create(gateway: Gateway, request: Request) -> Response:
    """POST: start a run in a thread, and return the run at once."""
    return await _created(gateway, request)


@answered("/runs", shape=refused, relative=True)
async def langgraph_create_alone(gateway: Gateway, request: Request) -> Response:
    """POST: start a run without a thread, and return the run at once."""
    return await _created(gateway, request)


@answered("/threads/{thread}/runs", shape=refused, relative=True)
async def langgraph_list(gateway: Gateway, request: Request) -> Response:
    """GET: return a thread's runs, the newest first."""
    thread = Thread(gateway, await request_head.owner(gateway, request), name_of(gateway, request))
    query = request.query_params
    most, skipped = (whole_number(name, query.get(name, most), MOST_WALKED) for name, most in _PAGE)
    status = query.get("status")
    if status is not None and status not in RUN_STATUS.values():
        raise Invalid("status", f"must be one of {', '.join(RUN_STATUS.values())}")
    fitting: list[dict[str, Any]] = []
    select = [name for name in query.getlist("select") if name]
    async with aclosing(thread.all()) as runs:  # reads each run only when it is needed
        while len(fitting) < skipped + most and (found := await anext(runs, None)) is not None:
            run = told.run(thread, found[0])
            fitting += [run] if status in (None, run["status"]) else []
    told_runs = fitting[skipped:]
    if select:
        told_runs = [{name: run[name] for name in select if name in run} for run in told_runs]
    return json_answer(told_runs)


@answered("/threads/{thread}/runs/{id}", shape=refused, relative=True)
async def langgraph_run(gateway: Gateway, request: Request) -> Response:
    """GET: return a run and its status."""
    thread, record, _ = await _found(gateway, request)
    return json_answer(told.run(thread, record))


@answered("/threads/{thread}/runs/{id}", shape=refused)
async def langgraph_run_delete(gateway: Gateway, request: Request) -> Response:
    """DELETE: delete a run, and its data in the thread."""
    thread, record, _ = await _found(gateway, request)
    await purge(gateway, record.id, thread.owner)
    return Response(status_code=204, headers=SECURE)


@answered("/threads/{thread}/runs/{id}/stream", shape=refused, relative=True)
async def langgraph_join_stream(gateway: Gateway, request: Request) -> Response:
    """GET: send a run's frames after a `Last-Event-ID`; without one, only the frames from now on."""
    asked = [mode for mode in request.query_params.getlist("stream_mode") if mode]
    modes = parse_modes(asked) if asked else ()
    thread, record, began = await _found(gateway, request)
    modes = modes or tuple(began.modes)
    after = _after(request, record)
    if after is not None and not await stands(gateway, record, after):
        after = None  # the store has lost events that the reader has: send from the start
    projection = thread.projection(record, began, modes, subgraphs=began.subgraphs)
    headers = told.located(thread, record, told.stream_path(thread, record, modes))
    return follow(gateway, record, projection, after, headers)


@answered("/threads/{thread}/runs/{id}/join", shape=refused, relative=True)
async def langgraph_join(gateway: Gateway, request: Request) -> Response:
    """GET: return a run's state when the run ends."""
    return _at_its_end(gateway, *await _found(gateway, request))


@answered("/threads/{thread}/runs/{id}/cancel", shape=refused, relative=True)
async def langgraph_cancel(gateway: Gateway, request: Request) -> Response:
    """POST: cancel a run. With `action=rollback` the thread also returns to its state before the run."""
    thread, record, began = await _found(gateway, request)
    action = request.query_params.get("action", "interrupt")
    if action not in ("interrupt", "rollback"):
        raise Invalid("action", "must be interrupt or rollback")
    await gateway.end(record.id, thread.owner)
    if action == "rollback":
        await gateway.parts.threads.back(thread.owner, thread.name, record.id, began.before)
    return Response(status_code=204 if request.query_params.get("wait") == "1" else 202)


async def _streamed(gateway: Gateway, request: Request) -> Response:
    thread, record, began, asked = await _begin(gateway, request, attached=True, followed=True)
    projection = thread.projection(record, began, asked.modes, subgraphs=asked.subgraphs)
    headers = told.located(thread, record, told.stream_path(thread, record, asked.modes))
    return follow(gateway, record, projection, None, headers)


async def _awaited(gateway: Gateway, request: Request) -> Response:
    thread, record, began, _ = await _begin(gateway, request, attached=True)
    return _at_its_end(gateway, thread, record, began)


def _at_its_end(gateway: Gateway, thread: Thread, record: Record, began: Began) -> Response:
    projection = thread.projection(record, began)
    headers = told.located(thread, record, f"{told.path(thread, record)}/join")
    return at_its_end(gateway, record, projection, projection.outcome, headers)


async def _created(gateway: Gateway, request: Request) -> Response:
    thread, record, _, _ = await _begin(gateway, request)
    headers = told.located(thread, record, f"{told.path(thread, record)}/join")
    return json_answer(told.run(thread, record), 200, headers)


async def _begin(
    gateway: Gateway, request: Request, *, attached: bool = False, followed: bool = False
) -> tuple[Thread, Record, Began, Asked]:
    """Start the run of a request, or find the run that the same POST has already started.

    `attached`: the answer reads the run, so there must be room for one more reader. If there is no room,
    raises TooManyReaders before anything is started.
    """
    owner, key = await request_head.owner(gateway, request), request_head.idempotency_key(request)
    if attached:
        gateway.parts.hub.check_room(owner=owner)
    bounds = gateway.bounds
    asked = await read_json(request, bounds, lambda value: parse_run(value, key, bounds), owner)
    asked = replace(asked, chain=chain_of(gateway.chains, asked.chain))
    if "thread" not in request.path_params:
        if asked.command is not None:
            raise Invalid("command", "needs a thread")
        nowhere = Thread(gateway, owner, "")
        record, began = await _start(nowhere, request, asked, Base("", ""), followed)
        thread, began = Thread(gateway, owner, record.id), replace(began, thread=record.id)
        await thread.keep(record, began)
        return thread, record, began, asked
    thread = Thread(gateway, owner, name_of(gateway, request))
    return thread, *await begin_in(thread, request, asked, followed=followed), asked


async def begin_in(thread: Thread, request: Request, asked: Asked, *, followed: bool) -> tuple[Record, Began]:
    """Start a run in a thread, or continue a waiting run, or find the run that the same POST has started."""
    if asked.key and (known := await thread.of_key(asked)) is not None:
        return _noted(known), await thread.began(known)
    for _ in range(_TURNS):
        base = await thread.base(asked)
        if base.again is not None:
            record, began = base.again
            return _noted(record), began
        try:
            if (found := await _resumed(thread, request, asked, base, followed)) is not None:
                record, began = found
            else:
                record, began = await _start(thread, request, asked, base, followed)
        except (ThreadBusy, ThreadMoved):  # another run started first: try again
            continue
        if asked.key:
            await thread.remember(asked, record)
        return record, began
    raise ThreadBusy(base.newest)


async def _resumed(
    thread: Thread, request: Request, asked: Asked, base: Base, followed: bool
) -> tuple[Record, Began] | None:
    """Continue the thread's newest run, which waits for an answer.

    Return None if the request is for a new run. If the newest run was started by the same command, return
    this run. Raises NotWaiting and the errors of `Gateway.resume`.
    """
    newest = await thread.found(base.newest)
    passes = asked.input is None and newest is not None and newest.questions == []  # stopped at a breakpoint
    if asked.command is None and not passes:
        return None
    if newest is None:
        raise NotWaiting
    before = await thread.began(newest)
    if newest.questions is None and before.digest == asked.digest:
        return _noted(newest), before
    command = asked.command or Command(NOTHING, None, ())
    given = await thread.values(newest, before)
    record = await thread.gateway.resume(
        newest.id,
        replace(command.answers(newest.questions or ()), webhook=asked.webhook),
        owner=thread.owner,
        traceparent=request_head.traceparent(request),
        followed=followed,
        claims=request_head.claims(request),
    )
    began = Began(given, newest.id, asked.digest, thread.name, asked.key, asked.modes, asked.subgraphs)
    await thread.keep(record, began)
    return _noted(record), began


async def _start(
    thread: Thread, request: Request, asked: Asked, base: Base, followed: bool
) -> tuple[Record, Began]:
    """Start a run that does not continue a waiting run.

    The input contains the thread's earlier messages. But if the run must wait for its turn, the worker reads
    them from the thread when the turn comes. A graph gets only the client's input, because the thread has the
    graph's state. Raises ThreadBusy or ThreadMoved.
    """
    gateway, before = thread.gateway, base.before
    messages = await thread.messages(before, base.undone)

    def read() -> tuple[dict[str, Any], Start]:
        state = begin_state(asked, messages, gateway.bounds)
        start = start_of(asked, state, gateway.chains, gateway.bounds)
        return state, replace(start, turn=turn_of(asked, state, messages)) if thread.name else start

    state, start = await aside(asked.size + _MESSAGE_BYTES * len(messages), read, thread.owner)
    key = asked.key and sha256(f"{thread.name}\0{before}\0{asked.key}".encode()).hexdigest()
    began = Began(state, before, asked.digest, thread.name, asked.key, asked.modes, asked.subgraphs)
    start = replace(
        start, graph={"input": asked.input} | ({"checkpoint": base.checkpoint} if base.checkpoint else {})
    )
    if thread.name:
        start = replace(
            start,
            thread=thread.name,
            strategy=asked.strategy,
            lapses=True,
            whole=not base.waits,
            after=base.newest,
            keeps=(RUN, began.kept()),
        )
    record = await begin(gateway, request, start, thread.owner, key=key, followed=followed)
    return record, began


async def _found(gateway: Gateway, request: Request) -> tuple[Thread, Record, Began]:
    """Return the path's run with its thread.

    A stream token is not accepted here, because a state contains the client's input.
    """
    thread = Thread(gateway, await request_head.owner(gateway, request), name_of(gateway, request))
    record, began = await thread.own(request.path_params["id"])
    return thread, _noted(record), began


def _noted(record: Record) -> Record:
    request_head.note(record)
    return record


def _after(request: Request, record: Record) -> Place | None:
    """Return the place after which the frames are sent; None: from the start. Raises Malformed."""
    given = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
    if given is None:
        return Place.behind(record.last_id)  # only frames from now on
    if given in _FROM_THE_START:
        return None
    return place_given(given)


ROUTES = (
    Route("POST", "/threads/{thread}/runs/stream", langgraph_stream),
    Route("POST", "/threads/{thread}/runs/wait", langgraph_wait),
    Route("POST", "/threads/{thread}/runs", langgraph_create),
    Route("GET", "/threads/{thread}/runs", langgraph_list),
    Route("GET", "/threads/{thread}/runs/{id}", langgraph_run),
    Route("DELETE", "/threads/{thread}/runs/{id}", langgraph_run_delete),
    Route("GET", "/threads/{thread}/runs/{id}/stream", langgraph_join_stream),
    Route("GET", "/threads/{thread}/runs/{id}/join", langgraph_join),
    Route("POST", "/threads/{thread}/runs/{id}/cancel", langgraph_cancel),
    Route("POST", "/runs/stream", langgraph_stream_alone),
    Route("POST", "/runs/wait", langgraph_wait_alone),
    Route("POST", "/runs", langgraph_create_alone),
)
