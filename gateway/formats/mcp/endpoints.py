"""MCP's endpoint. A session is a name and nothing more: no process keeps one, so none is ever lost.

A call's answer is always an event stream, each event with an id that names its stream: a client that was cut
asks for the rest by GET, whichever process answers. A client that goes away cancels nothing, as everywhere.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.formats.base import rpc
from gateway.formats.base.projection import Frame, Place
from gateway.formats.base.rpc import Call, begin_call, read_call, result
from gateway.formats.base.serving import Route, begin, follow, place_given, stands
from gateway.formats.mcp import versions
from gateway.formats.mcp.projection import Progress
from gateway.formats.mcp.tools import NoTool, ToolCall, parse_tool_call, tool
from gateway.formats.mcp.versions import HEADER, NoProtocolVersion, complete, version_of
from gateway.protocol.errors import (
    CursorLost,
    HoldfastError,
    Invalid,
    KeyReused,
    Malformed,
    MethodNotAllowed,
    StreamGone,
    StreamNotFound,
)
from gateway.store.conversations import Conversation
from gateway.store.record import Record
from gateway.streams.service import Gateway
from gateway.streams.start import read_json
from gateway.web import request_head
from gateway.web.answers import answered, json_answer

BEGAN, CALLED = "mcp began", "mcp call"  # kinds of conversation
SESSION = "mcp-session-id"
LIST_MS = 60_000  # for so long a client may keep the list of tools
_MOST_SESSION = 128
_NO_VERSION = -32022


def told(error: HoldfastError) -> Response:
    """A refusal in JSON-RPC's words."""
    data: Any = {"code": error.code, **{name: str(value) for name, value in error.extensions.items()}}
    if isinstance(error, NoProtocolVersion):
        return rpc.refused(error, _NO_VERSION, {"supported": list(versions.VERSIONS)}, status=400)
    if isinstance(error, rpc.NoMethod):
        return rpc.refused(error, rpc.METHOD, data)
    if isinstance(error, Malformed):
        return rpc.refused(error, rpc.PARSE, data, status=400)
    if isinstance(error, rpc.NotCall):
        return rpc.refused(error, rpc.REQUEST, data, status=400)
    if isinstance(error, Invalid | NoTool | KeyReused):
        return rpc.refused(error, rpc.PARAMS, data)
    return rpc.refused(error, rpc.INTERNAL, data, status=error.status)


@answered("/mcp", shape=told)
async def mcp_message(gateway: Gateway, request: Request) -> Response:
    """POST /mcp: one message of a client's."""
    begin_call(None)
    owner = await request_head.owner(gateway, request)
    version = version_of(request.headers.get(HEADER))

    def params_of(call: Call) -> ToolCall | None:
        if call.method == "tools/call":
            return parse_tool_call(call.params, gateway.chains, gateway.inputs.schema, gateway.bounds)
        return None

    read = await read_json(request, gateway.bounds, lambda value: read_call(value, params_of), owner)
    begin_call(read.call)
    if read.error is not None:
        raise read.error
    call = read.call
    if call.id is None:
        if call.method == "notifications/cancelled":
            await _cancel(gateway, request, call, owner)
        return Response(status_code=202)
    if read.params is not None:
        return await _called(gateway, request, call, read.params, owner, version)
    value, headers = _answer(gateway, call, version)
    return json_answer(result(call, value), 200, headers)


@answered("/mcp", shape=told)
async def mcp_resume(gateway: Gateway, request: Request) -> Response:
    """GET /mcp: the events of a call after `Last-Event-ID`. There is no other stream of events."""
    begin_call(None)
    owner = await request_head.owner(gateway, request)
    given = request.headers.getlist("last-event-id")
    if not given:
        raise MethodNotAllowed("GET is for who comes back to a call, with Last-Event-ID")
    stream, _, text = given[0].partition(".")
    place = place_given(text)
    record = await gateway.find(stream, owner)
    request_head.note(record)
    kept = await gateway.parts.conversations.kept(owner, record.id, BEGAN)
    if kept is None:
        raise StreamNotFound
    if not await stands(gateway, record, place):
        raise CursorLost
    return _events(gateway, record, *kept, after=place)


@answered("/mcp", shape=told)
async def mcp_end(gateway: Gateway, request: Request) -> Response:
    """DELETE /mcp: a session is over. Nothing was kept of it; its calls go on."""
    await request_head.owner(gateway, request)
    return Response(status_code=204)


def _answer(gateway: Gateway, call: Call, version: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What is answered at once, and its headers. Raises NoMethod."""
    match call.method:
        case "initialize":
            session = {SESSION: secrets.token_urlsafe(16)}
            return versions.initialized(call.params.get("protocolVersion")), session
        case "server/discover":
            return complete(versions.discovered(), version, kept_ms=LIST_MS), {}
        case "ping":
            return complete({}, version), {}
        case "tools/list":
            tools = [
                tool(name, stages, gateway.inputs.schema(name))
                for name, stages in sorted(gateway.chains.items())
            ]
            return complete({"tools": tools}, version, kept_ms=LIST_MS), {}
        case _:
            raise rpc.NoMethod(f"{call.method[:64]} is no method of this server")


async def _called(
    gateway: Gateway, request: Request, call: Call, asked: ToolCall, owner: str, version: str
) -> Response:
    """A stream, and its events; the same for the same call of a session."""
    gateway.parts.hub.check_room(owner=owner)
    session = _session(request)
    name = _name(session, call.id)
    key = f"mcp {name}" if session else None
    record = await begin(gateway, request, asked.start, owner, followed=True, key=key)
    conversations = gateway.parts.conversations
    began = call.id, asked.progress, version
    await conversations.keep(owner, record.id, BEGAN, began)
    if session:
        await conversations.turn(CALLED, owner, name, Conversation(), record.id)
    return _events(gateway, record, *began)


async def _cancel(gateway: Gateway, request: Request, call: Call, owner: str) -> None:
    """End the stream of a session's call; one that is not known, or has ended, is passed over."""
    session, given = _session(request), call.params.get("requestId")
    if not session or not rpc.is_id(given):
        return
    known = await gateway.parts.conversations.look(CALLED, owner, _name(session, given))
    if not known.stream:
        return
    try:
        await gateway.end(known.stream, owner)
    except (StreamNotFound, StreamGone):
        return


def _events(
    gateway: Gateway, record: Record, call: Any, token: Any, version: str, *, after: Place | None = None
) -> Response:
    """Closed in good order at the connection's age: clients count a cut as an error, and soon give up."""
    events = Progress(stream=record.id, call=call, token=token, version=version)
    wrap = None if after is None else partial(_primed, Frame(b"").encode(f"{events.id_before}{after}"))
    return follow(gateway, record, events, after, {"x-stream-id": record.id}, ages=False, wrap=wrap)


async def _primed(first: bytes, frames: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The place that the reader has named, without data, and then the rest.

    npm's client forgets the place when a connection ends that has carried no id.
    """
    async with aclosing(frames) as rest:
        yield first
        async for frame in rest:
            yield frame


def _session(request: Request) -> str:
    """The session's name; empty: there is none. Raises Invalid."""
    given: str = request.headers.get(SESSION, "")
    if len(given) > _MOST_SESSION:
        raise Invalid(SESSION, f"must be at most {_MOST_SESSION} characters")
    return given


def _name(session: str, call: Any) -> str:
    """A call's name among its caller's; the id 1 is not the id "1"."""
    return f"{session} {type(call).__name__} {call}"


ROUTES = (
    Route("POST", "/mcp", mcp_message),
    Route("GET", "/mcp", mcp_resume),
    Route("DELETE", "/mcp", mcp_end),
)
