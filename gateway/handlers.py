"""Request to response, the same for every host. Hosts route and await; every rule is here or below."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response

from gateway import journal, protocol, sse
from gateway.answers import JSON, answered, json_answer
from gateway.body import parse_sample, parse_start, read_json
from gateway.errors import Invalid, Malformed, NotAcceptable, StoreUnavailable, TooManyReaders
from gateway.gateway import Gateway
from gateway.headers import SECURE, cors
from gateway.protocol import Cursor
from gateway.record import Record
from gateway.response import HEADERS, EventStream, sent_away
from gateway.subscription import Ending

EVENT_STREAM = "text/event-stream"
_KEY = re.compile(r"[\x20-\x7e]{1,255}")


@answered("/stream")
async def create(gateway: Gateway, request: Request) -> Response:
    """POST /stream."""
    owner = await _owner(gateway, request)
    follow_now = EVENT_STREAM in _accepted(request)
    after = _cursor(request)
    start = parse_start(await read_json(request, gateway.bounds), gateway.chains, gateway.bounds)
    if follow_now:
        gateway.parts.hub.check_room()
    record = await gateway.create(
        start, owner=owner, key=_idempotency_key(request), traceparent=_traceparent(request)
    )
    _note(record)
    where = f"/stream/{record.id}"
    if follow_now:
        return _events(gateway, record, after, {"location": where, "x-stream-id": record.id})
    body = {
        "id": record.id,
        "status": "queued",
        "chain": record.chain,
        "stream": where,
        "created_at": protocol.iso(record.created_ms),
    }
    return json_answer(body, 202, {"location": where})


@answered("/stream/{id}")
async def follow(gateway: Gateway, request: Request) -> Response:
    """GET /stream/{id}: events, or the status document."""
    after, accepted = _cursor(request), _accepted(request)
    if EVENT_STREAM not in accepted and (JSON in accepted or not accepted & {"text/*", "*/*"}):
        if not accepted & {JSON, "application/*"}:
            raise NotAcceptable
        return json_answer(await gateway.status_of(await _found(gateway, request)))
    try:
        record = await _found(gateway, request)
        gateway.parts.hub.check_room(record.id)
    except (StoreUnavailable, TooManyReaders) as error:
        if EVENT_STREAM not in accepted and isinstance(error, TooManyReaders):
            raise  # no EventSource, which would give up for good
        return EventStream(sent_away(error))
    return _events(gateway, record, after, {})


@answered("/stream/{id}")
async def cancel(gateway: Gateway, request: Request) -> Response:
    """DELETE /stream/{id}."""
    owner = await _owner(gateway, request)
    return json_answer(await gateway.cancel(request.path_params["id"], owner))


@answered("/stream/{id}/token")
async def token(gateway: Gateway, request: Request) -> Response:
    """POST /stream/{id}/token."""
    owner = await _owner(gateway, request)
    return json_answer(await gateway.token(request.path_params["id"], owner), 201)


@answered("*")
async def preflight(gateway: Gateway, request: Request) -> Response:
    """OPTIONS: whether a page of another origin may ask."""
    allowed = cors(request, gateway.settings.origins, preflight=True)
    return Response(status_code=204, headers={**SECURE, **allowed})


@answered("/api/http_trigger")
async def http_trigger(gateway: Gateway, request: Request) -> Response:
    """POST /api/http_trigger: the original sample's endpoint, through the same queue, worker and log."""
    owner = await _owner(gateway, request)
    start = parse_sample(await read_json(request, gateway.bounds), gateway.chains, gateway.bounds)
    gateway.parts.hub.check_room()
    record = await gateway.create(start, owner=owner, traceparent=_traceparent(request))
    _note(record)
    ending = Ending()
    chunks = _texts(gateway.parts.relay.follow(record.id, None, ending))
    return EventStream(chunks, {"location": f"/stream/{record.id}", "x-stream-id": record.id}, ending)


def _events(gateway: Gateway, record: Record, after: Cursor | None, headers: dict[str, str]) -> Response:
    if record.ended and str(after) == record.last_id:
        return Response(status_code=204, headers={**HEADERS, **headers})  # EventSource stops
    ending = Ending()
    return EventStream(gateway.parts.relay.follow(record.id, after, ending), headers, ending)


async def _texts(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Text events and the terminal one.

    What was shown is void after a `reset`, and this endpoint's client knows none: the connection ends there.
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


async def _found(gateway: Gateway, request: Request) -> Record:
    """The stream of the path, for its owner, or for whoever shows a token of it."""
    stream_id, tokens = request.path_params["id"], request.query_params.getlist("token")
    if tokens and "authorization" not in request.headers and "x-api-key" not in request.headers:
        record = await gateway.find_by_token(stream_id, tokens[0] if len(tokens) == 1 else "")
        journal.note(owner=record.owner, by="token")
    else:
        record = await gateway.find(stream_id, await _owner(gateway, request))
    _note(record)
    return record


async def _owner(gateway: Gateway, request: Request) -> str:
    """Who asks. Raises Unauthorized or AuthUnavailable."""
    owner = await gateway.auth.owner(request.headers)
    journal.note(owner=owner)
    return owner


def _note(record: Record) -> None:
    """The stream, and the trace that it belongs to, for the request's line in the log."""
    journal.note(stream=record.id, **({"trace": journal.trace_id(record.trace)} if record.trace else {}))


def _accepted(request: Request) -> set[str]:
    """The media types of Accept that are not refused by q=0; none named means any (RFC 9110, 12.5.1)."""
    named = ",".join(request.headers.getlist("accept"))
    accepted = set()
    for item in (named if named.strip(", \t") else "*/*").split(","):
        kind, *parameters = (part.strip().lower() for part in item.split(";"))
        if kind and not any(re.fullmatch(r"q=0(\.0*)?", p) for p in parameters):
            accepted.add(kind)
    return accepted


def _cursor(request: Request) -> Cursor | None:
    """`Last-Event-ID`; the header wins over the query. Raises Malformed."""
    found: list[Cursor | None] = []
    for given in (request.headers.getlist("last-event-id"), request.query_params.getlist("last_event_id")):
        if len(given) > 1:
            raise Malformed("Last-Event-ID was given twice")
        try:
            found += [None if text in ("", "0") else Cursor.parse(text) for text in given]
        except ValueError:
            raise Malformed("Last-Event-ID is not an event id of this gateway") from None
    return found[0] if found else None


def _idempotency_key(request: Request) -> str:
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return ""
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        raise Invalid("Idempotency-Key", "must be 1 to 255 printable ASCII characters, once")
    return keys[0]


def _traceparent(request: Request) -> str:
    return protocol.traceparent(request.headers.get("traceparent", ""))
