"""What a request contains besides its body: the caller, the stream, the cursor. The same for every format."""

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

_CLAIMS = "holdfast.claims"  # key in the scope of a request
_KEY = re.compile(r"[\x20-\x7e]{1,255}")


async def found(gateway: Gateway, request: Request) -> Record:
    """Return the stream that the path names.

    The request must come from the stream's owner, or have a token of the stream.
    """
    stream_id, tokens = request.path_params["id"], request.query_params.getlist("token")
    if by_token(request) and gateway.knows_tokens:
        record = await gateway.find_by_token(stream_id, tokens[0] if len(tokens) == 1 else "")
        loglines.note(owner=record.owner, by="token")
    else:
        record = await gateway.find(stream_id, await owner(gateway, request))
    note(record)
    return record


def by_token(request: Request) -> bool:
    """Whether a stream token is the only authentication in the request."""
    others = "authorization" in request.headers or "x-api-key" in request.headers
    return not others and bool(request.query_params.getlist("token"))


async def owner(gateway: Gateway, request: Request) -> str:
    """Return the caller's name as an owner of streams. Raises Unauthorized or AuthUnavailable."""
    if gateway.named is not None:
        caller = await gateway.named.caller(request)
    else:
        caller = await gateway.auth.caller(request.headers)
    request.scope[_CLAIMS] = caller.claims
    loglines.note(owner=caller.owner)
    return caller.owner


def check_apart(gateway: Gateway) -> None:
    """Raise NoOwner if everybody may use the gateway without authentication.

    In this case all callers would share what is stored for one owner.
    """
    if gateway.settings.is_open and gateway.settings.open_to_all == "yes":
        raise NoOwner


def claims(request: Request) -> Mapping[str, Any]:
    """Return the caller's claims that chains may read. Call this after `owner`."""
    known: Mapping[str, Any] = request.scope[_CLAIMS]
    return known


def note(record: Record) -> None:
    """Note the stream and its trace for the request's line in the log."""
    loglines.note(stream=record.id, **({"trace": loglines.trace_id(record.trace)} if record.trace else {}))


def cursor(request: Request) -> Cursor | None:
    """Return the cursor in `Last-Event-ID`. The header wins over the query. Raises Malformed."""
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
    """Return the key that makes a POST safe to repeat, or the empty string. Raises Invalid."""
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return ""
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        raise Invalid("Idempotency-Key", "must be 1 to 255 printable ASCII characters, once")
    return keys[0]


def has_body(request: Request) -> bool:
    """Whether the request has a body, or names the type of a body."""
    headers = request.headers
    length = headers.get("content-length", "0").strip()
    return length.strip("0") != "" or "content-type" in headers or "transfer-encoding" in headers


def traceparent(request: Request) -> str:
    """Return the caller's trace context, or the empty string."""
    return protocol.traceparent(request.headers.get("traceparent", ""))
