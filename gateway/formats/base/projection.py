"""The common part of all foreign formats, which are the wire formats of other products' clients.

Such a format is a projection: a pure function from a stream's events to frames. In each connection the
projection starts at the log's first event, even if the reader has already received some frames. The frames
that the reader already has are not sent again. So a frame is the same in every connection, and a projection
may keep state. One event may become several frames. A frame's place is its event's id and the frame's number
among the event's frames, from 0.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections.abc import AsyncGenerator, Hashable, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import orjson

from gateway.formats.base.calls import Calls, Unanswered
from gateway.protocol import Cursor, Event, EventType, sse
from gateway.protocol.fold import Fold, StageText
from gateway.runtime.json_pieces import is_long, pieces
from gateway.streams.room import Share

_LONG_NUMBER = re.compile(rb"[0-9]{18}")
_PLACE = re.compile(r"([0-9]{1,10}-[0-9a-f]{4})\.([0-9]{1,6})")
# A place as a whole number: the offset, then 16 bits of the writer's tag, then the frame's number. It is
# below 2**53 for every log that Redis can store, so JavaScript's numbers represent it exactly. Like an id, it
# contains the tag that shows whether it belongs to this log.
_FRAME_BITS, _TAG_BITS = 6, 16
_LARGEST = 2**53
MOST_FRAMES = 1 << _FRAME_BITS  # the most frames of one event in a format that numbers its places
_LAST_FRAME = 999_999  # the largest frame number that `Place.parse` reads


@dataclass(frozen=True, slots=True)
class Place:
    """A reader's position: an event, and the number (from 0) of the last frame of it that the reader has."""

    cursor: Cursor
    frame: int

    def __str__(self) -> str:
        return f"{self.cursor}.{self.frame}"

    @property
    def number(self) -> int:
        """This place as a whole number. A later place has a larger number."""
        offset, _, tag = str(self.cursor).partition("-")
        return ((int(offset) << _TAG_BITS | int(tag, 16)) << _FRAME_BITS) | self.frame

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read `<event id>.<frame>`. Raises ValueError for anything else."""
        found = _PLACE.fullmatch(text)
        if found is None:
            raise ValueError("not a place in a stream")
        return cls(Cursor.parse(found[1]), int(found[2]))

    @classmethod
    def behind(cls, event_id: str) -> Place:
        """Return the place after all frames of this event. Raises ValueError for what is no event id."""
        return cls(Cursor.parse(event_id), _LAST_FRAME)

    @classmethod
    def of_number(cls, number: int) -> Place:
        """Return the place that has this number. Raises ValueError for a number that no place has."""
        if not 0 <= number < _LARGEST:
            raise ValueError("not a place in a stream")
        event, frame = divmod(number, 1 << _FRAME_BITS)
        offset, tag = divmod(event, 1 << _TAG_BITS)
        return cls(Cursor.parse(f"{offset}-{tag:04x}"), frame)


@dataclass(frozen=True, slots=True)
class Frame:
    """One server-sent event. `data` is a JSON value, or bytes (one line) that are sent unchanged."""

    data: Any
    event: str = ""

    def encode(self, frame_id: str = "") -> bytes:
        """Return the frame's bytes, with an `id:` line if `frame_id` is given."""
        data = self.data if isinstance(self.data, bytes) else sse.dumps(self.data)
        return b"%bdata: %b\n\n" % (self._head(frame_id), data)

    def pieces(self, frame_id: str = "") -> Iterator[bytes]:
        """Yield the same bytes as `encode`, in pieces."""
        yield self._head(frame_id) + b"data: "
        yield from pieces(self.data)
        yield b"\n\n"

    def _head(self, frame_id: str) -> bytes:
        head = f"id: {frame_id}\n" if frame_id else ""
        return (head + (f"event: {self.event}\n" if self.event else "")).encode()


@dataclass
class Projection:
    """One reader's view of a stream. A format overrides the methods of the events for which it has frames.

    `fold` is the stream's state after the events so far. `place(k)` is the place of this event's frame number
    k.
    """

    ids = False  # whether frames carry `id: <place>`
    fold: Fold = field(default_factory=Fold, init=False)
    id_before: str = field(default="", init=False)  # a prefix of each frame's id
    share: Share | None = field(default=None, init=False)  # of memory, if the whole log was read at once
    cursor: str = field(default="", init=False)  # the id of this event
    last: str = field(default="", init=False)  # the chain's last stage
    # Why the text of this event is not part of the answer; empty if it may be part of the answer.
    aside: str = field(default="", init=False)
    calls: Calls = field(default_factory=Calls, init=False)  # the calls without an answer so far
    # The calls that the client must run; set when the stream is done.
    for_client: list[Unanswered] = field(default_factory=list, init=False)

    def feed(self, event_id: str, event: Event) -> list[Frame]:
        """Return the frames of the next event, in order."""
        self.cursor = event_id
        stage, data = self.fold.feed(event_id, event), event.data
        self.aside = data.get("aside", "") if stage is not None else ""
        match event.type:
            case EventType.START:
                self.last = data["stages"][-1]
                return list(self.start(data))
            case EventType.MESSAGE:
                assert stage is not None
                return list(self.text(stage, data["delta_content"]))
            case EventType.STAGE:
                return list(self.stage(data))
            case EventType.TOOL if "within" in data:
                return list(self.tool_within(data))
            case EventType.TOOL:
                self.calls.take(Cursor.parse(event_id).offset, data)
                return list(self.tool(data))
            case EventType.CUSTOM:
                return list(self.custom(data))
            case EventType.NESTED:
                return list(self.nested(data))
            case EventType.REFUSAL:
                assert stage is not None
                return list(self.refusal(stage, data["delta"]))
            case EventType.CITATIONS if "within" in data:
                return []
            case EventType.CITATIONS:
                return list(self.citations(data))
            case EventType.GRAPH:
                return list(self.graph(data))
            case EventType.RESET:
                self.calls.void(Cursor.parse(data["discard_after"]).offset)
                return list(self.reset(data))
            case EventType.DONE:
                self.for_client = self.calls.for_client(self.last, data.get("finish_reason"))
                return list(self.done(data))
            case EventType.FAILED:
                return list(self.failed(data))
            case EventType.CANCELLED:
                return list(self.cancelled())

    def stage_of(self, data: Any) -> StageText | None:
        """Return the run that an event belongs to; the stage's latest run if the event names no run."""
        named = [stage for stage in reversed(self.fold.stages) if stage.name == data["stage"]]
        return next((stage for stage in named if stage.run == data.get("run")), named[0] if named else None)

    def shared_as(self) -> Hashable | None:
        """Return all values other than the log that the frames depend on.

        Readers with an equal value share one projection (`shared.py`). None: each reader has its own
        projection. The frames that a reader wants are not part of this value. In a shared projection `wants`
        must only read a frame's `event`.
        """
        return None

    def unfed(self) -> Projection:
        """Return a copy of this projection, which has not been fed an event yet."""
        return copy.deepcopy(self)

    def place(self, frame: int) -> Place:
        """Return the place of this event's frame of this number."""
        return Place(Cursor.parse(self.cursor), frame)

    def wants(self, frame: Frame) -> bool:
        """Return whether this reader asked for this kind of frame.

        A frame that is not sent has a place as well.
        """
        return True

    def start(self, data: Any) -> Iterable[Frame]:
        """Return the frames of the stream's first event."""
        return ()

    def text(self, stage: StageText, delta: str) -> Iterable[Frame]:
        """Return the frames of a piece of a stage's text. The text of `stage` already contains this piece."""
        return ()

    def refusal(self, stage: StageText, delta: str) -> Iterable[Frame]:
        """Return the frames of a piece of a refusal. The text of `stage` already contains this piece.

        A format that has no frame for refusals sends the piece as text.
        """
        return self.text(stage, delta)

    def citations(self, data: Any) -> Iterable[Frame]:
        """Return the frames of a model's citations for the text before."""
        return ()

    def stage(self, data: Any) -> Iterable[Frame]:
        """Return the frames of the start or end of a stage or of a graph's node."""
        return ()

    def tool(self, data: Any) -> Iterable[Frame]:
        """Return the frames of the start or end of a tool call."""
        return ()

    def tool_within(self, data: Any) -> Iterable[Frame]:
        """Return the frames of a tool that another tool calls. Most formats show only the outer call."""
        return ()

    def nested(self, data: Any) -> Iterable[Frame]:
        """Return the frames of text that a model says inside a tool call, as a sub-agent does."""
        return ()

    def custom(self, data: Any) -> Iterable[Frame]:
        """Return the frames of an event that the chain itself dispatches."""
        return ()

    def graph(self, data: Any) -> Iterable[Frame]:
        """Return the frames of a step of a LangGraph graph (`protocol/steps.py`)."""
        return ()

    def reset(self, data: Any) -> Iterable[Frame]:
        """Return the frames of a reset: a stage's output is void. `fold` no longer contains this output."""
        return ()

    def done(self, data: Any) -> Iterable[Frame]:
        """Return the frames of the stream's end after success."""
        return ()

    def failed(self, data: Any) -> Iterable[Frame]:
        """Return the frames of the stream's end after a failure."""
        return ()

    def cancelled(self) -> Iterable[Frame]:
        """Return the frames of the stream's end after a request to cancel it."""
        return ()


def events(frames: bytes) -> Iterable[tuple[str, Event]]:
    """Yield the events in complete frames of this gateway's own format, each with its id."""
    for frame in sse.split_frames(frames):
        first, *_, last = frame.rstrip(b"\n").split(b"\n")
        kind = sse.frame_kind(frame).removeprefix(b"event: ")
        data = _read(last.removeprefix(b"data: "))
        yield first.removeprefix(sse.ID_PREFIX).decode(), Event(EventType(kind.decode()), data)


def whole(value: Any) -> Any:
    """Return a JSON value in which each half of a surrogate pair is replaced by U+FFFD.

    Strict readers refuse half a surrogate pair.
    """
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        text = json.dumps(value, ensure_ascii=False)
        return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return value


def _read(raw: bytes) -> Any:
    """Parse an event's data. orjson refuses half a surrogate pair, and whole numbers of more than 64 bits."""
    if _LONG_NUMBER.search(raw) is None:
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            return whole(json.loads(raw))
    return whole(json.loads(raw))


async def alive(
    frames: AsyncGenerator[bytes, None], heartbeat: float, beat: bytes = sse.HEARTBEAT
) -> AsyncGenerator[bytes, None]:
    """Yield these frames, and `beat` for each heartbeat of the log.

    Also yield `beat` if the log has grown but no frame was made for `heartbeat` seconds.
    """
    loop = asyncio.get_running_loop()
    sent_at = loop.time()
    async with aclosing(frames) as source:
        async for made in source:
            if made or loop.time() - sent_at >= heartbeat:
                sent_at = loop.time()
                yield beat if made in (b"", sse.HEARTBEAT) else made


async def projected(
    chunks: AsyncGenerator[bytes, None], projection: Projection, after: Place | None = None
) -> AsyncGenerator[bytes, None]:
    """Yield the frames after a place that is in the log.

    `chunks` are the log's chunks, from the first event on. For a chunk without frames yield empty bytes. Stop
    if the log has lost its tail: the frames that were sent are void then.
    """
    async with aclosing(chunks) as source:
        async for chunk in source:
            if chunk == sse.HEARTBEAT:
                yield chunk
                continue
            if chunk == sse.LOG_LOST:
                return
            made = []
            for event_id, event in events(chunk):
                frames, first = projection.feed(event_id, event), 0
                if after is not None:
                    first = after.frame + 1 if event_id == str(after.cursor) else len(frames)
                for number, frame in enumerate(frames[first:], first):
                    if projection.wants(frame):
                        frame_id = f"{projection.id_before}{event_id}.{number}" if projection.ids else ""
                        if event.type is EventType.MESSAGE or not is_long(frame.data):
                            made.append(frame.encode(frame_id))
                            continue
                        for piece in chain(made, frame.pieces(frame_id)):  # a long frame
                            yield piece
                            await asyncio.sleep(0)
                        made = []
                if after is not None and Cursor.parse(event_id).offset >= after.cursor.offset:
                    if event_id != str(after.cursor):
                        return  # the event was in the log a moment ago: the tail was lost since then
                    after = None
            yield b"".join(made)
