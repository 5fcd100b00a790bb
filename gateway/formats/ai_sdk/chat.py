"""Endpoints of Vercel's AI SDK: send a message to a chat, read its newest stream again, cancel that stream.

A chat's id is a name that the caller chose. If the gateway does not distinguish callers, only the id protects
a chat. So reading a chat needs the same permission as starting one. A client takes a clean close for success,
so the gateway cuts a connection that ends too early. A client shows the body of an error unchanged. So the
body is a readable text, and the error's code is in a header.
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
# A chat's newest stream may have been resumed by this gateway's own API. At most this many of such resumes
# are followed to find the present stream.
MOST_RESUMED = 100
_ENDED = {"true": True, "false": False}
RUN, TAIL = "x-workflow-run-id", "x-workflow-stream-tail-index"


def told(error: HoldfastError) -> Response:
    """Return an error as plain text, which the clients show to the user."""
    kept = {
        name: value
        for name, value in problem(error).headers.items()
        if name not in ("content-type", "content-length")
    }
    headers = {**kept, "x-error-code": error.code}
    return Response(error.detail, error.status, headers=headers, media_type="text/plain")


@answered("/api/chat", shape=told)
async def ai_sdk_start(gateway: Gateway, request: Request) -> Response:
    """POST /api/chat: start a stream or answer approvals, and send the frames of the new stream.

    The new stream becomes the chat's newest stream.
    """
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
        # After the client has run its own tools, its new message starts as a copy of the last message.
        # `again` makes this copy void.
        began = FirstFrames(again=start.input["messages"][-1]["role"] == "tool")
    await began.keep(gateway, record)
    if chat:
        await _remember(gateway, owner, chat, record)
    # A client that reconnects by itself sends no `trigger`. It counts a cut connection as an error and gives
    # up after three, so its connection is not cut at its maximum age, but closed cleanly.
    return _events(gateway, record, began, ages=has_trigger)


@answered("/api/chat/{chat}/stream", shape=told)
async def ai_sdk_resume(gateway: Gateway, request: Request) -> Response:
    """GET /api/chat/{chat}/stream: send the whole newest stream again while it runs.

    With `ended=true` the stream is also sent after its end. A client that was cut off shortly before the end
    gets the missing events in this way. With `startIndex` the chunks from this number on are sent, with the
    same numbers as in the POST's answer. This also works for an ended stream, and then the path may name the
    stream instead of the chat.
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
    """DELETE /api/chat/{chat}: cancel the newest stream, and return its status document."""
    owner = await request_head.owner(gateway, request)
    record = await _newest(gateway, request, owner, or_stream=True)
    return json_answer(await gateway.cancel(record.id, owner))


async def _resume(gateway: Gateway, request: Request, answers: Answers, owner: str) -> Record:
    """Return the stream that continues with these answers. The same answers give the same stream."""
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
    """Check the body's content type. Raises NotJson.

    The type must be JSON, or plain text from an allowed page. A transport that reconnects by itself sends
    plain text. A browser lets every page send plain text with the caller's cookies. So the page's origin must
    be this gateway's origin, or one of the allowed origins.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == JSON:
        return
    origin, host = request.headers.get("origin", ""), request.headers.get("host", "")
    is_ours = not origin or origin in gateway.settings.origins or origin.partition("://")[2] == host
    if kind not in ("", "text/plain") or not is_ours:
        raise NotJson


def projection_of(record: Record, began: FirstFrames) -> UIMessageStream:
    """Return the stream's projection for a connection with these first frames."""
    told = record.metadata if isinstance(record.metadata, dict) else {}
    approvals = told.get(APPROVALS) is True
    return UIMessageStream(record.id, began.again, approvals, began.settled)


def _events(gateway: Gateway, record: Record, began: FirstFrames, *, ages: bool = True) -> Response:
    return follow(gateway, record, projection_of(record, began), headers=_head(record), ages=ages)


def _head(record: Record) -> dict[str, str]:
    return {**VERSION, "x-stream-id": record.id, RUN: record.id}


async def _from(gateway: Gateway, record: Record, first: int) -> Response:
    """Send the chunks from number `first` on. Raises StreamGone if there is no such chunk."""
    projection = projection_of(record, await FirstFrames.kept(gateway, record))

    def had(count: int, has_ended: bool) -> int:  # an ended stream's last frame is not a chunk
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
    """Return the newest stream of the path's chat. Raises StreamNotFound or StreamGone.

    `or_stream`: the path may name a stream itself.
    """
    chat = request.path_params["chat"]
    if not is_chat(chat):
        raise StreamNotFound
    known = await gateway.parts.conversations.look(KIND, owner, chat)
    # A chat without a stream has an empty id here. `find` finds no stream for it.
    record = await gateway.find(known.stream or (chat if or_stream else ""), owner)
    for _ in range(MOST_RESUMED):
        if not record.resumed_by:
            break
        record = await gateway.find(
            record.resumed_by, owner
        )  # its question was answered by the gateway's own API
    request_head.note(record)
    return record


async def _remember(gateway: Gateway, owner: str, chat: str, record: Record) -> None:
    """Store the stream as the chat's newest stream, unless a newer stream is already stored.

    A try fails only if another request of the same chat was faster. All tries fail only if very many requests
    of one chat come at the same time. Then it raises StoreUnavailable.
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
