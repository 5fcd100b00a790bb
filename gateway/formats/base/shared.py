"""One projection of a stream for all of its readers in a process who are to see the same frames.

The log is parsed once, whoever reads it. A reader follows the log from its own place, as a reader of our own
format does, and for each chunk of the log takes the frames that were made of it. So its cost is that of the
bytes. Whoever comes with the next events of the log feeds them; whoever comes with later ones has what is
missing read first.

Invariant: what is kept follows the log without a gap from its first event on. Where the log turns out to be
another one (the store has lost a tail), all of it is thrown away (Stale).
"""

from __future__ import annotations

import asyncio
import copy
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Hashable
from weakref import WeakKeyDictionary

from gateway.formats.base.projection import MOST_FRAMES, Frame, Place, Projection, events
from gateway.protocol import Cursor, EventType, sse
from gateway.protocol.errors import CursorLost
from gateway.runtime.json_pieces import is_long
from gateway.store.log import Log
from gateway.streams.service import Gateway

IDLE_SECONDS = 60.0  # a projection without readers is kept for so long
EVENT_BYTES = 96  # of memory, for each event, beside its frames
AT_ONCE = 200  # events that are projected in one turn of the event loop
_TAG_BITS = 16


class Stale(Exception):
    """The log is not the one that was projected."""


class Trimmed(Exception):
    """Frames that were asked for are not kept any more."""


def number_of(event_id: str) -> int:
    """An event's id as a whole number; those of one log grow."""
    offset, _, tag = event_id.partition("-")
    return int(offset) << _TAG_BITS | int(tag, 16)


def id_of(number: int) -> str:
    """The id that has this number."""
    return f"{number >> _TAG_BITS}-{number & 0xFFFF:04x}"


def ends_of(chunk: bytes) -> tuple[int, int]:
    """The first and the last event of a chunk of a log, as numbers."""
    last = chunk.rfind(sse.NEXT_FRAME)
    at = 0 if last < 0 else last + len(sse.FRAME_END)
    return tuple(number_of(chunk[i + 4 : chunk.index(b"\n", i)].decode()) for i in (0, at))  # type: ignore[return-value]


class SharedProjection:
    """A projection, the bytes of its frames, and where each of them is."""

    def __init__(self, projection: Projection, log: Log, stream_id: str) -> None:
        self._projection = projection
        self._log = log
        self._stream = stream_id
        self._turn = asyncio.Lock()
        self._events = array("Q")  # their ids, as numbers
        self._first = array("Q")  # of each event: the number of its first frame
        self._lengths = array("I")  # of each frame, in bytes
        self._kinds = array("H")  # of each frame: which of `_names`
        self._names: dict[str, int] = {}  # the frames' `event`
        self._blocks: list[bytes] = []  # the frames of each event, of those that are kept
        self._dropped = 0  # events whose frames are not kept
        self._parts: list[bytes] = []  # of the event whose frames are being written
        self._unwritten: deque[Frame] = deque()  # likewise; somebody has gone away in the middle
        self.next = 0  # where in the log the next event begins
        self._is_text = False  # the last event is
        self.size = 0  # bytes of memory
        self.counted = 0  # what of them is in the sum of all
        self.readers = 0
        self.left_at = 0.0  # when the last reader has gone
        self.is_broken = False

    @property
    def _is_writing(self) -> bool:
        """Whether the last event's frames are not all written."""
        return len(self._blocks) + self._dropped < len(self._events)

    @property
    def frames(self) -> int:
        """How many there are so far."""
        return len(self._lengths) + len(self._unwritten)

    @property
    def has_ended(self) -> bool:
        """Whether the stream's last event is among these."""
        return self._projection.fold.ended is not None

    async def of(self, chunk: bytes, wants: Callable[[Frame], bool]) -> list[bytes]:
        """The frames that were made of a chunk of the log, event by event. Raises Stale or Trimmed."""
        first, last = ends_of(chunk)
        if last >> _TAG_BITS >= self.next or self._is_writing:
            async with self._turn:
                if first >> _TAG_BITS > self.next:
                    await self._read_to(first >> _TAG_BITS)
                await self._feed(chunk)
        begin, end = self._index(first), self._index(last) + 1
        return self._wanted(begin, end, wants)

    async def rest(self, after: Place, wants: Callable[[Frame], bool]) -> list[bytes]:
        """The frames of the event of a place that come behind it. Raises Stale or Trimmed."""
        number = number_of(str(after.cursor))
        async with self._turn:
            await self._read_to((number >> _TAG_BITS) + 1)
        at = self._index(number)
        return self._wanted(at, at + 1, wants, after.frame + 1)

    async def catch_up(self) -> None:
        """Have all that the log holds now. Raises Stale."""
        async with self._turn:
            await self._read_to(1 << 62)

    @property
    def projection(self) -> Projection:
        """As it stands behind the last event that it was fed: to read, not to change."""
        return self._projection

    @property
    def last(self) -> Place | None:
        """Where a reader stands who has all frames so far."""
        if not self._events:
            return None
        return Place(Cursor.parse(id_of(self._events[-1])), MOST_FRAMES - 1)

    def place_of(self, frame: int) -> Place:
        """Where the frame of this number, from 0, is."""
        # An event without frames begins at the number at which the next one does.
        event = bisect_right(self._first, frame) - 1
        return Place(Cursor.parse(id_of(self._events[event])), frame - self._first[event])

    def trim(self) -> None:
        """Keep the later half of the frames alone."""
        half = len(self._blocks) // 2
        self.size -= sum(map(len, self._blocks[:half]))
        del self._blocks[:half]
        self._dropped += half

    async def _read_to(self, offset: int) -> None:
        """Read the log until what begins before this offset is known, or until its end."""
        await self._write()
        while self.next < offset:
            last = Cursor.parse(id_of(self._events[-1])) if self._events else None
            try:
                piece = await self._log.read(self._stream, last)
            except CursorLost:
                raise Stale from None
            if piece.last is None:
                raise Stale
            await self._feed(piece.frames)
            if piece.at_end or piece.final:
                return

    async def _feed(self, chunk: bytes) -> None:
        """Take the events of a chunk that are new."""
        await self._write()
        for count, raw in enumerate(sse.split_frames(chunk), 1):
            number = number_of(raw[4 : raw.index(b"\n")].decode())
            offset = number >> _TAG_BITS
            if offset < self.next:
                continue
            if offset != self.next:
                raise Stale
            [(event_id, event)] = events(raw)
            self._first.append(len(self._lengths))
            self._events.append(number)
            self._is_text = event.type is EventType.MESSAGE
            self.next += len(raw)
            try:
                self._unwritten.extend(self._projection.feed(event_id, event))
            except BaseException:
                self.is_broken = True
                raise
            await self._write()
            if count % AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _write(self) -> None:
        """Write the frames of the last event; a long one in pieces, between which others have their turn."""
        if not self._is_writing:
            return
        event_id = id_of(self._events[-1])
        while self._unwritten:
            frame = self._unwritten[0]
            number = len(self._lengths) - self._first[-1]
            before = self._projection.id_before
            frame_id = f"{before}{event_id}.{number}" if self._projection.ids else ""
            if self._is_text or not is_long(frame.data):
                written = frame.encode(frame_id)
            else:
                pieces = []
                for piece in frame.pieces(frame_id):
                    pieces.append(piece)
                    await asyncio.sleep(0)
                written = b"".join(pieces)
            self._kinds.append(self._names.setdefault(frame.event, len(self._names)))
            self._lengths.append(len(written))
            self._parts.append(written)
            self._unwritten.popleft()
        block = b"".join(self._parts)
        self._parts.clear()
        self._blocks.append(block)
        self.size += len(block) + EVENT_BYTES

    def _index(self, number: int) -> int:
        """Which of the events this is. Raises Stale."""
        at = bisect_left(self._events, number)
        if at == len(self._events) or self._events[at] != number:
            raise Stale
        return at

    def _wanted(self, begin: int, end: int, wants: Callable[[Frame], bool], skipped: int = 0) -> list[bytes]:
        """The frames of these events, without the first so many, as this reader wants them."""
        if begin < self._dropped:
            raise Trimmed
        blocks = self._blocks[begin - self._dropped : end - self._dropped]
        wanted = [wants(Frame(None, name)) for name in self._names]
        if all(wanted) and not skipped:
            return blocks
        told = []
        for event, block in enumerate(blocks, begin):
            first, at = self._first[event], 0
            after = self._first[event + 1] if event + 1 < len(self._first) else len(self._lengths)
            for frame in range(first, after):
                length = self._lengths[frame]
                if frame - first >= skipped and wanted[self._kinds[frame]]:
                    told.append(block[at : at + length])
                at += length
        return told


class Projections:
    """The shared projections of one process: at most about `most` bytes of frames.

    Where there are more, those go first that nobody reads, the longest unread one before the others; then the
    older frames of those that are read. Whoever needs them has a projection of his own.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0  # bytes, of all
        self._kept: dict[Hashable, SharedProjection] = {}  # the one that was asked for last stands last

    def of(self, gateway: Gateway, stream_id: str, projection: Projection) -> SharedProjection:
        """That of a stream and a format, for one more reader: give it back by `leave`.

        A copy of `projection` begins it where there is none yet.
        """
        name = (stream_id, type(projection), projection.shared_as())
        found = self._kept.pop(name, None)
        if found is None or found.is_broken:
            found = SharedProjection(copy.deepcopy(projection), gateway.parts.log, stream_id)
        self._kept[name] = found
        found.readers += 1
        return found

    def leave(self, shared: SharedProjection) -> None:
        """One reader less; without any it is forgotten after a while."""
        loop = asyncio.get_running_loop()
        shared.readers -= 1
        shared.left_at = loop.time()
        self.grew(shared)
        loop.call_later(IDLE_SECONDS, self._forget, shared)

    def drop(self, shared: SharedProjection) -> None:
        """It is of no use: the next reader begins another one."""
        shared.is_broken = True
        self._held -= shared.counted
        shared.counted = 0
        self._kept = {name: one for name, one in self._kept.items() if one is not shared}

    def grew(self, shared: SharedProjection) -> None:
        """It may have: keep the bound."""
        if shared.is_broken:
            return
        self._count(shared)
        if self._held > self._most:
            self._make_room()

    def _make_room(self) -> None:
        for shared in [one for one in self._kept.values() if not one.readers]:
            if self._held <= self._most:
                return
            self.drop(shared)
        for shared in sorted(self._kept.values(), key=lambda one: one.size, reverse=True):
            if self._held <= self._most:
                return
            shared.trim()
            self._count(shared)

    def _count(self, shared: SharedProjection) -> None:
        self._held += shared.size - shared.counted
        shared.counted = shared.size

    def _forget(self, shared: SharedProjection) -> None:
        idle = asyncio.get_running_loop().time() - shared.left_at
        if not shared.readers and not shared.is_broken and idle >= IDLE_SECONDS - 1:
            self.drop(shared)


_of_gateways: WeakKeyDictionary[Gateway, Projections] = WeakKeyDictionary()


def projections(gateway: Gateway) -> Projections:
    """Those of this gateway."""
    if gateway not in _of_gateways:
        _of_gateways[gateway] = Projections(gateway.settings.max_projections)
    return _of_gateways[gateway]
