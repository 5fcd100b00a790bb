"""What a request says beside its body: who asks, which stream, from where on. The same for every format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from gateway import protocol
from gateway.observe import loglines
from gateway.protocol import Cursor
from gateway.protocol.errors import Invalid, Malformed, NoOwner
from gateway.store.record import Record
from gateway.streams.service import Gateway

_CLAIMS = "holdfast.claims"  # in a request's scope
_KEY = re.compile(r"[\x20-\x7e]{1,255}")


async def found(gateway: Gateway, request: Request) -> Record:
    """The stream of the path, for its owner, or for whoever shows a token of it."""
    stream_id, tokens = request.path_params["id"], request.query_params.getlist("token")
    if by_token(request) and gateway.knows_tokens:
        record = await gateway.find_by_token(stream_id, tokens[0] if len(tokens) == 1 else "")
        loglines.note(owner=record.owner, by="token")
    else:
        record = await gateway.find(stream_id, await owner(gateway, request))
    note(record)
    return record


def by_token(request: Request) -> bool:
    """Whether a stream token is all that the request shows of who asks."""
    others = "authorization" in request.headers or "x-api-key" in request.headers
    return not others and bool(request.query_params.getlist("token"))


async def owner(gateway: Gateway, request: Request) -> str:
    """Who asks. Raises Unauthorized or AuthUnavailable."""
    if gateway.named is not None:
        caller = await gateway.named.caller(request)
    else:
        caller = await gateway.auth.caller(request.headers)
    request.scope[_CLAIMS] = caller.claims
    loglines.note(owner=caller.owner)
    return caller.owner


def check_apart(gateway: Gateway) -> None:
    """Raises NoOwner where everybody may ask and nobody is asked who he is: all would share what is kept."""
    if gateway.settings.is_open and gateway.settings.open_to_all == "yes":
        raise NoOwner


def claims(request: Request) -> Mapping[str, Any]:
    """What chains are told of who asks; call it after `owner`."""
    known: Mapping[str, Any] = request.scope[_CLAIMS]
    return known


def note(record: Record) -> None:
    """The stream, and the trace that it belongs to, for the request's line in the log."""
    loglines.note(stream=record.id, **({"trace": loglines.trace_id(record.trace)} if record.trace else {}))


def cursor(request: Request) -> Cursor | None:
    """`Last-Event-ID`; the header wins over the query. Raises Malformed."""
    cursors: list[Cursor | None] = []
    for given in (request.headers.getlist("last-event-id"), request.query_params.getlist("last_event_id")):
        if len(given) > 1:
            raise Malformed("Last-Event-ID was given twice")
        try:
            cursors += [None if text in ("", "0") else Cursor.parse(text) for text in given]
        except ValueError:
            raise Malformed("Last-Event-ID is not an event id of this gateway") from None
    return cursors[0] if cursors else None


def idempotency_key(request: Request) -> str:
    """What makes a POST safe to repeat, or the empty string. Raises Invalid."""
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return ""
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        raise Invalid("Idempotency-Key", "must be 1 to 255 printable ASCII characters, once")
    return keys[0]


def has_body(request: Request) -> bool:
    """Whether the request brings a body, or names the type of one."""
    headers = request.headers
    length = headers.get("content-length", "0").strip()
    return length.strip("0") != "" or "content-type" in headers or "transfer-encoding" in headers


def traceparent(request: Request) -> str:
    """The caller's trace context, or the empty string."""
    return protocol.traceparent(request.headers.get("traceparent", ""))
