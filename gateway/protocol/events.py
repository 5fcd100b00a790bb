"""The contract as data: events, states, the transition table, ids and cursors. No I/O, no clock.

A stream's log is the concatenation of its frames; an event's id is where its frame begins, and four hex
digits of the token of the claim that wrote it. A cursor is right if and only if the log at its offset
begins with exactly `id: <cursor>` and a line feed, so it proves itself (`docs/protocol.md`, Event ids).
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
    """An event's `event:` field. `error` and `open` are EventSource's own names and never used."""

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
    """A stream's state."""

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
# From a state, the states that may follow. A missing one is the error; running -> queued is a hand-over;
# queued -> failed: the time in which a worker had to take the job is over.
TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.FAILED, Status.CANCELLED}),
    Status.RUNNING: frozenset({Status.QUEUED, *ENDED}),
    Status.DONE: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}


@dataclass(slots=True)  # not frozen, which would set each field of each token by a call
class Event:
    """One event: its type, and its data as a JSON-able value.

    Raises ValueError for a type with CR, LF or NUL: it would be able to forge a frame.
    """

    type: EventType
    data: Any

    def __post_init__(self) -> None:
        if type(self.type) is not EventType and _FORBIDDEN_IN_NAMES.search(self.type):
            raise ValueError("an event type may not hold CR, LF or NUL")


@dataclass(frozen=True, slots=True)
class Cursor:
    """A `Last-Event-ID`: the offset of an event's frame in the log, in bytes, and its writer's tag.

    Kept as it was given: `007-beef` is of the form, but stands in no log.
    """

    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def offset(self) -> int:
        """Where the frame begins, in bytes."""
        return int(self.text.partition("-")[0])

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read `<offset>-<tag>`. Raises ValueError for anything else (`protocol.md`, GET /stream/{id})."""
        if not CURSOR.fullmatch(text):
            raise ValueError("not an event id")
        return cls(text)


def name(value: str) -> str:
    """A name that may stand in an event. Raises ValueError for CR, LF, NUL and over 200 characters."""
    if _FORBIDDEN_IN_NAMES.search(value) or len(value) > 200:
        raise ValueError("a name may not hold CR, LF or NUL, nor more than 200 characters")
    return value


def text(delta: str, *, deployment: str, stage: str, run: int = 0) -> Event:
    """A piece of text; the first two fields are those of the one-function sample. `run`: a node's."""
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
    """The first event of every stream, once.

    `resumes`: the stream whose questions this one answers. `retries`: the failed stream that this one tries
    again, from the stage `from_stage` on.
    """
    data = {"id": stream_id, "chain": chain, "stages": list(stages), "created_at": created_at}
    data |= {"resumes": resumes} if resumes else {}
    return Event(EventType.START, data | ({"retries": retries, "from": from_stage} if retries else {}))


def stage(stage_name: str, *, run: int, index: int, count: int, finished: bool = False) -> Event:
    """A stage begins or ends; `run` counts from 1 how often one of this name has begun, `index` from 0."""
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
    """A graph's node begins or ends, within the chain's stage `parent`; `step` counts the graph's steps.

    `aside`: whether what it has said is not among the messages of the graph's state, where that is known.
    """
    event = stage(node_name, run=run, index=index, count=count, finished=finished)
    data = {**event.data, "parent": parent, "step": step}
    return Event(EventType.STAGE, data | ({} if aside is None else {"aside": aside}))


def reset(*, attempt: int, stage_name: str, discard_after: str, reason: str) -> Event:
    """All text, tool and custom events of this stage after `discard_after` are void, and its nodes' too."""
    data = {
        "attempt": attempt,
        "stage": stage_name,
        "discard_after": discard_after,
        "reason": reason,
    }
    return Event(EventType.RESET, data)


def tool(tool_name: str, *, call_id: str, stage: str, state: str, said: Any, run: int = 0) -> Event:
    """A tool call begins (`said` is its input), or is at its end: `finished` or `failed`, with its output."""
    data = {"name": name(tool_name), "call_id": call_id, "stage": stage, "state": state}
    data |= {"input" if state == "started" else "output": said}
    return Event(EventType.TOOL, data | ({"run": run} if run else {}))


def custom(event_name: str, data: Any, *, stage: str, run: int = 0) -> Event:
    """What a chain dispatches itself."""
    whole = {"name": name(event_name), "stage": stage, "data": data}
    return Event(EventType.CUSTOM, whole | ({"run": run} if run else {}))


def nested(kind: str, delta: str, *, within: str, stage: str, run: int = 0) -> Event:
    """What a model says below the tool call `within`: `kind` is `delta` for its text, or `reasoning`."""
    data: dict[str, Any] = {"within": within, "stage": stage, kind: delta}
    return Event(EventType.NESTED, data | ({"run": run} if run else {}))


def refusal(delta: str, *, stage: str, run: int = 0) -> Event:
    """A piece of the words by which a model refuses to answer, where its server tells them from text."""
    return Event(EventType.REFUSAL, {"delta": delta, "stage": stage} | ({"run": run} if run else {}))


def citations(found: Sequence[Any], *, stage: str, run: int = 0) -> Event:
    """What a model cites for the text before, each as its server tells it."""
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
    """The chain came to its end, or has stopped: to ask (`interrupts`), or before the nodes `upcoming`.

    `usage` is what the answer that stands has used, `usage_lost` what tries and attempts have used of which
    nothing stands.
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
    """The stream ends without a result; the message is ours.

    `detail` is what the chain's author is told: an exception's text, in development alone.
    """
    data: dict[str, Any] = {"code": code, "message": message, "retryable": retryable}
    return Event(EventType.FAILED, data | ({"detail": detail} if detail else {}))


def new_token() -> str:
    """A claim's token: 128 random bits in hex. Its first four digits are the tag of the ids it writes."""
    return secrets.token_hex(16)


def tag_of(token: str) -> str:
    """The four hex digits that a token leaves in the ids of its events."""
    return token[:4]


def iso(ms: int) -> str:
    """Milliseconds of Redis's clock as RFC 3339 in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def idempotency_hash(owner: str, key: str) -> str:
    """What an Idempotency-Key is stored under: SHA-256 in hex of owner and key."""
    return hashlib.sha256(f"{owner}\0{key}".encode()).hexdigest()


def new_stream_id(key_hash: str = "") -> str:
    """An id that is never reused: the bucket in two hex digits, then 128 random bits, URL-safe."""
    bucket = key_hash[:2] or secrets.token_hex(1)
    return bucket + secrets.token_urlsafe(ID_RANDOM_BYTES)


def is_stream_id(value: str) -> bool:
    """Whether this has the form of an id; anything else is answered 404 without asking the store."""
    return bool(STREAM_ID.fullmatch(value))


def traceparent(value: str) -> str:
    """A W3C `traceparent`, or the empty string when the header is not one (Trace Context, 3.2)."""
    return value if _TRACEPARENT.fullmatch(value) else ""
