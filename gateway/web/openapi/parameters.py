"""The parameters of requests besides the body, as OpenAPI's Parameter Objects. No I/O."""

from __future__ import annotations

from typing import Any

from gateway.relay.joint import FORM
from gateway.web.openapi.basics import ID, IDEMPOTENCY_KEY, LAST_EVENT_ID, THREAD_NAME, Schema

Parameter = dict[str, Any]
_BEFORE = "^[0-9]{1,15}-[A-Za-z0-9_-]{24}$"


def stream(schema: Schema) -> Parameter:
    """Return the parameter for the stream's id in a path."""
    return {"name": "id", "in": "path", "required": True, "schema": schema}


def thread() -> Parameter:
    """Return the parameter for the thread in a path."""
    return {"name": "thread", "in": "path", "required": True, "schema": THREAD_NAME}


def page(most: int, usual: int) -> list[Parameter]:
    """Return the parameters of a list: how many rows, and after which row."""
    limit = {"type": "integer", "minimum": 1, "maximum": most, "default": usual}
    told = "`next` of the page before"
    return [
        _named("limit", "query", limit, "how many"),
        _named("next", "query", {"type": "string", "pattern": "^[0-9]{1,15}-[!-~]{1,2000}$"}, told),
    ]


def mine(most: int, usual: int, states: list[str]) -> list[Parameter]:
    """Return the parameters for the list of a caller's streams: which, how many, and after which row."""
    limit = {"type": "integer", "minimum": 1, "maximum": most, "default": usual}
    state = {"type": "string", "pattern": f"^({'|'.join(states)})(,({'|'.join(states)}))*$"}
    text = {"type": "string"}
    return [
        _named("limit", "query", limit, "how many"),
        _named("before", "query", {"type": "string", "pattern": _BEFORE}, "`next` of the page before"),
        _named("status", "query", state, "only those in one of these states"),
        _named("chain", "query", text, "only this chain's"),
        _named("thread", "query", text, "only this thread's"),
    ]


def part() -> Parameter:
    """Return the parameter for the name of a file of the page, in a path."""
    return {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}


def cursor() -> list[Parameter]:
    """Return the parameters for the cursor from which to resume: header and query."""
    told = "the events after this one; absent, empty or 0: from the first"
    return [
        _named("Last-Event-ID", "header", LAST_EVENT_ID, told),
        _named("last_event_id", "query", LAST_EVENT_ID, "the same; the header wins"),
    ]


def purge() -> Parameter:
    """Return the parameter that says whether the stream is also deleted."""
    told = "end it, and delete everything that is kept of it"
    return _named("purge", "query", {"type": "string", "enum": ["true", "false"]}, told)


def ids(most: int) -> Parameter:
    """Return the parameter for the ids of several streams."""
    schema = {"type": "array", "items": ID, "minItems": 1, "maxItems": most}
    return {**_named("id", "query", schema, "a stream; as often as there are streams"), "required": True}


def position() -> list[Parameter]:
    """Return the parameters for the position from which to resume several streams: header and query."""
    told = "the id of an event: the events of each stream after it"
    schema = {"type": "string", "pattern": f"^(0|({FORM}(\\.{FORM})*)?)$"}
    return [
        _named("Last-Event-ID", "header", schema, told),
        _named("last_event_id", "query", schema, "the same; the header wins"),
    ]


def idempotency_key() -> Parameter:
    """Return the header that makes a POST safe to repeat."""
    told = "same key and same body: the same stream, however often; another body: 422"
    return _named("Idempotency-Key", "header", IDEMPOTENCY_KEY, told)


def traceparent() -> Parameter:
    """Return the header for the caller's trace."""
    told = "carried to the worker; one that is none is passed over (W3C Trace Context, 3.2)"
    return _named("traceparent", "header", {"type": "string"}, told)


def _named(name: str, place: str, schema: Schema, description: str) -> Parameter:
    return {"name": name, "in": place, "schema": schema, "description": description}
