"""Vercel AI SDK's endpoints: a chat is sent to, its newest stream is followed again, and cancelled.

A chat's id is its caller's own name for it; where callers are not told apart it is all that protects a chat,
so following one needs what starting one does. To the clients a clean close is success: theirs are cut. They
show an error's body as it is, so it is our words, and the code is in a header.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.formats.ai_sdk.approvals import Answers
from gateway.formats.ai_sdk.began import FirstFrames, first_of
from gateway.formats.ai_sdk.messages import APPROVALS, is_chat, parse_chat
from gateway.formats.ai_sdk.projection import UIMessageStream
from gateway.formats.base.approvals import answered_by, check_allowed
from gateway.formats.base.serving import Route, begin, follow
from gateway.formats.base.shared_frames import numbered
from gateway.protocol.errors import (
    HoldfastError,
    Invalid,
    NotJson,
    StoreUnavailable,
    StreamGone,
    StreamNotFound,
)
from gateway.store.record import Record
from gateway.streams.service import Gateway
from gateway.streams.start import JSON, read_json
from gateway.web import request_head
from gateway.web.answers import answered, json_answer, problem
from gateway.web.event_stream import HEADERS

KIND = "ai"
VERSION = {"x-vercel-ai-ui-message-stream": "v1"}
TURN_TRIES = 100
MOST_RESUMED = 100  # answers by our own API that a chat's newest stream is looked for behind
_ENDED = {"true": True, "false": False}
RUN, TAIL = "x-workflow-run-id", "x-workflow-stream-tail-index"


def told(error: HoldfastError) -> Response:
    """Plain text, as the clients show it."""
    kept = {
        name: value
        for name, value in problem(error).headers.items()
        if name not in ("content-type", "content-length")
    }
    headers = {**kept, "x-error-code": error.code}
    return Response(error.detail, error.status, headers=headers, media_type="text/plain")


@answered("/api/chat", shape=told)
async def ai_sdk_start(gateway: Gateway, request: Request) -> Response:
    """POST /api/chat: a stream, which is the chat's newest from now on, and its frames."""
    owner = await request_head.owner(gateway, request)
    _check_type(gateway, request)
    chains, bounds = gateway.chains, gateway.bounds
    default = gateway.settings.default_chain

    def parsed(value: Any) -> Any:
        return parse_chat(value, chains, bounds, default), "trigger" in value

    (chat, start), has_trigger = await read_json(request, bounds, parsed, owner, kind="")
    gateway.parts.hub.check_room(owner=owner)
    if isinstance(start, Answers):
        record = await _resume(gateway, request, start, owner)
        began = FirstFrames(again=True, settled=start.settled)
    else:
        record = await begin(gateway, request, start, owner, followed=True)
        # Behind answers of its own tools a client begins with a copy of the message before: void here.
        began = FirstFrames(again=start.input["messages"][-1]["role"] == "tool")
    await began.keep(gateway, record)
    if chat:
        await _remember(gateway, owner, chat, record)
    # One that comes back by itself sends no trigger. It counts broken connections as errors, up to three.
    return _events(gateway, record, began, ages=has_trigger)


@answered("/api/chat/{chat}/stream", shape=told)
async def ai_sdk_resume(gateway: Gateway, request: Request) -> Response:
    """GET /api/chat/{chat}/stream: all of the newest stream again, while it runs.

    With `ended=true` also after that: a client that was cut off at its end gets the rest so. With
    `startIndex` the chunks from that one on, as the POST has them, also of an ended stream; the path may name
    the stream.
    """
    owner = await request_head.owner(gateway, request)
    ended = _ENDED.get(request.query_params.get("ended", "false"))
    if ended is None:
        raise Invalid("ended", "must be true or false")
    first = first_of(request.query_params.getlist("startIndex"))
    if first is not None:
        record = await _newest(gateway, request, owner, or_stream=True)
        return await _from(gateway, record, first)
    try:
        record = await _newest(gateway, request, owner)
    except (StreamNotFound, StreamGone):
        return _nothing()
    return _events(gateway, record, FirstFrames(again=True)) if ended or not record.ended else _nothing()


@answered("/api/chat/{chat}", shape=told)
async def ai_sdk_cancel(gateway: Gateway, request: Request) -> Response:
    """DELETE /api/chat/{chat}: end the newest stream; its status document."""
    owner = await request_head.owner(gateway, request)
    record = await _newest(gateway, request, owner, or_stream=True)
    return json_answer(await gateway.cancel(record.id, owner))


async def _resume(gateway: Gateway, request: Request, answers: Answers, owner: str) -> Record:
    """The stream that goes on with these answers; the same for the same answers."""
    stream_id, given = answered_by(answers.decisions)
    before = await gateway.find(stream_id, owner)
    check_allowed(stream_id, before.questions, answers.decisions)
    record = await gateway.resume(
        stream_id,
        given,
        owner=owner,
        traceparent=request_head.traceparent(request),
        followed=True,
        claims=request_head.claims(request),
    )
    request_head.note(record)
    return record


def _check_type(gateway: Gateway, request: Request) -> None:
    """Raises NotJson for a body that is none by its type, but for a text that a page may send here.

    A transport that comes back by itself sends a text. Browsers let any page send one, with the caller's
    cookies: so its origin has to be this gateway's, or one that is allowed.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == JSON:
        return
    origin, host = request.headers.get("origin", ""), request.headers.get("host", "")
    is_ours = not origin or origin in gateway.settings.origins or origin.partition("://")[2] == host
    if kind not in ("", "text/plain") or not is_ours:
        raise NotJson


def projection_of(record: Record, began: FirstFrames) -> UIMessageStream:
    """The stream, for a connection that begins so."""
    told = record.metadata if isinstance(record.metadata, dict) else {}
    approvals = told.get(APPROVALS) is True
    return UIMessageStream(record.id, began.again, approvals, began.settled)


def _events(gateway: Gateway, record: Record, began: FirstFrames, *, ages: bool = True) -> Response:
    return follow(gateway, record, projection_of(record, began), headers=_head(record), ages=ages)


def _head(record: Record) -> dict[str, str]:
    return {**VERSION, "x-stream-id": record.id, RUN: record.id}


async def _from(gateway: Gateway, record: Record, first: int) -> Response:
    """The chunks from this one on. Raises StreamGone where there is none."""
    projection = projection_of(record, await FirstFrames.kept(gateway, record))

    def had(count: int, has_ended: bool) -> int:  # the last frame of an ended stream is no chunk
        return first if first >= 0 else count - has_ended + first

    found = await numbered(gateway, record, projection, had)
    chunks = found.count - found.has_ended
    if first > chunks or (found.has_ended and first == chunks):
        raise StreamGone
    headers = {**_head(record), TAIL: str(chunks - 1)}
    return follow(gateway, record, projection, found.after, headers, ages=False)


def _nothing() -> Response:
    return Response(status_code=204, headers={**HEADERS, **VERSION})


async def _newest(gateway: Gateway, request: Request, owner: str, *, or_stream: bool = False) -> Record:
    """The newest stream of the path's chat. Raises StreamNotFound or StreamGone.

    `or_stream`: the path may name a stream itself.
    """
    chat = request.path_params["chat"]
    if not is_chat(chat):
        raise StreamNotFound
    known = await gateway.parts.conversations.look(KIND, owner, chat)
    # Of a chat without one there is no id, so none is found.
    record = await gateway.find(known.stream or (chat if or_stream else ""), owner)
    for _ in range(MOST_RESUMED):
        if not record.resumed_by:
            break
        record = await gateway.find(record.resumed_by, owner)  # its question was answered elsewhere
    request_head.note(record)
    return record


async def _remember(gateway: Gateway, owner: str, chat: str, record: Record) -> None:
    """As the chat's newest stream, unless a newer one is there.

    Whoever loses a turn has lost it to another start of this very chat: it takes many to lose all of them.
    """
    conversations = gateway.parts.conversations
    for _ in range(TURN_TRIES):
        before = await conversations.look(KIND, owner, chat)
        if before.stream == record.id or (before.stream and before.state > record.created_ms):
            return
        if await conversations.turn(KIND, owner, chat, before, record.id, record.created_ms):
            return
    raise StoreUnavailable("too many streams of this chat start at once")


ROUTES = (
    Route("POST", "/api/chat", ai_sdk_start),
    Route("GET", "/api/chat/{chat}/stream", ai_sdk_resume),
    Route("DELETE", "/api/chat/{chat}", ai_sdk_cancel),
)
