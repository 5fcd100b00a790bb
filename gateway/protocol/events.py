"""The contract as data: events, states, the transition table, ids and cursors. No I/O, no clock.

A stream's log is the concatenation of its frames. An event's id has two parts: the offset at which its frame
begins, and four hex digits of the token of the claim that wrote the frame. A cursor is right if and only if
the log at the cursor's offset begins with exactly `id: <cursor>` and a line feed. So a cursor proves itself
(`docs/protocol.md`, Event ids).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

VERSION = 1
ANONYMOUS = "anonymous"
ID_RANDOM_BYTES = 16
STREAM_ID = re.compile(r"[0-9a-f]{2}[A-Za-z0-9_-]{22}")
CURSOR = re.compile(r"[0-9]{1,10}-[0-9a-f]{4}")
_FORBIDDEN_IN_NAMES = re.compile(r"[\r\n\0]")
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class EventType(StrEnum):
    """The value of an event's `event:` field.

    `error` and `open` are event names of EventSource itself, so they are never used.
    """

    MESSAGE = ""
    START = "start"
    STAGE = "stage"
    TOOL = "tool"
    CUSTOM = "custom"
    NESTED = "nested"
    REFUSAL = "refusal"
    CITATIONS = "citations"
    GRAPH = "graph"
    RESET = "reset"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Status(StrEnum):
    """The state of a stream."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL_EVENTS: Mapping[EventType, Status] = {
    EventType.DONE: Status.DONE,
    EventType.FAILED: Status.FAILED,
    EventType.CANCELLED: Status.CANCELLED,
}
ENDED = frozenset(TERMINAL_EVENTS.values())
# Maps each state to the states that may follow. A transition that is not listed is an error. running ->
# queued: a worker hands the job over. queued -> failed: the time in which a worker had to claim the job is
# over.
TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.FAILED, Status.CANCELLED}),
    Status.RUNNING: frozenset({Status.QUEUED, *ENDED}),
    Status.DONE: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}


# Not frozen: in a frozen dataclass each field of each text event would be set by a function call.
@dataclass(slots=True)
class Event:
    """One event: its type, and its data as a JSON-able value.

    Raises ValueError for a type with CR, LF or NUL: such a type could forge a frame.
    """

    type: EventType
    data: Any

    def __post_init__(self) -> None:
        if type(self.type) is not EventType and _FORBIDDEN_IN_NAMES.search(self.type):
            raise ValueError("an event type may not hold CR, LF or NUL")


@dataclass(frozen=True, slots=True)
class Cursor:
    """A `Last-Event-ID`: the byte offset of an event's frame in the log, and the tag of its writer.

    The text is kept as it was given. `007-beef` has the right form, but no log has this id.
    """

    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def offset(self) -> int:
        """The offset in bytes at which the frame begins."""
        return int(self.text.partition("-")[0])

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Parse `<offset>-<tag>`. Raises ValueError for any other text (`protocol.md`, GET /stream/{id})."""
        if not CURSOR.fullmatch(text):
            raise ValueError("not an event id")
        return cls(text)


def name(value: str) -> str:
    """Return the name if an event may contain it.

    Raises ValueError for CR, LF or NUL, and for more than 200 characters.
    """
    if _FORBIDDEN_IN_NAMES.search(value) or len(value) > 200:
        raise ValueError("a name may not hold CR, LF or NUL, nor more than 200 characters")
    return value


def text(delta: str, *, deployment: str, stage: str, run: int = 0) -> Event:
    """Return an event with a piece of text.

    The fields `deployment` and `delta_content` are those of the one-function sample. `run` is the run of a
    graph's node.
    """
    data: dict[str, Any] = {"deployment": deployment, "delta_content": delta, "stage": stage}
    if run:
        data["run"] = run
    return Event(EventType.MESSAGE, data)


def start(
    stream_id: str,
    chain: str,
    stages: Sequence[str],
    created_at: str,
    *,
    resumes: str = "",
    retries: str = "",
    from_stage: str = "",
) -> Event:
    """Return the first event of a stream. Every stream has it once.

    `resumes`: the stream whose questions this one answers. `retries`: the failed stream that this one tries
    again, from the stage `from_stage` on.
    """
    data = {"id": stream_id, "chain": chain, "stages": list(stages), "created_at": created_at}
    data |= {"resumes": resumes} if resumes else {}
    return Event(EventType.START, data | ({"retries": retries, "from": from_stage} if retries else {}))


def stage(stage_name: str, *, run: int, index: int, count: int, finished: bool = False) -> Event:
    """Return the event that a stage begins or ends.

    `run` says how often a stage of this name has begun, counted from 1. `index` is the stage's place in the
    chain, counted from 0.
    """
    state = "finished" if finished else "started"
    data = {"name": name(stage_name), "run": run, "index": index, "count": count, "state": state}
    return Event(EventType.STAGE, data)


def node(
    node_name: str,
    *,
    run: int,
    index: int,
    count: int,
    parent: str,
    step: int,
    finished: bool = False,
    aside: bool | None = None,
) -> Event:
    """Return the event that a graph's node begins or ends, within the chain's stage `parent`.

    `step` counts the graph's steps. `aside` is true if the node's output is not among the messages of the
    graph's state. It is None where this is not known.
    """
    event = stage(node_name, run=run, index=index, count=count, finished=finished)
    data = {**event.data, "parent": parent, "step": step}
    return Event(EventType.STAGE, data | ({} if aside is None else {"aside": aside}))


def reset(*, attempt: int, stage_name: str, discard_after: str, reason: str) -> Event:
    """Return the event that makes earlier events of a stage void.

    All text, tool and custom events of this stage after the event `discard_after` are void, and also those of
    its nodes.
    """
    data = {
        "attempt": attempt,
        "stage": stage_name,
        "discard_after": discard_after,
        "reason": reason,
    }
    return Event(EventType.RESET, data)


def tool(tool_name: str, *, call_id: str, stage: str, state: str, said: Any, run: int = 0) -> Event:
    """Return the event that a tool call begins or ends.

    `state` is `started`, `finished` or `failed`. `said` is the input of the tool when the call begins, and
    its output when the call ends.
    """
    data = {"name": name(tool_name), "call_id": call_id, "stage": stage, "state": state}
    data |= {"input" if state == "started" else "output": said}
    return Event(EventType.TOOL, data | ({"run": run} if run else {}))


def custom(event_name: str, data: Any, *, stage: str, run: int = 0) -> Event:
    """Return an event that the chain itself dispatches."""
    whole = {"name": name(event_name), "stage": stage, "data": data}
    return Event(EventType.CUSTOM, whole | ({"run": run} if run else {}))


def nested(kind: str, delta: str, *, within: str, stage: str, run: int = 0) -> Event:
    """Return a piece of what a model outputs inside the tool call `within`.

    `kind` is `delta` for the model's text, or `reasoning`.
    """
    data: dict[str, Any] = {"within": within, "stage": stage, kind: delta}
    return Event(EventType.NESTED, data | ({"run": run} if run else {}))


def refusal(delta: str, *, stage: str, run: int = 0) -> Event:
    """Return a piece of the text in which a model refuses to answer.

    Only some model servers mark such text as a refusal.
    """
    return Event(EventType.REFUSAL, {"delta": delta, "stage": stage} | ({"run": run} if run else {}))


def citations(found: Sequence[Any], *, stage: str, run: int = 0) -> Event:
    """Return the sources that a model cites for the text before this event.

    Each citation is as the model server sent it.
    """
    data = {"stage": stage, "citations": list(found)}
    return Event(EventType.CITATIONS, data | ({"run": run} if run else {}))


def done(
    *,
    finish_reason: str,
    usage: Mapping[str, int],
    attempts: int,
    duration_ms: int,
    usage_lost: Mapping[str, int] | None = None,
    interrupts: Sequence[Any] = (),
    upcoming: Sequence[str] = (),
) -> Event:
    """Return the event that the chain has reached its end, or has stopped.

    The chain stops to ask questions (`interrupts`), or before the nodes `upcoming`. `usage` is what the valid
    answer has used. `usage_lost` is what was used by tries and attempts whose output is void.
    """
    data = {
        "finish_reason": finish_reason,
        "usage": dict(usage),
        "attempts": attempts,
        "duration_ms": duration_ms,
    }
    data |= {"usage_lost": dict(usage_lost)} if usage_lost else {}
    data |= {"interrupts": list(interrupts)} if interrupts else {}
    return Event(EventType.DONE, data | ({"next": list(upcoming)} if upcoming else {}))


def failed(code: str, message: str, *, retryable: bool, detail: str = "") -> Event:
    """Return the event that the stream ends without a result. The message is our own text.

    `detail` is for the chain's author: the text of an exception, in development only.
    """
    data: dict[str, Any] = {"code": code, "message": message, "retryable": retryable}
    return Event(EventType.FAILED, data | ({"detail": detail} if detail else {}))


def new_token() -> str:
    """Return a new token for a claim: 128 random bits in hex.

    Its first four digits are the tag of the event ids that the claim writes.
    """
    return secrets.token_hex(16)


def tag_of(token: str) -> str:
    """Return the tag of a token: the four hex digits that are in the ids of the token's events."""
    return token[:4]


def iso(ms: int) -> str:
    """Return milliseconds of Redis's clock as an RFC 3339 time in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def idempotency_hash(owner: str, key: str) -> str:
    """Return the name under which an Idempotency-Key is stored: SHA-256 of owner and key, in hex."""
    return hashlib.sha256(f"{owner}\0{key}".encode()).hexdigest()


def new_stream_id(key_hash: str = "") -> str:
    """Return a new id that is never reused: the bucket in two hex digits, then 128 random bits, URL-safe."""
    bucket = key_hash[:2] or secrets.token_hex(1)
    return bucket + secrets.token_urlsafe(ID_RANDOM_BYTES)


def is_stream_id(value: str) -> bool:
    """Whether this text has the form of a stream id.

    Any other text is answered with 404, and the store is not asked.
    """
    return bool(STREAM_ID.fullmatch(value))


def traceparent(value: str) -> str:
    """Return a W3C `traceparent`, or the empty string if the header is invalid (Trace Context, 3.2)."""
    return value if _TRACEPARENT.fullmatch(value) else ""
