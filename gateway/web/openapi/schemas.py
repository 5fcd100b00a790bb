"""JSON Schemas of what goes over the wire: bodies, the status document, the events, a problem. No I/O.

Each says what the code that reads or writes it says, and takes the number or the name from there; tests hold
real requests and answers against them. Patterns mean the same to ECMA-262, Python and Rust.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.protocol import CURSOR, STREAM_ID, TERMINAL_EVENTS, EventType, Status
from gateway.store.record import WAITING
from gateway.streams.messages import MOST_ID, MOST_NAME, ROLES, STATUSES
from gateway.streams.resume import MOST_RESPONSES
from gateway.streams.start import DEFAULT_CHAIN, MAX_METADATA_BYTES, Bounds

Schema = dict[str, Any]

ANY_ID: Schema = {"type": "string", "minLength": 1}
ID: Schema = {"type": "string", "pattern": f"^{STREAM_ID.pattern}$"}
EVENT_ID: Schema = {"type": "string", "pattern": f"^{CURSOR.pattern}$"}
_CURSOR: Schema = {"type": "string", "pattern": f"^(?:0|{CURSOR.pattern})$"}  # 0: of `log_lost`
LAST_EVENT_ID: Schema = {"type": "string", "pattern": f"^(?:0|{CURSOR.pattern})?$"}
# A field's value has no blank at either end (RFC 9110, 5.5).
IDEMPOTENCY_KEY: Schema = {"type": "string", "pattern": "^[!-~](?:[ -~]{0,253}[!-~])?$"}
TIME: Schema = {"type": "string", "format": "date-time"}
WHERE: Schema = {"type": "string", "pattern": f"^/stream/{STREAM_ID.pattern}$"}
# What `str.strip` leaves something of.
NOT_BLANK = (
    r"[^\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"  # a test compares the two
)
SAMPLE_EVENTS = (EventType.MESSAGE, *TERMINAL_EVENTS)
_TEXT: Schema = {"type": "string"}
_NATURAL: Schema = {"type": "integer", "minimum": 0}


def ref(name: str) -> Schema:
    """A schema of the document's components, by name."""
    return {"$ref": f"#/components/schemas/{name}"}


def components(chains: Mapping[str, Schema | None], bounds: Bounds) -> dict[str, Schema]:
    """All the named schemas; `chains` are the inputs that each chain takes."""
    return {
        **_bodies(chains, bounds),
        **_json(bounds),
        "Message": _message(bounds),
        "ToolCall": _call(),
        "Created": _object(
            id=ID, status={"const": Status.QUEUED.value}, chain=_TEXT, stream=WHERE, created_at=TIME
        ),
        "Retried": _object(
            id=ID,
            retries=ID,
            status={"const": Status.QUEUED.value},
            chain=_TEXT,
            stream=WHERE,
            created_at=TIME,
            **{"from": _TEXT},
        ),
        "Resumed": _object(
            id=ID,
            status={"const": Status.QUEUED.value},
            chain=_TEXT,
            stream=WHERE,
            created_at=TIME,
            resumes=ID,
        ),
        "Interrupt": _and(_object(id=_TEXT, value={}), response_schema={"type": "object"}),
        "Chains": _object(chains={"type": "array", "items": ref("Chain")}),
        "Chain": _and(
            _object(name=_TEXT, stages={"type": "array", "items": _TEXT}, input=_or_null({})),
            params={"type": "object", "description": "JSON Schema of all that callers may set, if declared"},
        ),
        "Token": _object(token=_TEXT, expires_at=TIME, stream=_TEXT),
        "Health": _object(status={"const": "ok"}, model=_TEXT),
        "Ready": _ready(),
        "Status": _status(),
        "Usage": {"type": "object", "additionalProperties": {"type": "integer"}},
        "Failure": _and(_object(code=_TEXT, message=_TEXT, retryable={"type": "boolean"}), detail=_TEXT),
        "Problem": {
            **_object(
                type={"type": "string", "pattern": "^urn:holdfast:problem:"},
                title=_TEXT,
                status={"type": "integer"},
                detail=_TEXT,
                code=_TEXT,
            ),
            "additionalProperties": _TEXT,
        },
        **{_name(kind): _event(kind, data) for kind, data in _data().items()},
        "Event": {"oneOf": [ref(_name(kind)) for kind in EventType]},
        "SampleEvent": {"oneOf": [ref(_name(kind)) for kind in SAMPLE_EVENTS]},
    }


def _object(**properties: Schema) -> Schema:
    """All of these properties, and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _and(schema: Schema, **optional: Schema) -> Schema:
    """The same object, with properties that it may have."""
    return {**schema, "properties": {**schema["properties"], **optional}}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _resume(bounds: Bounds) -> Schema:
    node = {"type": "string", "minLength": 1}
    goto = {"anyOf": [node, {**_and(_object(node=node), input=ref("Json"))}]}
    response = {
        **_and(_object(interrupt_id=node), status={"const": "resolved"}, response=ref("Json")),
        "required": ["interrupt_id", "response"],
    }
    cancelled = _and(_object(interrupt_id=node, status={"const": "cancelled"}), response=ref("Json"))
    return {
        **_object(
            responses={
                "type": "array",
                "items": {"oneOf": [response, cancelled]},
                "maxItems": min(MOST_RESPONSES, bounds.items),
                "description": "an answer to each open question; a cancelled one is answered by null",
            },
            update={**_or_null(ref("JsonObject")), "description": "changes of the graph's state"},
            goto={
                "anyOf": [
                    goto,
                    {"type": "array", "items": goto, "maxItems": min(MOST_RESPONSES, bounds.items)},
                    {"type": "null"},
                ],
                "description": "the nodes that come next",
            },
        ),
        "required": ["responses"],
    }


def _bodies(chains: Mapping[str, Schema | None], bounds: Bounds) -> dict[str, Schema]:
    user: Schema = {"type": "string", "pattern": NOT_BLANK, "examples": ["Who are you?"]}
    most = min(bounds.messages, bounds.items)
    messages = {"type": "array", "items": ref("Message"), "minItems": 1, "maxItems": most}
    options: dict[str, Schema] = {
        "chain": {"enum": sorted(chains), "default": DEFAULT_CHAIN},
        "params": {
            **ref("JsonObject"),
            "description": "handed to the chain as its configurable; where a chain declares its params "
            "(GET /chains), these alone",
        },
        "context": {
            **ref("JsonObject"),
            "description": "params too, and the stronger; a graph with a context_schema is given its names",
        },
        "metadata": {
            **_or_null(ref("JsonObject")),
            "description": f"at most {MAX_METADATA_BYTES} bytes of JSON; echoed in the status document",
        },
    }

    def start(name: str, schema: Schema) -> Schema:
        return {**_object(**{name: schema, **options}), "required": [name]}

    return {
        "Resume": _resume(bounds),
        "Start": {
            "description": f"Nested {bounds.depth} deep at most. Lists and objects, those of a chain's "
            f"own input too, have at most {bounds.items} members, and names {bounds.name} characters.",
            "oneOf": [ref("StartUser"), ref("StartMessages"), ref("StartInput")],
        },
        "StartUser": start("user", user),
        "StartMessages": start("messages", messages),
        "StartInput": {"oneOf": [_asked_of(name, chains[name], start) for name in sorted(chains)]},
        "SampleStart": _object(user=user),
        "Retry": {
            **_object(
                **{
                    "from": {**ANY_ID, "description": "a stage, or the id of the event with which one began"},
                    "params": {
                        **ref("JsonObject"),
                        "description": "set anew beside those of the failed stream",
                    },
                }
            ),
            "required": [],
        },
    }


def _asked_of(name: str, schema: Schema | None, start: Callable[[str, Schema], Schema]) -> Schema:
    """What one chain takes. Of a schema with definitions these are its own, and not the document's."""
    own = {"$id": f"urn:holdfast:chain:{name}", **schema} if schema and "$defs" in schema else schema
    whole = start("input", own or ref("Json"))
    chain: Schema = {"const": name}
    if name == DEFAULT_CHAIN:
        return {**whole, "properties": {**whole["properties"], "chain": {**chain, "default": name}}}
    return {
        **whole,
        "properties": {**whole["properties"], "chain": chain},
        "required": [*whole["required"], "chain"],
    }


def _json(bounds: Bounds) -> dict[str, Schema]:
    """Any JSON, as far as it is taken."""
    values = {"type": "array", "items": ref("Json"), "maxItems": bounds.items}
    members = {
        "type": "object",
        "additionalProperties": ref("Json"),
        "maxProperties": bounds.items,
        "propertyNames": {"maxLength": bounds.name},
    }
    atom = {"type": ["null", "boolean", "number", "string"]}
    return {"Json": {"anyOf": [atom, values, ref("JsonObject")]}, "JsonObject": members}


def _message(bounds: Bounds) -> Schema:
    part = {"allOf": [ref("JsonObject")], "type": "object", "required": ["type"]}
    parts = {"type": "array", "items": part, "minItems": 1, "maxItems": bounds.items}
    content = {"anyOf": [_TEXT, parts]}
    calls = {"type": "array", "items": ref("ToolCall"), "minItems": 1, "maxItems": bounds.items}
    answer = _object(role={"const": "tool"}, content=content, tool_call_id=_word(MOST_ID))
    asking = _object(role={"const": "assistant"}, tool_calls=calls)
    return {
        "oneOf": [
            _object(role={"enum": [role for role in ROLES if role != "tool"]}, content=content),
            _and(asking, content=_or_null(content)),
            {
                **_and(answer, name=_word(MOST_NAME), status={"enum": list(STATUSES)}),
                "description": "what a tool of the client's answers to a call before it, by that call's id",
            },
        ]
    }


def _call() -> Schema:
    arguments = {"type": "string", "contentMediaType": "application/json", "contentSchema": ref("JsonObject")}
    function = _object(name=_word(MOST_NAME), arguments=arguments)
    return _object(id=_word(MOST_ID), type={"const": "function"}, function=function)


def _word(most: int) -> Schema:
    """A text that is not empty, of at most so many characters."""
    return {"type": "string", "minLength": 1, "maxLength": most}


def _ready() -> Schema:
    """A process that can serve, or cannot; the states of its parts are those of docs/operations.md."""
    part = _object(state=_TEXT)
    queue = {**_object(state=_TEXT, depth=_NATURAL), "required": ["state"]}
    return _object(
        status={"enum": ["ready", "unready"]}, store=part, queue=queue, subscriber=part, model=part
    )


def _status() -> Schema:
    stage = _object(
        name=_TEXT, run={"type": "integer", "minimum": 1}, state={"enum": ["started", "finished"]}, text=_TEXT
    )
    whole = _object(
        id=ID,
        status={"enum": [*(status.value for status in Status), WAITING]},
        chain=_TEXT,
        stages={"type": "array", "items": stage},
        text={**_TEXT, "description": "the last stage's"},
        usage=_or_null(ref("Usage")),
        attempt=_NATURAL,
        last_event_id=EVENT_ID,
        created_at=TIME,
        started_at=_or_null(TIME),
        ended_at=_or_null(TIME),
        metadata={"type": ["object", "null"], "description": "left out for who shows a stream token"},
        error=_or_null(ref("Failure")),
        interrupts={"type": "array", "items": ref("Interrupt"), "description": "what waits for an answer"},
        resumes=_or_null(ID),
        resumed_by=_or_null(ID),
        retries=_or_null(ID),
    )
    required = [name for name in whole["required"] if name != "metadata"]
    return {**_and(whole, usage_lost=_lost()), "required": required}


def _lost() -> Schema:
    """What is told only where something was lost."""
    return {**ref("Usage"), "description": "used by tries and attempts of which nothing stands, if any"}


def _name(kind: EventType) -> str:
    return f"{(kind.value or 'text').capitalize()}Event"


def _event(kind: EventType, data: Schema) -> Schema:
    """One server-sent event. A text has no `event:` line, so clients call it `message`."""
    text = {"type": "string", "contentMediaType": "application/json", "contentSchema": data}
    whole = _object(id=_CURSOR, event={"const": kind.value or "message"}, data=text, retry=_NATURAL)
    return {**whole, "required": ["id", "event", "data"] if kind.value else ["id", "data"]}


def _data() -> Mapping[EventType, Schema]:
    """An event's data, by its type."""
    run = {"type": "integer", "minimum": 1}
    below = {"path": {"type": "array", "items": _TEXT}, "within": _TEXT}
    number = {"type": "integer", "minimum": 2}
    nested = _and(_object(within=_TEXT, stage=_TEXT), delta=_TEXT, reasoning=_TEXT, run=run, **below)
    reset = _object(attempt=run, stage=_TEXT, discard_after=EVENT_ID, reason=_TEXT)
    tool = _object(
        name=_TEXT,
        call_id=_TEXT,
        stage=_TEXT,
        state={"enum": ["started", "finished", "failed"]},
        input={},
        output={},
    )
    stage = _object(
        name=_TEXT, run=run, index=_NATURAL, count=_NATURAL, state={"enum": ["started", "finished"]}
    )
    done = _object(finish_reason=_TEXT, usage=ref("Usage"), attempts=_NATURAL, duration_ms=_NATURAL)
    return {
        EventType.MESSAGE: _and(
            _object(deployment=_TEXT, delta_content=_TEXT, stage=_TEXT),
            run=run,
            message=number,
            member=_TEXT,
            path=below["path"],
            aside=_TEXT,
        ),
        EventType.START: _and(
            _object(id=ID, chain=_TEXT, stages={"type": "array", "items": _TEXT}, created_at=TIME),
            **{"resumes": ID, "retries": ID, "from": _TEXT},
        ),
        EventType.STAGE: _and(stage, parent=_TEXT, step={"type": "integer"}, aside={"type": "boolean"}),
        EventType.TOOL: {**_and(tool, run=run, **below), "required": ["name", "call_id", "stage", "state"]},
        EventType.CUSTOM: _and(_object(name=_TEXT, stage=_TEXT, data={}), run=run, message=number, **below),
        EventType.NESTED: _and(nested, message=number),
        EventType.REFUSAL: _and(
            _object(delta=_TEXT, stage=_TEXT), run=run, message=number, path=below["path"], aside=_TEXT
        ),
        EventType.CITATIONS: _and(
            _object(stage=_TEXT, citations={"type": "array", "items": {}}), run=run, message=number, **below
        ),
        EventType.RESET: {"oneOf": [reset, _object(reason={"const": "log_lost"})]},
        EventType.DONE: _and(
            done,
            interrupts={"type": "array", "items": ref("Interrupt")},
            next={"type": "array", "items": _TEXT},
            usage_lost=_lost(),
        ),
        EventType.FAILED: ref("Failure"),
        EventType.CANCELLED: _object(),
    }
