"""HTTP for producers in the OpenAPI document: schemas, and each operation's body and answers. No I/O."""

from __future__ import annotations

from typing import Any

from gateway.producer.said import CODE, MOST_MESSAGE, MOST_TOKENS, STATES, WORD
from gateway.protocol import Status
from gateway.streams.messages import MOST_ID
from gateway.streams.producer_asked import MOST_STAGES
from gateway.streams.start import LINES, MAX_METADATA_BYTES, Bounds
from gateway.web.openapi import basics, responses
from gateway.web.openapi.basics import Schema, ref

NAME: Schema = {"type": "string", "pattern": r"^[^\r\n\u0000]{1,200}$"}
_TEXT: Schema = {"type": "string"}
_STATUS: Schema = {"enum": [status.value for status in Status]}
_POSITION: Schema = {"type": "integer", "minimum": 0, "maximum": 9_999_999_999}
WRITE_TOKEN: Schema = {"type": "apiKey", "in": "header", "name": "X-Write-Token"}
REFUSALS = (
    *("unauthorized", "wrong_position", "stream_taken", "stream_ended", "too_large", "not_ndjson", "encoded"),
    *("malformed", "invalid", "too_many_readers", "no_route", "store_unavailable", "internal"),
)


def components(bounds: Bounds, base: str) -> dict[str, Schema]:
    """Return the named schemas. `base` is the path below which the gateway is reached."""
    metadata = {"anyOf": [ref("JsonObject"), {"type": "null"}]}
    told = f"at most {MAX_METADATA_BYTES} bytes of JSON; echoed in the status document"
    most = min(MOST_STAGES, bounds.items)
    start = {
        "producer": {"const": True},
        "chain": {**NAME, "description": "need not be registered"},
        "stages": {"type": "array", "items": NAME, "maxItems": most, "uniqueItems": True},
        "metadata": {**metadata, "description": told},
        "webhook": ref("Webhook"),
    }
    stage = _object(name=_TEXT, state={"enum": ["open", "finished"]}, result={})
    opened = _object(
        id=basics.ID,
        status=_STATUS,
        chain=_TEXT,
        stream=basics.where(base),
        created_at=basics.TIME,
        write_token=_TEXT,
        position={"const": 0},
        stages={"type": "array", "items": stage},
    )
    return {
        "StartProducer": {**_object(**start), "required": ["producer", "chain"]},
        "Opened": opened,
        "Counted": _object(position=_POSITION, status=_STATUS),
        "ProducerLine": {"oneOf": _lines()},
    }


def opened() -> dict[str, Any]:
    """Return the answer to a producer that opens a stream."""
    return responses.json("a producer's stream, and its write token", ref("Opened"), {"Location": "Location"})


def produce(bounds: Bounds, refused: dict[str, Any]) -> dict[str, Any]:
    """Return the operation POST /stream/{id}/events. `refused` are its problems."""
    told = (
        f"Lines of JSON, each a ProducerLine: at most {bounds.bytes} bytes and {bounds.items} lines. None: "
        "the lease is renewed."
    )
    lines = {"schema": {"type": "string", "contentMediaType": LINES}, "example": EXAMPLE}
    position = {
        "name": "position",
        "in": "query",
        "required": True,
        "schema": _POSITION,
        "description": "the number of lines that were sent before with this token",
    }
    return {
        "operationId": "produce",
        "summary": "Write events into a producer's stream; what was counted before is left out",
        "security": [{"writeToken": []}],
        "parameters": [position],
        "requestBody": {
            "required": False,
            "description": told,
            "x-max-bytes": bounds.bytes,
            "content": {LINES: lines},
        },
        "responses": {"200": responses.json("how many lines are counted", ref("Counted")), **refused},
    }


EXAMPLE = (
    '{"type":"stage","name":"outline","state":"started"}\n{"type":"text","stage":"outline","text":"Hello"}\n'
)


def _lines() -> list[Schema]:
    """Return the schemas of a producer's lines, one for each type of line."""
    state = {"enum": list(STATES)}
    call = {"type": "string", "minLength": 1, "maxLength": MOST_ID}
    usage = {"type": "integer", "minimum": 0, "maximum": MOST_TOKENS}
    word, code = ({"type": "string", "pattern": f"^{form.pattern}$"} for form in (WORD, CODE))
    message = {"type": "string", "maxLength": MOST_MESSAGE}
    return [
        _line("stage", _object(name=NAME, state={"enum": ["started", "finished"]}), result={}),
        _line("text", _object(stage=NAME, text=_TEXT)),
        _line("tool", _object(stage=NAME, name=NAME, call_id=call, state=state), input={}, output={}),
        _line("custom", _object(stage=NAME, name=NAME, data={})),
        _line("done", _object(), finish_reason=word, usage={"type": "object", "additionalProperties": usage}),
        _line("failed", _object(code=code), message=message, retryable={"type": "boolean"}),
    ]


def _line(kind: str, needed: Schema, **others: Schema) -> Schema:
    properties = {"type": {"const": kind}, **needed["properties"], **others}
    return {**needed, "properties": properties, "required": ["type", *needed["required"]]}


def _object(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
