"""Request to response, the same for every host. Hosts route and await; every rule is here or below.

Errors are RFC 9457 problems. An exception that is not ours is logged by its type and stack and answered
500 without a word of its text.
"""

from __future__ import annotations

import functools
import json
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway import protocol, sse
from gateway.body import parse_sample, parse_start, read_json
from gateway.errors import (
    HoldfastError,
    Invalid,
    Malformed,
    NotAcceptable,
    StoreUnavailable,
    TooManyReaders,
    stack_of,
)
from gateway.gateway import Gateway
from gateway.headers import SECURE, cors, policy_of
from gateway.protocol import Cursor
from gateway.record import Record
from gateway.response import HEADERS, EventStream, sent_away

EVENT_STREAM = "text/event-stream"
JSON = "application/json"
_WEB = Path(__file__).parent.parent / "web"
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_log = logging.getLogger("holdfast.handlers")

Handler = Callable[[Gateway, Request], Awaitable[Response]]


def answered(handler: Handler) -> Handler:
    """Turn every error into its problem document."""

    @functools.wraps(handler)
    async def answer(gateway: Gateway, request: Request) -> Response:
        try:
            response = await handler(gateway, request)
        except HoldfastError as error:
            if error.status >= 500:
                _log.warning("%s: %s", handler.__name__, error.code)
            response = problem(error)
        except Exception as error:
            _log.error("%s failed:\n%s", handler.__name__, stack_of(error))
            response = problem(HoldfastError())
        response.headers.update(cors(request, gateway.settings.origins))
        return response

    return answer


@answered
async def create(gateway: Gateway, request: Request) -> Response:
    """POST /stream."""
    owner = await gateway.auth.owner(request.headers)
    follow_now = EVENT_STREAM in _accepted(request)
    after = _cursor(request) if follow_now else None
    start = parse_start(await read_json(request, gateway.bounds), gateway.chains, gateway.bounds)
    if follow_now:
        gateway.parts.hub.check_room()
    record = await gateway.create(
        start, owner=owner, key=_idempotency_key(request), traceparent=_traceparent(request)
    )
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
    return _json(body, 202, {"location": where})


@answered
async def follow(gateway: Gateway, request: Request) -> Response:
    """GET /stream/{id}: events, or the status document."""
    accepted = _accepted(request)
    if EVENT_STREAM not in accepted and (JSON in accepted or not accepted & {"text/*", "*/*"}):
        if not accepted & {JSON, "application/*"}:
            raise NotAcceptable
        return _json(await gateway.status_of(await _found(gateway, request)))
    after = _cursor(request)
    try:
        record = await _found(gateway, request)
        gateway.parts.hub.check_room(record.id)
    except (StoreUnavailable, TooManyReaders) as error:
        if EVENT_STREAM not in accepted and isinstance(error, TooManyReaders):
            raise  # no EventSource, which would give up for good
        return EventStream(sent_away(error))
    return _events(gateway, record, after, {})


@answered
async def cancel(gateway: Gateway, request: Request) -> Response:
    """DELETE /stream/{id}."""
    owner = await gateway.auth.owner(request.headers)
    return _json(await gateway.cancel(request.path_params["id"], owner))


@answered
async def token(gateway: Gateway, request: Request) -> Response:
    """POST /stream/{id}/token."""
    owner = await gateway.auth.owner(request.headers)
    return _json(await gateway.token(request.path_params["id"], owner), 201)


@answered
async def preflight(gateway: Gateway, request: Request) -> Response:
    """OPTIONS: whether a page of another origin may ask."""
    allowed = cors(request, gateway.settings.origins, preflight=True)
    return Response(status_code=204, headers={**SECURE, **allowed})


@answered
async def http_trigger(gateway: Gateway, request: Request) -> Response:
    """POST /api/http_trigger: the original sample's endpoint, through the same queue, worker and log."""
    owner = await gateway.auth.owner(request.headers)
    start = parse_sample(await read_json(request, gateway.bounds), gateway.chains, gateway.bounds)
    gateway.parts.hub.check_room()
    record = await gateway.create(start, owner=owner, traceparent=_traceparent(request))
    chunks = _texts(gateway.parts.relay.follow(record.id, None))
    return EventStream(chunks, {"location": f"/stream/{record.id}", "x-stream-id": record.id})


@answered
async def health(gateway: Gateway, request: Request) -> Response:
    """GET /health: this process is alive."""
    return _json({"status": "ok", "model": gateway.model_state()})


@answered
async def page(gateway: Gateway, request: Request) -> Response:
    """GET /: the page."""
    text = (_WEB / "index.html").read_text()
    headers = {**SECURE, "cache-control": "no-cache", "content-security-policy": policy_of(text)}
    return Response(text, headers=headers, media_type="text/html")


def problem(error: HoldfastError) -> Response:
    """RFC 9457."""
    headers = {"cache-control": "no-store", **SECURE}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(error.retry_after_seconds)
    return Response(
        json.dumps(error.problem()),
        error.status,
        headers=headers,
        media_type="application/problem+json",
    )


def _events(gateway: Gateway, record: Record, after: Cursor | None, headers: dict[str, str]) -> Response:
    if record.ended and str(after) == record.last_id:
        return Response(status_code=204, headers={**HEADERS, **headers})  # EventSource stops
    return EventStream(gateway.parts.relay.follow(record.id, after), headers)


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
        return await gateway.find_by_token(stream_id, tokens[0] if len(tokens) == 1 else "")
    return await gateway.find(stream_id, await gateway.auth.owner(request.headers))


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
    given = request.headers.getlist("last-event-id") or request.query_params.getlist("last_event_id")
    if len(given) > 1:
        raise Malformed("Last-Event-ID was given twice")
    if not given or given[0] in ("", "0"):
        return None
    try:
        return Cursor.parse(given[0])
    except ValueError:
        raise Malformed("Last-Event-ID is not an event id of this gateway") from None


def _idempotency_key(request: Request) -> str:
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return ""
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        raise Invalid("Idempotency-Key", "must be 1 to 255 printable ASCII characters, once")
    return keys[0]


def _traceparent(request: Request) -> str:
    return protocol.traceparent(request.headers.get("traceparent", ""))


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    whole = {"cache-control": "no-store", **SECURE, **(headers or {})}
    return Response(sse.dumps(value), status, headers=whole, media_type=JSON)
