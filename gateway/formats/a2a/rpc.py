"""A2A 1.0 by JSON-RPC: one path for each chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.formats.a2a.card import VERSION
from gateway.formats.a2a.projection import TaskEvents
from gateway.formats.a2a.refusals import NoVersion, told
from gateway.formats.a2a.request import Sent, parse_send, parse_task
from gateway.formats.a2a.tasks import NotCancelable, Task, TaskOver, sent, task_of
from gateway.formats.base.projection import Frame
from gateway.formats.base.rpc import (
    Call,
    NoMethod,
    NotCall,
    Read,
    begin_call,
    enveloped,
    read_call,
    result,
)
from gateway.formats.base.serving import Route, at_its_end, follow
from gateway.protocol.errors import Invalid, RouteNotFound
from gateway.streams.room import Document
from gateway.streams.service import Gateway
from gateway.streams.start import Start, read_json
from gateway.web import request_head
from gateway.web.answers import answered, json_answer

SEND, STREAM, GET, CANCEL, SUBSCRIBE = (
    "SendMessage",
    "SendStreamingMessage",
    "GetTask",
    "CancelTask",
    "SubscribeToTask",
)
_SENDS = (SEND, STREAM)


@answered("/a2a/{chain}", shape=told)
async def a2a_call(gateway: Gateway, request: Request) -> Response:
    """POST /a2a/{chain}: one call."""
    begin_call(None)
    owner = await request_head.owner(gateway, request)
    chain = request.path_params["chain"]
    if chain not in gateway.chains:
        raise RouteNotFound
    check_version(request)
    chains, bounds = gateway.chains, gateway.bounds

    def params_of(call: Call) -> tuple[Sent, Start | None] | str:
        if call.method in _SENDS:
            given = parse_send(call.params, bounds)
            return given, None if given.task else given.start(chain, chains, bounds)
        if call.method in (GET, CANCEL, SUBSCRIBE):
            return parse_task(call.params)
        raise NoMethod(f"A2A's methods here are {', '.join((*_SENDS, GET, CANCEL, SUBSCRIBE))}")

    read: Read = await read_json(request, bounds, lambda value: read_call(value, params_of), owner)
    begin_call(read.call)
    if read.error is not None:
        raise read.error
    if read.call.id is None:
        raise NotCall("id", "must be given: no method of A2A is a notification")
    if read.call.method in _SENDS:
        given, start = read.params
        return await _send(gateway, request, read.call, given, start, owner)
    task = await task_of(gateway, read.params, owner, chain)
    if read.call.method == GET:
        return await _whole(task, read.call)
    if read.call.method == CANCEL:
        return await _whole(await cancelled(task), read.call)
    return await subscribed(request, task, read.call)


async def _send(
    gateway: Gateway, request: Request, call: Call, given: Sent, start: Start | None, owner: str
) -> Response:
    """Begin a task, or go on with one, and follow it, await its end, or see it as it is now."""
    follows = call.method == STREAM
    gateway.parts.hub.check_room(owner=owner)
    chain = request.path_params["chain"]
    task = await sent(gateway, request, start, given, owner, chain, followed=follows)
    if follows:
        return await streamed(request, task, call)
    if given.at_once or task.newest.ended:
        return await _whole(task, call, "task")
    return await awaited(task, lambda found: result(call, {"task": found}))


async def cancelled(task: Task) -> Task:
    """The task, which is at its end now. Raises NotCancelable where it was before."""
    if task.is_over:
        raise NotCancelable
    owner = task.newest.owner
    await task.gateway.end(task.newest.id, owner)
    newest = await task.gateway.find(task.newest.id, owner)
    return Task(task.gateway, [*task.legs[:-1], newest])


async def streamed(request: Request, task: Task, call: Call) -> Response:
    """A task from its first event, or after `Last-Event-ID`; one that goes on comes as it stands first."""
    if "last-event-id" in request.headers or len(task.legs) > 1:
        return await subscribed(request, task, call, is_new=True)
    return _events(task, call, task.events(task.newest), None)


async def subscribed(request: Request, task: Task, call: Call, *, is_new: bool = False) -> Response:
    """The task as it stands, then what comes; after `Last-Event-ID`, what comes alone.

    Raises TaskOver where nothing comes any more.
    """
    given = request.headers.getlist("last-event-id")
    if len(given) > 1:
        raise Invalid("Last-Event-ID", "was given twice")
    if given and (place := await task.place(given[0])) is not None:
        return _events(task, call, task.events(task.newest), place)
    if task.is_over and not is_new:
        raise TaskOver("the task has ended: GetTask tells how")
    document, place = await task.told()
    events = task.events(task.newest)
    first = Frame({"task": document}).encode(f"{events.id_before}{place}")
    return _events(task, call, events, place, first)


def _events(task: Task, call: Call, events: TaskEvents, after: Any, first: bytes = b"") -> Response:
    return follow(task.gateway, task.newest, events, after, headers_of(task), wrap=enveloped(call, first))


async def awaited(task: Task, tell: Callable[[dict[str, Any]], Any]) -> Response:
    """The task when its newest leg is at its end."""
    before = await task.artifacts_before()
    events = task.events(task.newest)

    def document() -> Any:
        standing = {"status": events.status, "artifacts": events.artifacts()}
        return tell(task.document(standing, before))

    return at_its_end(task.gateway, task.newest, events, document, headers_of(task))


async def _whole(task: Task, call: Call, member: str = "") -> Response:
    document, _ = await task.told()
    made = result(call, {member: document} if member else document)
    return json_answer(Document.of(made, document.share), 200, headers_of(task))


def headers_of(task: Task) -> dict[str, str]:
    """Where the stream is, in our own format."""
    return {"x-stream-id": task.newest.id}


def check_version(request: Request) -> None:
    """Raises NoVersion for a client of another version; one that names none is taken for one of this."""
    given = request.headers.get("a2a-version", VERSION).strip()
    if given != VERSION and not given.startswith(f"{VERSION}."):
        raise NoVersion


ROUTES = (Route("POST", "/a2a/{chain}", a2a_call),)
