"""A foreign wire format is a pure function from a stream's events to frames: what all formats share.

A reader's connection begins the projection at the log's first event, whatever it has already seen, and
leaves out the frames that it has: so a frame is the same in every connection, and a projection may remember.
One event may become several frames; a frame's place is its event's id and its number among these, from 0.
"""

from __future__ import annotations

import asyncio
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
# As a whole number: the offset, then 16 bits of the writer's tag, then the frame. Below 2**53 for any log
# that Redis can hold, so it is exact as JavaScript's number; and like an id, it proves itself.
_FRAME_BITS, _TAG_BITS = 6, 16
_LARGEST = 2**53
MOST_FRAMES = 1 << _FRAME_BITS  # of one event


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reader stands: an event, and how many of its frames, less one, it has."""

    cursor: Cursor
    frame: int

    def __str__(self) -> str:
        return f"{self.cursor}.{self.frame}"

    @property
    def number(self) -> int:
        """This place as a whole number; later ones are larger."""
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
    def of_number(cls, number: int) -> Place:
        """The place that has this number. Raises ValueError for one that none has."""
        if not 0 <= number < _LARGEST:
            raise ValueError("not a place in a stream")
        event, frame = divmod(number, 1 << _FRAME_BITS)
        offset, tag = divmod(event, 1 << _TAG_BITS)
        return cls(Cursor.parse(f"{offset}-{tag:04x}"), frame)


@dataclass(frozen=True, slots=True)
class Frame:
    """One server-sent event: `data` is JSON-able, or bytes that are sent as they are (one line)."""

    data: Any
    event: str = ""

    def encode(self, frame_id: str = "") -> bytes:
        """Its bytes, with `id:` where the format has one."""
        data = self.data if isinstance(self.data, bytes) else sse.dumps(self.data)
        return b"%bdata: %b\n\n" % (self._head(frame_id), data)

    def pieces(self, frame_id: str = "") -> Iterator[bytes]:
        """The same bytes, in pieces."""
        yield self._head(frame_id) + b"data: "
        yield from pieces(self.data)
        yield b"\n\n"

    def _head(self, frame_id: str) -> bytes:
        head = f"id: {frame_id}\n" if frame_id else ""
        return (head + (f"event: {self.event}\n" if self.event else "")).encode()


@dataclass
class Projection:
    """One reader's view of a stream; a format overrides what it has a frame for.

    `fold` is what the events up to this one amount to; `place(k)` is where the k-th frame of this event is.
    """

    ids = False  # whether frames carry `id: <place>`
    fold: Fold = field(default_factory=Fold, init=False)
    id_before: str = field(default="", init=False)  # of each frame's id
    share: Share | None = field(default=None, init=False)  # of memory, where the whole log was read at once
    cursor: str = field(default="", init=False)  # the id of this event
    last: str = field(default="", init=False)  # the chain's last stage
    aside: str = field(default="", init=False)  # why this text is no part of the answer, where that is known
    calls: Calls = field(default_factory=Calls, init=False)  # that have no answer so far
    for_client: list[Unanswered] = field(default_factory=list, init=False)  # those, when the stream is done

    def feed(self, event_id: str, event: Event) -> list[Frame]:
        """The frames of the next event, in order."""
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
        """The run that an event belongs to; without a number, the latest of its name."""
        named = [stage for stage in reversed(self.fold.stages) if stage.name == data["stage"]]
        return next((stage for stage in named if stage.run == data.get("run")), named[0] if named else None)

    def shared_as(self) -> Hashable | None:
        """What its frames depend on beside the log: readers with the same share one projection (`shared.py`).

        None: each reader has its own. What a reader wants of the frames is no part of it; `wants` then must
        look at nothing but a frame's `event`.
        """
        return None

    def place(self, frame: int) -> Place:
        """Where this event's frame of this number is."""
        return Place(Cursor.parse(self.cursor), frame)

    def wants(self, frame: Frame) -> bool:
        """Whether this reader has asked for such frames; each has its place in any case."""
        return True

    def start(self, data: Any) -> Iterable[Frame]:
        """The first event."""
        return ()

    def text(self, stage: StageText, delta: str) -> Iterable[Frame]:
        """A piece of a stage's text; `stage` has it already."""
        return ()

    def refusal(self, stage: StageText, delta: str) -> Iterable[Frame]:
        """A piece of a refusal's words; `stage` has it already. Text, where a format has nothing else."""
        return self.text(stage, delta)

    def citations(self, data: Any) -> Iterable[Frame]:
        """What a model cites for the text before."""
        return ()

    def stage(self, data: Any) -> Iterable[Frame]:
        """A stage, or a graph's node, begins or ends."""
        return ()

    def tool(self, data: Any) -> Iterable[Frame]:
        """A tool call begins or ends."""
        return ()

    def tool_within(self, data: Any) -> Iterable[Frame]:
        """A tool that is called below another one: most formats' conversations have only that one."""
        return ()

    def nested(self, data: Any) -> Iterable[Frame]:
        """What a model says below a tool, as a sub-agent does."""
        return ()

    def custom(self, data: Any) -> Iterable[Frame]:
        """What a chain dispatches itself."""
        return ()

    def graph(self, data: Any) -> Iterable[Frame]:
        """A step of a graph, as LangGraph tells it (`protocol/steps.py`)."""
        return ()

    def reset(self, data: Any) -> Iterable[Frame]:
        """What a stage has said is void; `fold` is without it already."""
        return ()

    def done(self, data: Any) -> Iterable[Frame]:
        """The end."""
        return ()

    def failed(self, data: Any) -> Iterable[Frame]:
        """The end, without a result."""
        return ()

    def cancelled(self) -> Iterable[Frame]:
        """The end, as somebody wished."""
        return ()


def events(frames: bytes) -> Iterable[tuple[str, Event]]:
    """The events of our own whole frames, with their ids."""
    for frame in sse.split_frames(frames):
        first, *_, last = frame.rstrip(b"\n").split(b"\n")
        kind = sse.frame_kind(frame).removeprefix(b"event: ")
        data = _read(last.removeprefix(b"data: "))
        yield first.removeprefix(sse.ID_PREFIX).decode(), Event(EventType(kind.decode()), data)


def whole(value: Any) -> Any:
    """JSON in which half a surrogate pair, which strict readers refuse, is U+FFFD."""
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        text = json.dumps(value, ensure_ascii=False)
        return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return value


def _read(raw: bytes) -> Any:
    """An event's data. orjson takes neither half a surrogate pair nor whole numbers beyond 64 bits."""
    if _LONG_NUMBER.search(raw) is None:
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            return whole(json.loads(raw))
    return whole(json.loads(raw))


async def alive(
    frames: AsyncGenerator[bytes, None], heartbeat: float, beat: bytes = sse.HEARTBEAT
) -> AsyncGenerator[bytes, None]:
    """These frames, and `beat` where none has come for so many seconds though the log goes on."""
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
    """The frames after a place that stands in the log; `chunks` are the log's, from its first event on.

    A chunk that has none here is empty bytes. Ends where the log turns out to have lost its tail: what was
    sent is void then.
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
                        for piece in chain(made, frame.pieces(frame_id)):  # of a whole text
                            yield piece
                            await asyncio.sleep(0)
                        made = []
                if after is not None and Cursor.parse(event_id).offset >= after.cursor.offset:
                    if event_id != str(after.cursor):
                        return  # it stood there a moment ago: the tail has been lost since
                    after = None
            yield b"".join(made)
