"""From request to response, the same for every host.

A host only routes requests and awaits the handlers. Every rule is in this module or in a module that it
calls.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway import protocol
from gateway.protocol import Cursor, sse
from gateway.protocol.errors import Invalid, NotAcceptable, StoreUnavailable, TooManyReaders
from gateway.relay.reader import Ending
from gateway.store.record import Record
from gateway.streams import producer_asked, purging, token_giving
from gateway.streams.producer_asked import Asked
from gateway.streams.resume import parse_resume
from gateway.streams.retrying import parse_retry
from gateway.streams.service import Gateway
from gateway.streams.start import Start, parse_sample, parse_start, read_json
from gateway.web import producers, request_head
from gateway.web.answers import JSON, answered, json_answer
from gateway.web.event_stream import HEADERS, EventStream, LiveStream, sent_away
from gateway.web.headers import SECURE, cors
from gateway.web.negotiate import negotiate
from gateway.web.where import base

EVENT_STREAM = "text/event-stream"


@answered("/stream")
async def create(gateway: Gateway, request: Request) -> Response:
    """POST /stream: start a stream."""
    owner = await request_head.owner(gateway, request)
    follow_now = _preferred(request, unasked=JSON) == EVENT_STREAM
    after = request_head.cursor(request)
    chains, bounds = gateway.chains, gateway.bounds

    def parse(value: Any) -> Start | Asked:
        if producer_asked.is_producer(value):
            return producer_asked.parse(value, bounds.webhooks)
        return parse_start(value, chains, bounds, gateway.settings.default_chain)

    start = await read_json(request, bounds, parse, owner)
    if start.webhook is not None:
        request_head.check_apart(gateway)
    if isinstance(start, Asked):
        return await producers.opened(gateway, request, start, owner)
    if start.thread:
        request_head.check_apart(gateway)
    if follow_now:
        gateway.parts.hub.check_room(owner=owner)
    record = await gateway.create(
        start,
        owner=owner,
        key=request_head.idempotency_key(request),
        traceparent=request_head.traceparent(request),
        followed=follow_now,
        claims=request_head.claims(request),
    )
    return _made(gateway, request, record, after, follow_now=follow_now)


@answered("/stream/{id}")
async def follow(gateway: Gateway, request: Request) -> Response:
    """GET /stream/{id}: the events, or the status document."""
    after, preferred = request_head.cursor(request), _preferred(request, unasked=EVENT_STREAM)
    if preferred is None:
        raise NotAcceptable
    if preferred == JSON:
        record = await request_head.found(gateway, request)
        return json_answer(await gateway.status_of(record, metadata=not request_head.by_token(request)))
    try:
        record = await request_head.found(gateway, request)
        gateway.parts.hub.check_room(record.id, record.owner)
    except (StoreUnavailable, TooManyReaders) as error:
        if not _is_event_source(request) and isinstance(error, TooManyReaders):
            # The client is not EventSource, so the error does not make it give up for good.
            raise
        return EventStream(sent_away(error))
    return _events(gateway, record, after, {})


@answered("/stream/{id}")
async def cancel(gateway: Gateway, request: Request) -> Response:
    """DELETE /stream/{id}: end the stream. With `purge=true` also delete it."""
    owner = await request_head.owner(gateway, request)
    given = request.query_params.getlist("purge")
    if given not in ([], ["true"], ["false"]):
        raise Invalid("purge", "must be true or false")
    if given == ["true"]:
        await purging.purge(gateway, request.path_params["id"], owner)
        return Response(status_code=204, headers=SECURE)
    return json_answer(await gateway.cancel(request.path_params["id"], owner))


@answered("/stream/{id}/retry")
async def retry(gateway: Gateway, request: Request) -> Response:
    """POST /stream/{id}/retry: try a failed stream again."""
    owner = await request_head.owner(gateway, request)
    follow_now = _preferred(request, unasked=JSON) == EVENT_STREAM
    after, wanted = request_head.cursor(request), parse_retry({})
    if request_head.has_body(request):
        bounds = gateway.bounds
        wanted = await read_json(request, bounds, lambda value: parse_retry(value, bounds), owner)
        if wanted.webhook is not None:
            request_head.check_apart(gateway)
    if follow_now:
        gateway.parts.hub.check_room(owner=owner)
    record = await gateway.retry(
        request.path_params["id"],
        wanted,
        owner=owner,
        key=request_head.idempotency_key(request),
        traceparent=request_head.traceparent(request),
        followed=follow_now,
        claims=request_head.claims(request),
    )
    return _made(gateway, request, record, after, follow_now=follow_now)


@answered("/stream/{id}/resume")
async def resume(gateway: Gateway, request: Request) -> Response:
    """POST /stream/{id}/resume: answer a stream's questions, and go on in a new stream."""
    owner = await request_head.owner(gateway, request)
    follow_now = _preferred(request, unasked=JSON) == EVENT_STREAM
    bounds = gateway.bounds
    given = await read_json(request, bounds, lambda value: parse_resume(value, bounds), owner)
    if given.webhook is not None:
        request_head.check_apart(gateway)
    if follow_now:
        gateway.parts.hub.check_room(owner=owner)
    record = await gateway.resume(
        request.path_params["id"],
        given,
        owner=owner,
        traceparent=request_head.traceparent(request),
        followed=follow_now,
        claims=request_head.claims(request),
    )
    return _made(gateway, request, record, None, follow_now=follow_now)


@answered("/stream/{id}/token")
async def token(gateway: Gateway, request: Request) -> Response:
    """POST /stream/{id}/token: give a token for this stream."""
    owner = await request_head.owner(gateway, request)
    given = await token_giving.give(gateway, request.path_params["id"], owner, base(request))
    return json_answer(given, 201)


@answered("/stream/{id}/token")
async def token_end(gateway: Gateway, request: Request) -> Response:
    """DELETE /stream/{id}/token: make all tokens void that were given for this stream so far."""
    owner = await request_head.owner(gateway, request)
    await token_giving.end(gateway, request.path_params["id"], owner)
    return Response(status_code=204, headers=SECURE)


@answered("*")
async def preflight(gateway: Gateway, request: Request) -> Response:
    """OPTIONS: say whether a page of another origin may send requests."""
    allowed = cors(request, gateway.settings.origins, preflight=True)
    return Response(status_code=204, headers={**SECURE, **allowed})


@answered("/api/http_trigger")
async def http_trigger(gateway: Gateway, request: Request) -> Response:
    """POST /api/http_trigger: the original sample's endpoint. It uses the same queue, worker and log."""
    owner = await request_head.owner(gateway, request)
    chains, bounds = gateway.chains, gateway.bounds
    default = gateway.settings.default_chain
    start = await read_json(
        request, bounds, lambda value: parse_sample(value, chains, bounds, default), owner
    )
    gateway.parts.hub.check_room(owner=owner)
    record = await gateway.create(
        start,
        owner=owner,
        traceparent=request_head.traceparent(request),
        followed=True,
        claims=request_head.claims(request),
    )
    request_head.note(record)
    ending = Ending()
    chunks = _texts(gateway.parts.relay.follow(record.id, None, ending, record.owner))
    return EventStream(chunks, _created(record), ending)


def _where(record: Record) -> str:
    return f"/stream/{record.id}"


def _created(record: Record) -> dict[str, str]:
    """Return the headers for a caller that follows the new stream at once."""
    return {"location": _where(record), "x-stream-id": record.id}


def _made(
    gateway: Gateway, request: Request, record: Record, after: Cursor | None, *, follow_now: bool
) -> Response:
    """Return the answer about a stream that was started: its events, or the address of its events."""
    request_head.note(record)
    if follow_now:
        return _events(gateway, record, after, _created(record))
    body = {
        "id": record.id,
        "status": "queued",
        "chain": record.chain,
        "stream": base(request) + _where(record),
        "created_at": protocol.iso(record.created_ms),
    }
    if record.retries:
        body |= {"retries": record.retries, "from": record.from_stage}
    elif record.resumes:
        body |= {"resumes": record.resumes}
    return json_answer(body, 202, {"location": _where(record)})


def _preferred(request: Request, unasked: str) -> str | None:
    return negotiate(request.headers.getlist("accept"), (EVENT_STREAM, JSON), unasked)


def _is_event_source(request: Request) -> bool:
    return EVENT_STREAM in ",".join(request.headers.getlist("accept")).lower()


def _events(gateway: Gateway, record: Record, after: Cursor | None, headers: dict[str, str]) -> Response:
    if record.ended and str(after) == record.last_id:
        return Response(status_code=204, headers={**HEADERS, **headers})  # 204 makes EventSource stop
    return LiveStream(gateway.parts.relay, record, after, headers)


async def _texts(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yield the text events and the terminal event.

    A `reset` makes sent text void, but the clients of this endpoint do not know `reset`. So the chunks end
    there.
    """
    async with aclosing(chunks) as source:
        async for chunk in source:
            if chunk == sse.HEARTBEAT:
                yield chunk
                continue
            frames = sse.split_frames(chunk)
            void = next((n for n, frame in enumerate(frames) if sse.frame_kind(frame) == sse.RESET), None)
            kept = [f for f in frames[:void] if not sse.frame_kind(f) or sse.is_terminal(f)]
            if kept:
                yield b"".join(kept)
            if void is not None:
                return
