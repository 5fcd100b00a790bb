"""One reader's end of a live feed: published blocks that wait for it, and the doubt that sends it to the log.

A block is taken only when its predecessor is the reader's last event. Anything else, and everything past
the bound, becomes doubt: a slow reader holds a position, not data.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from gateway.protocol import TERMINAL_EVENTS, Cursor, sse

TAKE_BYTES = 64 * 1024
_HEAD = re.compile("([0-9]{1,10}-[0-9a-f]{4}) ([0-9]{1,10}-[0-9a-f]{4}) ([a-z]*) (0|[1-9][0-9]{0,14})")
_FINAL = frozenset(status.value for status in TERMINAL_EVENTS.values())


@dataclass(slots=True)
class Block:
    """What one append published: the id of the event before, its own last id, when, and the frames.

    Nobody changes one; to be frozen would double what it costs to make, and one is made for every append.
    """

    before: str
    last: str
    final: bool
    at_ms: int  # of Redis's clock
    frames: bytes
    _chunk: bytes = field(default=b"", compare=False, repr=False)

    @property
    def chunk(self) -> bytes:
        """The frames as HTTP/1.1 sends them (RFC 9112, 7.1), made once for all readers."""
        if not self._chunk:
            self._chunk = b"%x\r\n%b\r\n" % (len(self.frames), self.frames)
        return self._chunk

    @classmethod
    def parse(cls, payload: bytes) -> Block:
        r"""Read `<before> <last> <status> <ms>\n<frames>`; parsed once for all readers of a process.

        Raises ValueError for anything else.
        """
        head, _, frames = payload.partition(b"\n")
        found = _HEAD.fullmatch(head.decode("latin-1"))
        if found is None:
            raise ValueError("not a published block")
        before, last, status, at_ms = found.groups()
        return cls(before, last, status in _FINAL, int(at_ms), frames)


@dataclass(slots=True)
class Ending:
    """Why a reader's connection came to its end; empty when whoever reads it went no further.

    `behind`: at the last chunk, the log was known to have more already.
    """

    why: str = ""
    behind: bool = False


def merged(blocks: Sequence[Block]) -> Iterator[Block]:
    """These blocks, those that follow on one another as one, about 64 KiB; a final one stays alone."""
    if len(blocks) == 1:
        yield blocks[0]
        return
    run: list[Block] = []
    size = 0
    for block in blocks:
        follows = run and block.before == run[-1].last and not (block.final or run[-1].final)
        if run and not (follows and size < TAKE_BYTES):
            yield _joined(run)
            run, size = [], 0
        run.append(block)
        size += len(block.frames)
    if run:
        yield _joined(run)


def _joined(run: Sequence[Block]) -> Block:
    if len(run) == 1:
        return run[0]
    first, last = run[0], run[-1]
    return Block(first.before, last.last, False, last.at_ms, b"".join(block.frames for block in run))


HEARTBEAT = Block("", "", False, 0, sse.HEARTBEAT)


def _offset(event_id: str) -> int:
    return Cursor.parse(event_id).offset


@dataclass(eq=False, slots=True)
class Subscription:
    """A reader's state. `last` is the id of the last event that it was given; the relay moves it."""

    bound: int  # bytes
    last: str = ""
    doubt: bool = True
    beat: bool = False
    partial: bool = False  # the last piece of the log was not its end, or blocks were dropped since
    ended: bool = False
    owner: str = ""  # whose place it takes among the readers of this process; empty: nobody's
    why: str = ""  # it ended: `terminal`, `age`, `expired` (there is no log any more), `stopping`
    sent_at: float = 0.0
    busy: asyncio.Task[object] | None = None  # the task that is handing a chunk to the socket
    # While the reader rests, where its socket is the relay's own: writes a block at once, or says no.
    write: Callable[[Block], bool] | None = None
    waker: Callable[[], None] | None = None  # told that there is something to do, where no task waits
    _blocks: deque[Block] = field(default_factory=deque)
    _size: int = 0
    # A block has fitted, or stood where the log ended: older ones are no surprise before.
    _joined: bool = False
    _waiter: asyncio.Future[None] | None = None

    @property
    def head(self) -> str:
        """The id of the last event that this reader has or is about to get."""
        return self._blocks[-1].last if self._blocks else self.last

    @property
    def behind(self) -> bool:
        """Whether the log is known to have more than this reader was given."""
        # What waits may be older than what a read of the log has given.
        return self.partial or bool(self.last and _offset(self.head) > _offset(self.last))

    def offer(self, block: Block, now: float = 0.0) -> None:
        """A block was published. Never waits; past the bound the reader is sent to the log instead."""
        if self.write is not None and block.before == self.last and not block.final and self.write(block):
            self._joined = True
            self.last, self.sent_at = block.last, now
            return
        if not self.doubt:
            self._blocks.append(block)
            self._size += len(block.frames)
            if self._size > self.bound:
                self.partial = True
                self.lose()
        self.wake()

    def lose(self) -> None:
        """Forget what waits: the log must be read at the reader's own position."""
        self.doubt = True
        self._drop()
        self.wake()

    def end(self, why: str = "") -> None:
        """The reader is to close now, cleanly; the first reason counts."""
        self.ended = True
        self.why = self.why or why
        self.wake()

    def reading(self) -> None:
        """The log is about to be read: what was published before is in it, what comes now may be too."""
        self.doubt = self.partial = False
        self._joined = False
        self._drop()

    def take(self) -> tuple[bytes, bool]:
        """The frames of the blocks that follow on `last`, about 64 KiB, and whether they end the stream."""
        taken: list[bytes] = []
        size = 0
        while self._blocks and size < TAKE_BYTES:
            block = self._blocks.popleft()
            self._size -= len(block.frames)
            if block.before == self.last:
                self._joined = True
                self.last = block.last
                taken.append(block.frames)
                size += len(block.frames)
                if block.final:
                    return b"".join(taken), True
            elif block.last == self.last and not self._joined:
                self._joined = True  # the last one that the log read has already given
            elif self._joined or _offset(block.last) >= _offset(self.last):
                self.lose()  # a gap, a double, or a tail written anew
        return b"".join(taken), False

    @property
    def has_work(self) -> bool:
        """Whether there is something to do."""
        return bool(self._blocks) or self.doubt or self.beat or self.ended

    def pulse(self, now: float) -> None:
        """A heartbeat is due."""
        self.sent_at = now
        if self.write is None or not self.write(HEARTBEAT):
            self.beat = True
            self.wake()

    async def wait(self) -> None:
        """Until there is something to do."""
        if self.has_work:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        """There is something to do."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        elif self.waker is not None:
            self.waker()

    def _drop(self) -> None:
        self._blocks.clear()
        self._size = 0
