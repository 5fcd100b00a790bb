"""JSON Schemas of all data on the wire: bodies, the status document, the events, a problem. No I/O.

Each schema takes numbers and names from the code that reads or writes the data. Tests check real requests
and answers against the schemas. All patterns have the same meaning in ECMA-262, Python and Rust.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.protocol import TERMINAL_EVENTS, EventType, Status
from gateway.store.record import WAITING
from gateway.streams.messages import MOST_ID, MOST_NAME, ROLES, STATUSES
from gateway.streams.resume import MOST_RESPONSES
from gateway.streams.start import MAX_METADATA_BYTES, STRATEGIES, Bounds
from gateway.web.openapi import graphs, lists, webhooks
from gateway.web.openapi.basics import (
    ANY_ID,
    CURSOR_OR_NONE,
    EVENT_ID,
    ID,
    NATURAL,
    NOT_BLANK,
    TEXT,
    THREAD_NAME,
    TIME,
    Schema,
    also,
    event,
    exactly,
    or_null,
    ref,
    where,
)

SAMPLE_EVENTS = (EventType.MESSAGE, *TERMINAL_EVENTS)


def components(
    chains: Mapping[str, Schema | None], bounds: Bounds, base: str, default: str
) -> dict[str, Schema]:
    """Return all named schemas. `chains`: the input's schema of each chain. `default`: the default chain."""
    return {
        **_bodies(chains, bounds, default),
        **_json(bounds),
        "Message": _message(bounds),
        "ToolCall": _call(),
        "Created": exactly(
            id=ID, status={"const": Status.QUEUED.value}, chain=TEXT, stream=where(base), created_at=TIME
        ),
        **_asking(base),
        "Chains": exactly(default=TEXT, chains={"type": "array", "items": ref("Chain")}),
        "Chain": also(
            exactly(name=TEXT, stages={"type": "array", "items": TEXT}, input=or_null({})),
            params={"type": "object", "description": "JSON Schema of all that callers may set, if declared"},
        ),
        **lists.components(bounds.items),
        "Token": exactly(token=TEXT, expires_at=TIME, stream=TEXT),
        "Health": exactly(status={"const": "ok"}, model=TEXT),
        "Ready": _ready(),
        "Status": _status(),
        "Usage": {"type": "object", "additionalProperties": {"type": "integer"}},
        "Failure": also(exactly(code=TEXT, message=TEXT, retryable={"type": "boolean"}), detail=TEXT),
        "Problem": {
            **exactly(
                type={"type": "string", "pattern": "^urn:holdfast:problem:"},
                title=TEXT,
                status={"type": "integer"},
                detail=TEXT,
                code=TEXT,
            ),
            "additionalProperties": {"type": ["string", "integer"]},
        },
        **{_name(kind): _event(kind, data) for kind, data in _data().items()},
        "Event": {"oneOf": [ref(_name(kind)) for kind in EventType]},
        "SampleEvent": {"oneOf": [ref(_name(kind)) for kind in SAMPLE_EVENTS]},
    }


def _asking(base: str) -> dict[str, Schema]:
    """Return the schemas of a graph's questions and of streams that continue another stream.

    A stream continues another one with an answer, or as another try.
    """
    return {
        "Retried": exactly(
            id=ID,
            retries=ID,
            status={"const": Status.QUEUED.value},
            chain=TEXT,
            stream=where(base),
            created_at=TIME,
            **{"from": TEXT},
        ),
        "Resumed": exactly(
            id=ID,
            status={"const": Status.QUEUED.value},
            chain=TEXT,
            stream=where(base),
            created_at=TIME,
            resumes=ID,
        ),
        "Interrupt": also(exactly(id=TEXT, value={}), response_schema={"type": "object"}),
    }


def _resume(bounds: Bounds) -> Schema:
    node = {"type": "string", "minLength": 1}
    goto = {"anyOf": [node, {**also(exactly(node=node), input=ref("Json"))}]}
    response = {
        **also(exactly(interrupt_id=node), status={"const": "resolved"}, response=ref("Json")),
        "required": ["interrupt_id", "response"],
    }
    cancelled = also(exactly(interrupt_id=node, status={"const": "cancelled"}), response=ref("Json"))
    return {
        **exactly(
            responses={
                "type": "array",
                "items": {"oneOf": [response, cancelled]},
                "maxItems": min(MOST_RESPONSES, bounds.items),
                "description": "an answer to each open question; a cancelled one is answered by null",
            },
            update={**or_null(ref("JsonObject")), "description": "changes of the graph's state"},
            goto={
                "anyOf": [
                    goto,
                    {"type": "array", "items": goto, "maxItems": min(MOST_RESPONSES, bounds.items)},
                    {"type": "null"},
                ],
                "description": "the nodes that come next",
            },
            webhook=_instead("that of the stream that asks"),
        ),
        "required": ["responses"],
    }


def _instead(whose: str) -> Schema:
    return {**or_null(ref("Webhook")), "description": f"instead of {whose}; null: none"}


def _retry() -> Schema:
    fields: dict[str, Schema] = {
        "from": {**ANY_ID, "description": "a stage, or the id of the event with which one began"},
        "params": {**ref("JsonObject"), "description": "set anew beside those of the failed stream"},
        "input_patch": {
            "not": {"type": "null"},
            "description": "a merge patch (RFC 7396) of the failed stream's input",
        },
        "webhook": _instead("the failed stream's"),
    }
    return {**exactly(**fields), "required": []}


def _bodies(chains: Mapping[str, Schema | None], bounds: Bounds, default: str) -> dict[str, Schema]:
    user: Schema = {"type": "string", "pattern": NOT_BLANK, "examples": ["Who are you?"]}
    most = min(bounds.messages, bounds.items)
    messages = {"type": "array", "items": ref("Message"), "minItems": 1, "maxItems": most}
    options: dict[str, Schema] = {
        "chain": {"enum": sorted(chains), "default": default},
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
            **or_null(ref("JsonObject")),
            "description": f"at most {MAX_METADATA_BYTES} bytes of JSON; echoed in the status document",
        },
        "thread": {
            **THREAD_NAME,
            "description": "the conversation that this goes on with, in the caller's own name space",
        },
        "multitask_strategy": {
            "enum": list(STRATEGIES),
            "default": STRATEGIES[0],
            "description": "needs a thread: what happens where another stream of it runs",
        },
        "webhook": ref("Webhook"),
    }

    def start(name: str, schema: Schema) -> Schema:
        needed = {"multitask_strategy": ["thread"]}
        whole = exactly(**{name: schema, **options})
        return {**whole, "required": [name], "dependentRequired": needed}

    return {
        **webhooks.schemas(),
        "Resume": _resume(bounds),
        "Start": {
            "description": f"Nested {bounds.depth} deep at most. Lists and objects, those of a chain's "
            f"own input too, have at most {bounds.items} members, and names {bounds.name} characters.",
            "oneOf": [ref("StartUser"), ref("StartMessages"), ref("StartInput"), ref("StartProducer")],
        },
        "StartUser": start("user", user),
        "StartMessages": start("messages", messages),
        "StartInput": {
            "oneOf": [_asked_of(name, chains[name], start, needed=name != default) for name in sorted(chains)]
        },
        "SampleStart": exactly(user=user),
        "Retry": _retry(),
    }


def _asked_of(
    name: str, schema: Schema | None, start: Callable[[str, Schema], Schema], *, needed: bool
) -> Schema:
    """Return the schema of a start of one chain. `needed`: the request must name the chain.

    If the chain's schema has definitions, they belong to this schema only, and not to the document.
    """
    own = {"$id": f"urn:holdfast:chain:{name}", **schema} if schema and "$defs" in schema else schema
    whole = start("input", own or ref("Json"))
    chain: Schema = {"const": name}
    if not needed:
        return {**whole, "properties": {**whole["properties"], "chain": {**chain, "default": name}}}
    return {
        **whole,
        "properties": {**whole["properties"], "chain": chain},
        "required": [*whole["required"], "chain"],
    }


def _json(bounds: Bounds) -> dict[str, Schema]:
    """Return the schemas of any JSON, within the limits of this gateway."""
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
    content = {"anyOf": [TEXT, parts]}
    calls = {"type": "array", "items": ref("ToolCall"), "minItems": 1, "maxItems": bounds.items}
    answer = exactly(role={"const": "tool"}, content=content, tool_call_id=_word(MOST_ID))
    asking = exactly(role={"const": "assistant"}, tool_calls=calls)
    return {
        "oneOf": [
            exactly(role={"enum": [role for role in ROLES if role != "tool"]}, content=content),
            also(asking, content=or_null(content)),
            {
                **also(answer, name=_word(MOST_NAME), status={"enum": list(STATUSES)}),
                "description": "what a tool of the client's answers to a call before it, by that call's id",
            },
        ]
    }


def _call() -> Schema:
    arguments = {"type": "string", "contentMediaType": "application/json", "contentSchema": ref("JsonObject")}
    function = exactly(name=_word(MOST_NAME), arguments=arguments)
    return exactly(id=_word(MOST_ID), type={"const": "function"}, function=function)


def _word(most: int) -> Schema:
    """Return the schema of a text that is not empty and has at most `most` characters."""
    return {"type": "string", "minLength": 1, "maxLength": most}


def _ready() -> Schema:
    """Return the schemas of a process that can serve, or cannot.

    docs/operations.md describes the states of its parts.
    """
    part = exactly(state=TEXT)
    queue = {**exactly(state=TEXT, depth=NATURAL), "required": ["state"]}
    workers = exactly(state={"enum": ["seen", "none_seen"]})
    parts = {"store": part, "queue": queue, "subscriber": part, "model": part, "workers": workers}
    return exactly(status={"enum": ["ready", "unready"]}, **parts)


def _status() -> Schema:
    stage = exactly(
        name=TEXT, run={"type": "integer", "minimum": 1}, state={"enum": ["started", "finished"]}, text=TEXT
    )
    whole = exactly(
        id=ID,
        status={"enum": [*(status.value for status in Status), WAITING]},
        chain=TEXT,
        stages={"type": "array", "items": stage},
        text={**TEXT, "description": "the last stage's"},
        usage=or_null(ref("Usage")),
        attempt=NATURAL,
        last_event_id=EVENT_ID,
        created_at=TIME,
        started_at=or_null(TIME),
        ended_at=or_null(TIME),
        metadata={"type": ["object", "null"], "description": "left out for who shows a stream token"},
        error=or_null(ref("Failure")),
        interrupts={"type": "array", "items": ref("Interrupt"), "description": "what waits for an answer"},
        resumes=or_null(ID),
        resumed_by=or_null(ID),
        retries=or_null(ID),
    )
    required = [name for name in whole["required"] if name != "metadata"]
    return {**also(whole, usage_lost=_lost()), "required": required}


def _lost() -> Schema:
    """Return the schema of a field that is present only if something was lost."""
    return {**ref("Usage"), "description": "used by tries and attempts of which nothing stands, if any"}


def _name(kind: EventType) -> str:
    return f"{(kind.value or 'text').capitalize()}Event"


def _event(kind: EventType, data: Schema) -> Schema:
    """Return the schema of one server-sent event of a stream's log."""
    required = ["id", "event", "data"] if kind.value else ["id", "data"]
    return {**event([kind], CURSOR_OR_NONE, data), "required": required}


_RUN: Schema = {"type": "integer", "minimum": 1}
_BELOW: Mapping[str, Schema] = {"path": {"type": "array", "items": TEXT}, "within": TEXT}
_NUMBER: Schema = {"type": "integer", "minimum": 2}


def _said() -> Mapping[EventType, Schema]:
    """Return the data of the events with a model's output, by type."""
    nested = also(exactly(within=TEXT, stage=TEXT), delta=TEXT, reasoning=TEXT, run=_RUN, **_BELOW)
    aside = {"path": _BELOW["path"], "aside": TEXT}
    return {
        EventType.MESSAGE: also(
            exactly(deployment=TEXT, delta_content=TEXT, stage=TEXT),
            run=_RUN,
            message=_NUMBER,
            member=TEXT,
            number=_RUN,
            **aside,
        ),
        EventType.NESTED: also(nested, message=_NUMBER, number=_RUN),
        EventType.REFUSAL: also(
            exactly(delta=TEXT, stage=TEXT), run=_RUN, message=_NUMBER, number=_RUN, **aside
        ),
        EventType.CITATIONS: also(
            exactly(stage=TEXT, citations={"type": "array", "items": {}}),
            run=_RUN,
            message=_NUMBER,
            number=_RUN,
            **_BELOW,
        ),
    }


def _data() -> Mapping[EventType, Schema]:
    """Return the schema of each event's data, by type."""
    reset = exactly(attempt=_RUN, stage=TEXT, discard_after=EVENT_ID, reason=TEXT)
    tool = exactly(
        name=TEXT,
        call_id=TEXT,
        stage=TEXT,
        state={"enum": ["started", "finished", "failed"]},
        input={},
        output={},
    )
    stage = exactly(
        name=TEXT, run=_RUN, index=NATURAL, count=NATURAL, state={"enum": ["started", "finished"]}
    )
    done = exactly(finish_reason=TEXT, usage=ref("Usage"), attempts=NATURAL, duration_ms=NATURAL)
    return {
        **_said(),
        EventType.START: also(
            exactly(id=ID, chain=TEXT, stages={"type": "array", "items": TEXT}, created_at=TIME),
            **{"resumes": ID, "retries": ID, "from": TEXT},
        ),
        EventType.STAGE: also(
            stage,
            parent=TEXT,
            step={"type": "integer"},
            aside={"type": "boolean"},
            graph={"const": True},
        ),
        EventType.TOOL: {**also(tool, run=_RUN, **_BELOW), "required": ["name", "call_id", "stage", "state"]},
        EventType.CUSTOM: also(
            exactly(name=TEXT, stage=TEXT, data={}), run=_RUN, message=_NUMBER, number=_RUN, ns=TEXT, **_BELOW
        ),
        EventType.GRAPH: graphs.step(_RUN),
        EventType.RESET: {"oneOf": [reset, exactly(reason={"const": "log_lost"})]},
        EventType.DONE: also(
            done,
            interrupts={"type": "array", "items": ref("Interrupt")},
            next={"type": "array", "items": TEXT},
            usage_lost=_lost(),
        ),
        EventType.FAILED: ref("Failure"),
        EventType.CANCELLED: exactly(),
    }
