"""Values that the store returns: a stream's record, a claim, a script's answer, a piece of a log.

There is no I/O in this module. Times are milliseconds of Redis's clock.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway import protocol
from gateway.protocol import ENDED, VERSION, Cursor, Event, Status, sse, tag_of

ANSWER = "tool:"  # prefix of fields with answers of tools; a name follows
WAITING = "waiting"
CHECKPOINT = "ckpt:"  # prefix of fields with checkpoints; stage and run follow
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
# How each field of the hash is read. `Record.of` itself reads `status`, and fields known by their prefix.
FIELDS: Mapping[str, Callable[[bytes], Any]] = {
    **dict.fromkeys((*_TEXTS, *_MORE_TEXTS), bytes.decode),
    **dict.fromkeys((*_NUMBERS, *_COUNTS, "claimed_at"), int),
    **dict.fromkeys((*_VALUES, *_MORE_VALUES), json.loads),
    **dict.fromkeys(("confirmed", "producer", "whole", "dropped"), lambda _: True),
}
_OTHERWISE = {"from": "from_stage"}  # fields of the hash that have another name in the record


@dataclass(frozen=True, slots=True)
class Record:
    """The record of a stream, read from the hash of its job. Times are milliseconds of Redis's clock."""

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
    attempt_trace: str = ""  # trace context of the last attempt
    metadata: Any = None
    stages: list[str] = field(default_factory=list)
    input: Any = field(default=None, repr=False)
    params: Mapping[str, Any] = field(default_factory=dict, repr=False)
    # of the owner; only the chain may read them
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)
    usage: Mapping[str, int] | None = None
    error: Mapping[str, Any] | None = None
    finish_reason: str = ""  # the `finish_reason` of the `done` event
    # usage of the unfinished run, by node
    used: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    # usage of tries and attempts whose results were discarded
    lost: Mapping[str, int] = field(default_factory=dict)
    pieces: int = 0  # pieces of text for which no model reported usage
    handovers: int = 0  # claims that ended after a finished stage, as their time was over
    unknown_ms: int = 0  # when a worker first did not know the chain
    producer: bool = False  # a producer writes the events; there is no job
    write_key: str = field(default="", repr=False)  # key that signs the write tokens
    token: str = field(default="", repr=False)  # token of the newest claim
    lines: int = 0  # lines that the producer of the newest claim sent by HTTP
    course: str = ""  # the producer's position within its stages, as JSON
    claimed_at: int = 0  # end of the log when the producer claimed the stream
    at: str = ""  # the stage and run that started last
    retries: str = ""  # id of the failed stream that this stream retries
    from_stage: str = ""  # the retry runs again from this stage
    keyed: str = ""  # stream whose id makes the keys of calls; empty: this one, or `first`
    # stage runs whose results are copied from the stream in `retries`
    kept: list[str] = field(default_factory=list)
    # answers of tools, as JSON, by name
    answers: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    # checkpoints as JSON, by stage and run
    checkpoints: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    thread: str = ""  # name of the thread, chosen by the caller; empty: no thread
    whole: bool = False  # its input contains all earlier messages of its thread
    first: str = ""  # first stream of a series of resumed streams; empty: this stream
    # The request of LangGraph's format to a graph: its unchanged input, and the checkpoint to continue from.
    graph: Mapping[str, Any] | None = field(default=None, repr=False)
    turn: Any = field(default=None, repr=False)  # replaces `input` if the thread remembers messages
    resumes: str = ""  # the stream whose questions this stream answers
    # this stream's answer to the questions of `resumes`
    answer: Mapping[str, Any] | None = field(default=None, repr=False)
    # tool calls that the stream in `resumes` asked about
    doubted: list[Any] = field(default_factory=list, repr=False)
    stopped_at: str = ""  # run of a stage at which the stream in `resumes` stopped; named like a checkpoint
    carried: list[str] = field(default_factory=list)  # stage runs that the stream in `resumes` had finished
    # open questions of this stream; None: it waits for no answer
    questions: list[Any] | None = field(default=None, repr=False)
    resumed_by: str = ""  # id of the stream that answered the questions of this stream
    dropped: bool = False  # True: the questions of this stream were withdrawn
    tokens_ended: int = 0  # how many times all its tokens were made invalid
    webhook: Mapping[str, str] = field(default_factory=dict, repr=False)  # the fields of its webhook, by name

    @property
    def has_webhook(self) -> bool:
        """Return whether a webhook must be sent when the stream ends."""
        return bool(self.webhook)

    @property
    def unseen(self) -> bool:
        """Return whether its webhook is sent only if no reader has received the terminal event."""
        return "webhook_unseen_ms" in self.webhook

    @property
    def finished_before(self) -> set[tuple[str, int]]:
        """Return the stages and runs whose results were copied from the stream that this stream retries."""
        names = (name.rpartition(" ") for name in self.kept)
        return {(stage, int(run)) for stage, _, run in names}

    @property
    def ended(self) -> bool:
        """Return whether the log has the terminal event."""
        return self.status in ENDED

    @property
    def state(self) -> str:
        """The status that clients see.

        It is `waiting` if the stream waits for an answer, and `cancelled` if its question was withdrawn.
        """
        if self.status is Status.DONE and self.questions is not None:
            return WAITING
        return Status.CANCELLED if self.dropped else self.status

    @classmethod
    def of(cls, stream_id: str, raw: Mapping[str, bytes]) -> Record:
        """Make a record from the fields of the Redis hash. A missing field has its default."""
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
        """Make the record of a stream that was just created with these fields."""
        raw = {
            name: value if isinstance(value, bytes) else str(value).encode() for name, value in fields.items()
        }
        return cls.of(stream_id, {"status": b"queued", **raw})

    @classmethod
    def claimed(cls, stream_id: str, raw: Mapping[str, bytes]) -> Record:
        """Make the record of a claimed stream.

        If this release cannot read the record, the result has only the fields that are needed to end the
        stream.
        """
        if raw.get("version") == str(VERSION).encode():
            return cls.of(stream_id, raw)
        known = {name: raw[name] for name in _NUMBERS if raw.get(name, b"").isdigit()}
        return cls.of(stream_id, {"status": b"running", "last_id": raw.get("last_id", b""), **known})


@dataclass(frozen=True, slots=True)
class Claim:
    """The claim of one worker or producer on a stream.

    The token protects the log; the attempt is only a counter.
    """

    record: Record
    token: str = field(repr=False)
    now_ms: int
    log_end: int

    @property
    def tag(self) -> str:
        """The tag that this claim puts into the ids of its events."""
        return tag_of(self.token)


@dataclass(slots=True)
class Batch:
    """One append of a claim: whole frames, and the fields of the record that are written with them.

    No code may change a batch, because a retry must send the same bytes. A frozen dataclass would double the
    cost of making a batch, and each append makes one.
    """

    position: int  # where these frames begin in the log, in bytes
    frames: bytes  # empty: the append only renews the lease
    last_id: str  # id of the last of these frames, or of the last event before them
    status: str  # empty; or a final status, which ends the stream; or `queued`, which releases the job
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a script: a word, and the value that belongs to it.

    `number`: milliseconds or an end of the log. `trace`: a trace context. `code`: the code with which to end
    the stream.
    """

    word: str
    number: int = 0
    claim: Claim | None = None
    trace: str = ""
    code: str = ""

    @classmethod
    def said(cls, raw: list[Any]) -> Answer:
        """Make an answer from the list that a script returned: a word, and a number, a text or nothing."""
        value = raw[1] if len(raw) > 1 else 0
        if isinstance(value, int):
            return cls(raw[0], value)
        text = value.decode()
        return cls(raw[0], trace=text if raw[0] == "yes" else "", code=text if raw[0] == "over" else "")


@dataclass(frozen=True, slots=True)
class Look:
    """What a reader may know of a stream: Redis's time, the record, and the length of the log.

    The length is 0 after the retention. `over`: the code with which the caller should end the stream, because
    its time is over; otherwise empty.
    """

    now_ms: int
    record: Record | None = None
    log_end: int = 0
    over: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """The position of a log's end, and the time limit of the stream.

    `lease_left_ms`: when the lease of a running stream ends. `wait_left_ms`: when the time of a queued stream
    ends. Both are milliseconds from now, 0 if that time is over, and None if there is no such limit.
    """

    last_id: str
    lease_left_ms: int | None = None
    wait_left_ms: int | None = None

    @property
    def look_in_ms(self) -> int | None:
        """When a process must check the stream, in milliseconds from now. None: there is no time limit."""
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
    """Compute a `Head` from the fields of a record.

    If a limit is further away than its whole duration, the clock has gone back since the limit was set. Such
    a limit counts as over.
    """
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
    """Whole frames of a log, in order.

    `last` is the cursor of the reader after these frames.
    """

    frames: bytes
    last: Cursor | None
    final: bool
    at_end: bool


def piece_of(raw: bytes, after: Cursor | None, at_end: bool) -> Piece:
    """Make a piece of whole frames.

    If the reader has a cursor, the first frame is the one that it already has.
    """
    if len(raw) < len(sse.NEXT_FRAME):
        return Piece(b"", after, False, at_end)
    last = raw[raw.rfind(sse.NEXT_FRAME, 0, -2) + 1 :].removeprefix(b"\n")
    cursor = Cursor.parse(last[len(sse.ID_PREFIX) : last.index(b"\n")].decode())
    frames = raw[raw.index(sse.FRAME_END) + 2 :] if after else raw
    return Piece(frames, cursor, sse.is_terminal(last), at_end)


def started(record: Record) -> Event:
    """Return the first event of a stream, made from its record."""
    created_at = protocol.iso(record.created_ms)
    return protocol.start(
        *(record.id, record.chain, record.stages, created_at),
        resumes=record.resumes,
        retries=record.retries,
        from_stage=record.from_stage,
    )


def ending(event: Event) -> dict[str, bytes]:
    """Return the fields of a terminal event that the record stores. `usage` and `error` are JSON."""
    kept = {}
    if "usage" in event.data:
        kept["usage"] = sse.dumps(event.data["usage"])
    if "finish_reason" in event.data:
        kept["finish_reason"] = event.data["finish_reason"].encode()
    if "code" in event.data:
        kept["error"] = sse.dumps(event.data)
    return kept
