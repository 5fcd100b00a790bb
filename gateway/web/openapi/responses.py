"""All answers that a client may get, as OpenAPI's Response Objects: headers, problems, event streams. No I/O.

A problem's codes come from the error tree. An operation names the codes that it may answer with. The error
classes define status, title, members and headers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from gateway.protocol.errors import Encoded, HoldfastError, NoOwner
from gateway.web.headers import SECURE
from gateway.web.openapi.basics import ID, Schema, ref, where

Answer = dict[str, Any]
EXAMPLE = (
    "retry: 1361\n"
    'id: 0-0002\nevent: start\ndata: {"id":"585tvF_CUDKpB4_dVt7pM6Bw","chain":"chat","stages":["chat"],'
    '"created_at":"2026-11-22T18:06:53.800Z"}\n\n'
    'id: 138-7706\nevent: stage\ndata: {"name":"chat","run":1,"index":0,"count":1,"state":"started"}\n\n'
    'id: 233-7706\ndata: {"deployment":"gpt-4o-mini","delta_content":"Hello","stage":"chat"}\n\n'
)
_NOT_STORED = "no-store"
_NOT_KEPT = "no-cache, no-store, no-transform"
_CREATED = {"Location": "Location", "X-Stream-Id": "StreamId"}


def tree(root: type[HoldfastError] = HoldfastError) -> dict[str, type[HoldfastError]]:
    """Return all error classes, by their code."""
    found = {root.code: root}
    for error in root.__subclasses__():
        found |= tree(error)
    return found


def headers(base: str) -> dict[str, Answer]:
    """Return the headers that the document's components name.

    `base` is the path below which the gateway is reached.
    """
    text = {"type": "string"}
    return {
        "Location": _header(where(base), "the stream"),
        "StreamId": _header(ID, "the stream's id"),
        "RetryAfter": _header({"type": "integer", "minimum": 1}, "seconds; ask again after them"),
        "Authenticate": _header(text, "how to say who asks"),
        "Allow": _header(text, "the methods of this path"),
        "NoSniff": _header({"const": SECURE["x-content-type-options"]}),
        "Referrer": _header({"const": SECURE["referrer-policy"]}),
        "NotStored": _header({"const": _NOT_STORED}),
        "NotKept": _header({"const": _NOT_KEPT}),
        "NotStoredOrKept": _header({"enum": [_NOT_STORED, _NOT_KEPT]}, "of the document, of the events"),
        "Checked": _header({"const": "no-cache"}),
        "Unbuffered": _header({"const": "no"}, "asks proxies to pass on each event at once"),
        "ETag": _header(text, "of this very file"),
        "Policy": _header(text, "the page's own script and style, and nothing else"),
        "Codings": _header(
            {"const": "identity"}, "of a body here: none; told with `encoded`", required=False
        ),
        "Leave": _header(text, "for a page of an origin that may ask", required=False),
    }


def empty(description: str, named: Mapping[str, str] | None = None) -> Answer:
    """Return an answer without a body. `named` maps its headers to the names of their components."""
    whole = {"X-Content-Type-Options": "NoSniff", "Referrer-Policy": "Referrer", **(named or {})}
    given = {header: {"$ref": f"#/components/headers/{name}"} for header, name in whole.items()}
    return {"description": description, "headers": given}


def json(description: str, schema: Schema, named: Mapping[str, str] | None = None) -> Answer:
    """Return an answer with JSON that caches must not store."""
    content = {"application/json": {"schema": schema}}
    return {**empty(description, {"Cache-Control": "NotStored", **(named or {})}), "content": content}


def created(schema: str = "Created") -> Answer:
    """Return the answer to a caller that does not follow the new stream at once."""
    return json("the job is in the queue", ref(schema), {"Location": "Location"})


def text(media_type: str) -> Answer:
    """Return an answer with text that caches must not store."""
    named = {"Cache-Control": "NotStored"}
    return {**empty("text", named), "content": {media_type: {"schema": {"type": "string"}}}}


def page(*kinds: str) -> Answer:
    """Return the answer with the page or a part of it. Its policy allows only its own script and style."""
    content = {kind: {"schema": {"type": "string"}} for kind in kinds}
    return {**unchanged("a file of the page"), "content": content}


def unchanged(description: str = "it is what If-None-Match names") -> Answer:
    """Return the answer for a file of the page that the browser already has."""
    named = {"Cache-Control": "Checked", "Content-Security-Policy": "Policy", "ETag": "ETag"}
    return empty(description, named)


def seen(*, created: bool = False) -> Answer:
    """Return the answer to a reader that has already had the terminal event."""
    told = "the stream has ended and its last event was seen: EventSource stops"
    return empty(told, _streamed(created))


def events(description: str, *, created: bool = False, event: str = "Event") -> Answer:
    """Return the answer with server-sent events, as long as the stream or the connection lasts.

    The schema is that of each single event, like `itemSchema` in OpenAPI 3.2. OpenAPI 3.1 cannot describe the
    stream as a whole.
    """
    media = {"schema": ref(event), "examples": {"stream": {"summary": "the wire", "value": EXAMPLE}}}
    return {**empty(description, _streamed(created)), "content": {"text/event-stream": media}}


def events_or(description: str, schema: Schema, event: str = "Event") -> Answer:
    """Return the answer with events, or with JSON, as the client accepts."""
    streamed = events(description, event=event)["content"]
    return {
        **empty(description, {"Cache-Control": "NotStoredOrKept"}),
        "content": {**streamed, "application/json": {"schema": schema}},
    }


def problems(codes: Iterable[str]) -> dict[str, Answer]:
    """Return the problems with these codes, grouped by status. Raises KeyError for an unknown code."""
    known, by_status = tree(), defaultdict(list)
    for code in codes:
        by_status[known[code].status].append(known[code])
    return {str(status): problem(errors) for status, errors in sorted(by_status.items())}


def problem(errors: list[type[HoldfastError]]) -> Answer:
    """Return the answer with the problems of one status (RFC 9457)."""
    status = errors[0].status
    named = {"Cache-Control": "NotStored"}
    if status in (401, 403) and errors != [NoOwner]:
        named["WWW-Authenticate"] = "Authenticate"
    if Encoded in errors:
        named["Accept-Encoding"] = "Codings"
    if status == 405:
        named["Allow"] = "Allow"
    if status in (429, 503):
        named["Retry-After"] = "RetryAfter"
    schema: Schema = {
        "allOf": [ref("Problem"), *(_extended(error) for error in errors if error.members)],
        "properties": {
            "status": {"const": status},
            "code": {"enum": [error.code for error in errors]},
            "title": {"enum": [error.title() for error in errors]},
        },
    }
    told = empty(" ".join(error.title() for error in errors), named)
    return {**told, "content": {"application/problem+json": {"schema": schema}}}


def give_leave(responses: dict[str, Answer], *, preflight: bool) -> None:
    """Add the CORS headers to each of these answers (fetch.spec.whatwg.org, "CORS protocol")."""
    names = ["Allow-Origin", "Allow-Credentials", "Expose-Headers"]
    names += ["Allow-Methods", "Allow-Headers", "Max-Age"] if preflight else []
    leave = {"$ref": "#/components/headers/Leave"}
    for told in responses.values():
        told["headers"] |= {"Vary": leave} | {f"Access-Control-{name}": leave for name in names}


def _extended(error: type[HoldfastError]) -> Schema:
    """Return the members that the problem of this error has besides the common members."""
    which = {"properties": {"code": {"const": error.code}}}
    return {"if": which, "then": {"required": list(error.members)}}


def _header(schema: Schema, description: str = "", *, required: bool = True) -> Answer:
    told = {"description": description} if description else {}
    return {**told, "required": required, "schema": schema}


def _streamed(created: bool) -> dict[str, str]:
    named = {"Cache-Control": "NotKept", "X-Accel-Buffering": "Unbuffered"}
    return named | _CREATED if created else named
