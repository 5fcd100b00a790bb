"""What the store says of a stream: its record, a claim on it, a script's answer, a piece of its log.

Values only; no I/O. Times are milliseconds of Redis's clock.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway import protocol
from gateway.protocol import ENDED, VERSION, Cursor, Event, Status, sse, tag_of

ANSWER = "tool:"  # before the name of what a tool has answered, likewise
WAITING = "waiting"
CHECKPOINT = "ckpt:"  # before the stage and its run, in the names of the record's fields
_NUMBERS = ("attempt", "created_ms", "started_ms")
_TEXTS = (
    "owner",
    "chain",
    "last_id",
    "trace",
    "attempt_trace",
    "finish_reason",
    "write_key",
    "token",
    "course",
)
_MORE_TEXTS = ("at", "retries", "from", "keyed", "thread", "first", "resumes", "stopped_at", "resumed_by")
_COUNTS = ("failures", "ended_ms", "version", "tokens_ended", "pieces", "handovers", "unknown_ms", "lines")
_VALUES = ("metadata", "stages", "input", "params", "claims", "usage", "error", "used", "lost", "kept")
_MORE_VALUES = ("turn", "graph", "answer", "doubted", "carried", "questions")
# How each field of the hash is read; `status` and those whose names only begin as is known are read apart.
FIELDS: Mapping[str, Callable[[bytes], Any]] = {
    **dict.fromkeys((*_TEXTS, *_MORE_TEXTS), bytes.decode),
    **dict.fromkeys((*_NUMBERS, *_COUNTS, "claimed_at"), int),
    **dict.fromkeys((*_VALUES, *_MORE_VALUES), json.loads),
    **dict.fromkeys(("confirmed", "producer", "whole", "dropped"), lambda _: True),
}
_OTHERWISE = {"from": "from_stage"}  # fields that the record has by another name


@dataclass(frozen=True, slots=True)
class Record:
    """What the job's hash says of a stream. Times in milliseconds of Redis's clock."""

    id: str
    status: Status
    owner: str = ""
    chain: str = ""
    attempt: int = 0
    failures: int = 0
    confirmed: bool = False
    last_id: str = ""
    created_ms: int = 0
    started_ms: int | None = None
    ended_ms: int | None = None
    version: int = 0
    trace: str = ""
    attempt_trace: str = ""  # the last attempt's
    metadata: Any = None
    stages: list[str] = field(default_factory=list)
    input: Any = field(default=None, repr=False)
    params: Mapping[str, Any] = field(default_factory=dict, repr=False)
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)  # of the owner, for the chain alone
    usage: Mapping[str, int] | None = None
    error: Mapping[str, Any] | None = None
    finish_reason: str = ""  # of `done`
    used: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # by the unfinished run, of each node
    lost: Mapping[str, int] = field(default_factory=dict)  # usage of tries and attempts that do not stand
    pieces: int = 0  # of text, of which no model has told what they took
    handovers: int = 0  # claims that ended at a finished stage, their time being up
    unknown_ms: int = 0  # when a worker first found that it lacks the chain
    producer: bool = False  # a producer writes it: there is no job
    write_key: str = field(default="", repr=False)  # with which write tokens are signed
    token: str = field(default="", repr=False)  # of the newest claim
    lines: int = 0  # that the producer with this token has sent by HTTP
    course: str = ""  # where that producer is within its stages, in JSON
    claimed_at: int = 0  # where the log ended when that producer came
    at: str = ""  # the stage and run that has begun last
    retries: str = ""  # the failed stream that this one tries again
    from_stage: str = ""  # from here on
    keyed: str = ""  # the stream by which the keys of its calls are made; empty: itself, or `first`
    kept: list[str] = field(default_factory=list)  # runs whose results it has from there
    answers: Mapping[str, bytes] = field(default_factory=dict, repr=False)  # of tools, JSON, by name
    checkpoints: Mapping[str, bytes] = field(default_factory=dict, repr=False)  # JSON, by stage and run
    thread: str = ""  # as its caller has named it; empty: it belongs to none
    whole: bool = False  # its input has all that was said in its thread before
    first: str = ""  # of streams that resume one another, the first one's id; empty: it is this one
    # What LangGraph's format has asked of a graph: its input as it came, the checkpoint to go on from.
    graph: Mapping[str, Any] | None = field(default=None, repr=False)
    turn: Any = field(default=None, repr=False)  # as `input`: what a thread that remembers is given instead
    resumes: str = ""  # the stream whose questions this one answers
    answer: Mapping[str, Any] | None = field(default=None, repr=False)  # with what
    doubted: list[Any] = field(default_factory=list, repr=False)  # what it was asked about calls of tools
    stopped_at: str = ""  # the run of a stage, as a checkpoint is named, at which that one has stopped
    carried: list[str] = field(default_factory=list)  # runs of stages that are finished there
    questions: list[Any] | None = field(default=None, repr=False)  # open ones; None: it waits for nothing
    resumed_by: str = ""  # the stream that has answered them
    dropped: bool = False  # its questions were taken back
    tokens_ended: int = 0  # how often all its tokens were ended
    webhook: Mapping[str, str] = field(default_factory=dict, repr=False)  # its fields, by their names

    @property
    def has_webhook(self) -> bool:
        """Whether somebody is to be told of its end."""
        return bool(self.webhook)

    @property
    def unseen(self) -> bool:
        """Whether its webhook is sent only where no reader has had the terminal event."""
        return "webhook_unseen_ms" in self.webhook

    @property
    def finished_before(self) -> set[tuple[str, int]]:
        """Stages and runs whose results this stream has from the one that it tries again."""
        names = (name.rpartition(" ") for name in self.kept)
        return {(stage, int(run)) for stage, _, run in names}

    @property
    def ended(self) -> bool:
        """Whether the terminal event is written."""
        return self.status in ENDED

    @property
    def state(self) -> str:
        """As clients are told: `waiting` for an answer, and `cancelled` where the question was taken back."""
        if self.status is Status.DONE and self.questions is not None:
            return WAITING
        return Status.CANCELLED if self.dropped else self.status

    @classmethod
    def of(cls, stream_id: str, raw: Mapping[str, bytes]) -> Record:
        """Read the hash's fields. One that is not there has its default, and costs nothing."""
        known: dict[str, Any] = {"status": Status(raw.get("status", b"").decode())}
        answers: dict[str, bytes] = {}
        checkpoints: dict[str, bytes] = {}
        webhook: dict[str, str] = {}
        for name, value in raw.items():
            if (read := FIELDS.get(name)) is not None:
                known[_OTHERWISE.get(name, name)] = read(value)
            elif name.startswith(ANSWER):
                answers[name.removeprefix(ANSWER)] = value
            elif name.startswith(CHECKPOINT):
                checkpoints[name.removeprefix(CHECKPOINT)] = value
            elif name.startswith("webhook"):
                webhook[name] = value.decode()
        return cls(stream_id, answers=answers, checkpoints=checkpoints, webhook=webhook, **known)

    @classmethod
    def made(cls, stream_id: str, fields: Mapping[str, Any]) -> Record:
        """A stream that was created with these fields just now."""
        raw = {
            name: value if isinstance(value, bytes) else str(value).encode() for name, value in fields.items()
        }
        return cls.of(stream_id, {"status": b"queued", **raw})

    @classmethod
    def claimed(cls, stream_id: str, raw: Mapping[str, bytes]) -> Record:
        """What a worker has claimed; of a record that this release cannot read, what it takes to end it."""
        if raw.get("version") == str(VERSION).encode():
            return cls.of(stream_id, raw)
        known = {name: raw[name] for name in _NUMBERS if raw.get(name, b"").isdigit()}
        return cls.of(stream_id, {"status": b"running", "last_id": raw.get("last_id", b""), **known})


@dataclass(frozen=True, slots=True)
class Claim:
    """One worker's hold on a job; the token is the fence, the attempt only counts."""

    record: Record
    token: str = field(repr=False)
    now_ms: int
    log_end: int

    @property
    def tag(self) -> str:
        """What this claim leaves in its events' ids."""
        return tag_of(self.token)


@dataclass(slots=True)
class Batch:
    """One append of a claim: whole frames, and the fields of the record that are written with them.

    Nobody changes a batch: a retry must send the same bytes. A frozen dataclass would double the cost of
    making one, and one is made for every append.
    """

    position: int  # where the frames begin in the log, in bytes
    frames: bytes  # empty: the append only renews the lease
    last_id: str  # id of the last of these frames, or of the last event before them
    status: str  # empty; a final status, which ends the stream; or `queued`, which lets the job go
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """A script's word, and what came with it: milliseconds or a log end, a claim, a trace context, a code."""

    word: str
    number: int = 0
    claim: Claim | None = None
    trace: str = ""
    code: str = ""

    @classmethod
    def said(cls, raw: list[Any]) -> Answer:
        """A script's own list: its word, and a number or a text, or nothing."""
        value = raw[1] if len(raw) > 1 else 0
        if isinstance(value, int):
            return cls(raw[0], value)
        text = value.decode()
        return cls(raw[0], trace=text if raw[0] == "yes" else "", code=text if raw[0] == "over" else "")


@dataclass(frozen=True, slots=True)
class Look:
    """What a reader may know: Redis's time, and a stream with its log's length (0: past its retention).

    `over`: the code with which somebody is to end the stream, as its time is over; else empty.
    """

    now_ms: int
    record: Record | None = None
    log_end: int = 0
    over: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """Where a log ends, and when the lease of a running stream ends, or the time of a queued one.

    Both in ms from now, 0 when they are over; None where there is none.
    """

    last_id: str
    lease_left_ms: int | None = None
    wait_left_ms: int | None = None

    @property
    def look_in_ms(self) -> int | None:
        """When somebody must look after the stream, in ms from now; None: nothing is known to come."""
        return self.wait_left_ms if self.lease_left_ms is None else self.lease_left_ms


def head_of(
    now_ms: int,
    last: bytes | None,
    status: bytes | None,
    lease_end: bytes | None,
    lease: bytes | None,
    since: bytes | None,
    begun: bytes | None,
    wait: bytes | None,
    run: bytes | None,
) -> Head:
    """An end that is further away than the whole time was set by a clock that has gone back: it is now."""
    last_id, longest = (last or b"").decode(), run if begun else wait
    if status == Status.RUNNING.encode():
        left = int(lease_end or 0) - now_ms
        return Head(last_id, left if 0 < left <= int(lease or 0) else 0)
    if status == Status.QUEUED.encode() and since and longest:
        left = int(since) + int(longest) - now_ms
        return Head(last_id, wait_left_ms=left if 0 < left <= int(longest) else 0)
    return Head(last_id)


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole frames of a log, in order, and where they leave the reader."""

    frames: bytes
    last: Cursor | None
    final: bool
    at_end: bool


def piece_of(raw: bytes, after: Cursor | None, at_end: bool) -> Piece:
    """Of whole frames, the first of which the reader has when it came with a cursor."""
    if len(raw) < len(sse.NEXT_FRAME):
        return Piece(b"", after, False, at_end)
    last = raw[raw.rfind(sse.NEXT_FRAME, 0, -2) + 1 :].removeprefix(b"\n")
    cursor = Cursor.parse(last[len(sse.ID_PREFIX) : last.index(b"\n")].decode())
    frames = raw[raw.index(sse.FRAME_END) + 2 :] if after else raw
    return Piece(frames, cursor, sse.is_terminal(last), at_end)


def started(record: Record) -> Event:
    """The stream's first event, as its record tells it."""
    created_at = protocol.iso(record.created_ms)
    return protocol.start(
        *(record.id, record.chain, record.stages, created_at),
        resumes=record.resumes,
        retries=record.retries,
        from_stage=record.from_stage,
    )


def ending(event: Event) -> dict[str, bytes]:
    """What the record keeps of a terminal event: fields, `usage` and `error` in JSON."""
    kept = {}
    if "usage" in event.data:
        kept["usage"] = sse.dumps(event.data["usage"])
    if "finish_reason" in event.data:
        kept["finish_reason"] = event.data["finish_reason"].encode()
    if "code" in event.data:
        kept["error"] = sse.dumps(event.data)
    return kept
