"""One projection of a stream that is shared by all readers in a process that get the same frames.

The log is parsed only once for all of these readers. Each reader follows the log from its own place, as a
reader of this gateway's own format does. For each chunk of the log the reader gets the frames that were made
from the chunk. So a reader costs only the copying of bytes. The reader that first has the next chunk of the
log feeds it into the projection. If a reader has a later chunk, the missing events are read from the log
first.

Invariant: the stored frames follow the log without a gap, from its first event on. If the log is not the same
any more (the store has lost a tail), all stored frames are deleted (Stale).
"""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Hashable
from weakref import WeakKeyDictionary

from gateway.formats.base.projection import Frame, Place, Projection, events
from gateway.protocol import Cursor, EventType, sse
from gateway.protocol.errors import CursorLost
from gateway.runtime.json_pieces import is_long
from gateway.store.log import Log
from gateway.streams.service import Gateway

IDLE_SECONDS = 60.0  # a projection without readers is kept for this time
EVENT_BYTES = 96  # bytes of memory for each event, in addition to its frames
AT_ONCE = 200  # most events that are projected in one turn of the event loop
_TAG_BITS = 16


class Stale(Exception):
    """The log is not the log that was projected."""


class Trimmed(Exception):
    """The requested frames are no longer stored."""


def number_of(event_id: str) -> int:
    """Return an event's id as a whole number. Within one log these numbers grow."""
    offset, _, tag = event_id.partition("-")
    return int(offset) << _TAG_BITS | int(tag, 16)


def id_of(number: int) -> str:
    """Return the event's id that has this number."""
    return f"{number >> _TAG_BITS}-{number & 0xFFFF:04x}"


def ends_of(chunk: bytes) -> tuple[int, int]:
    """Return the first and the last event of a chunk of a log, as numbers."""
    last = chunk.rfind(sse.NEXT_FRAME)
    at = 0 if last < 0 else last + len(sse.FRAME_END)
    return tuple(number_of(chunk[i + 4 : chunk.index(b"\n", i)].decode()) for i in (0, at))  # type: ignore[return-value]


class SharedProjection:
    """A projection with the bytes of its frames, and an index of these frames."""

    def __init__(self, projection: Projection, log: Log, stream_id: str) -> None:
        self._projection = projection
        self._log = log
        self._stream = stream_id
        self._turn = asyncio.Lock()
        self._events = array("Q")  # the events' ids, as numbers
        self._first = array("Q")  # for each event: the number of its first frame
        self._lengths = array("I")  # for each frame: its length in bytes
        self._kinds = array("H")  # for each frame: the number of its name in `_names`
        self._names: dict[str, int] = {}  # the frames' names (`event`), and their numbers
        self._blocks: list[bytes] = []  # for each event whose frames are stored: the bytes of its frames
        self._dropped = 0  # number of the first events, whose frames are no longer stored
        # While the last event's frames are encoded: the encoded frames, and the frames still to encode. Both
        # stay here if the reader that encodes them is cancelled.
        self._parts: list[bytes] = []
        self._unwritten: deque[Frame] = deque()
        self.next = 0  # the offset in the log at which the next event begins
        self._is_text = False  # whether the last event is a piece of text
        self.size = 0  # bytes of memory of this projection
        self.counted = 0  # the part of `size` that is in the sum of all projections
        self.readers = 0
        self.left_at = 0.0  # the event loop's time when a reader last left
        self.is_broken = False

    @property
    def _is_writing(self) -> bool:
        """Whether some frames of the last event are not encoded yet."""
        return len(self._blocks) + self._dropped < len(self._events)

    @property
    def frames(self) -> int:
        """The number of frames so far."""
        return len(self._lengths) + len(self._unwritten)

    @property
    def has_ended(self) -> bool:
        """Whether the projection has processed the stream's last event."""
        return self._projection.fold.ended is not None

    async def of(self, chunk: bytes, wants: Callable[[Frame], bool]) -> list[bytes]:
        """Return the frames that are made from a chunk of the log. Raises Stale or Trimmed."""
        first, last = ends_of(chunk)
        if last >> _TAG_BITS >= self.next or self._is_writing:
            async with self._turn:
                if first >> _TAG_BITS > self.next:
                    await self._read_to(first >> _TAG_BITS)
                await self._feed(chunk)
        begin, end = self._index(first), self._index(last) + 1
        return self._wanted(begin, end, wants)

    async def rest(self, after: Place, wants: Callable[[Frame], bool]) -> list[bytes]:
        """Return the frames after a place, but only those of the place's event. Raises Stale or Trimmed."""
        number = number_of(str(after.cursor))
        async with self._turn:
            await self._read_to((number >> _TAG_BITS) + 1)
        at = self._index(number)
        return self._wanted(at, at + 1, wants, after.frame + 1)

    async def catch_up(self) -> None:
        """Process all events that are in the log now. Raises Stale."""
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
        return Place.behind(id_of(self._events[-1]))

    def place_of(self, frame: int) -> Place:
        """Return the place of a frame; `frame` is its number in the stream, from 0."""
        # An event without frames has the same first number as the next event.
        event = bisect_right(self._first, frame) - 1
        return Place(Cursor.parse(id_of(self._events[event])), frame - self._first[event])

    def trim(self) -> None:
        """Delete the frames of the older half of the stored events."""
        half = len(self._blocks) // 2
        self.size -= sum(map(len, self._blocks[:half]))
        del self._blocks[:half]
        self._dropped += half

    async def _read_to(self, offset: int) -> None:
        """Process the events of the log that begin before this offset; stop at the log's end.

        Raises Stale.
        """
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
        """Process the events of a chunk that are new. Raises Stale."""
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
        """Encode the frames of the last event.

        A long frame is encoded in pieces, and other tasks of the event loop run between the pieces.
        """
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
        """Return the position in `_events` of the event with this number. Raises Stale."""
        at = bisect_left(self._events, number)
        if at == len(self._events) or self._events[at] != number:
            raise Stale
        return at

    def _wanted(self, begin: int, end: int, wants: Callable[[Frame], bool], skipped: int = 0) -> list[bytes]:
        """Return the frames of these events that this reader wants. Raises Trimmed.

        The first `skipped` frames of each event are left out.
        """
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
    """The shared projections of one process. Their frames use at most about `most` bytes of memory.

    If they use more, the projections without readers are dropped first, the least recently used one before
    the others. Then the older frames of the other projections are deleted. A reader that needs deleted frames
    makes a projection of its own.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0  # bytes of all projections
        self._kept: dict[Hashable, SharedProjection] = {}  # the most recently requested one is last

    def of(self, gateway: Gateway, stream_id: str, projection: Projection) -> SharedProjection:
        """Return the shared projection of a stream and a format, for one more reader.

        The reader must call `leave` when it is done. If there is no shared projection yet, a new one starts
        with a copy of `projection`.
        """
        name = (stream_id, type(projection), projection.shared_as())
        found = self._kept.pop(name, None)
        if found is None or found.is_broken:
            found = SharedProjection(projection.unfed(), gateway.parts.log, stream_id)
        self._kept[name] = found
        found.readers += 1
        return found

    def leave(self, shared: SharedProjection) -> None:
        """Record that a reader has left. Without readers the projection is dropped after IDLE_SECONDS."""
        loop = asyncio.get_running_loop()
        shared.readers -= 1
        shared.left_at = loop.time()
        self.grew(shared)
        loop.call_later(IDLE_SECONDS, self._forget, shared)

    def drop(self, shared: SharedProjection) -> None:
        """Remove a projection that cannot be used any more. The next reader starts a new one."""
        shared.is_broken = True
        self._held -= shared.counted
        shared.counted = 0
        self._kept = {name: one for name, one in self._kept.items() if one is not shared}

    def grew(self, shared: SharedProjection) -> None:
        """Count a projection's memory again, because it may have grown, and keep the limit of memory."""
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
    """Return the shared projections of this gateway."""
    if gateway not in _of_gateways:
        _of_gateways[gateway] = Projections(gateway.settings.max_projections)
    return _of_gateways[gateway]
