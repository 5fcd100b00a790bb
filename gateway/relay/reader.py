"""The state of one reader of a live stream: the last event that it was given, and the blocks that wait.

A block is given to a reader only where the block follows the reader's last event. In every other case the
reader must read the log from its last event on. The same holds when more bytes wait than the bound allows: a
slow reader keeps its position in the log, and no data.

Only the methods of this class change the state. The hub calls `offer`, `lose`, `pulse`, `cut` and `end`.
Whoever serves the reader calls the others. A reader that has nothing to do rests (`rest`), and is woken once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from gateway.protocol import Cursor, sse
from gateway.relay.block import HEARTBEAT, MERGED_BYTES, Block


class Why(StrEnum):
    """Why a reader's connection came to its end."""

    NONE = ""  # it has not ended
    TERMINAL = "terminal"  # the stream has ended, and the reader has its last event
    EXPIRED = "expired"  # there is no log any more
    AGE = "age"  # a connection lasts only so long
    STOPPING = "stopping"  # the process stops
    GONE = "gone"  # the client has closed the connection
    STALLED = "stalled"  # the client took nothing more
    STORE = "store"  # the store is out of reach
    FULL = "full"  # there is no room for another reader
    RESET = "reset"  # the sample's endpoint cannot take back what it has sent
    FAILED = "failed"  # a mistake of ours
    CUT = "cut"  # none of these


@dataclass(slots=True)
class Ending:
    """Why a reader's connection came to its end: NONE when whoever reads it went no further.

    `behind`: at the last chunk, the log was known to have more already.
    """

    why: Why = Why.NONE
    behind: bool = False


class Subscription:
    """One reader of a stream. `after` is the last event that the reader has; `bound` limits waiting bytes.

    `owner` is the owner whose place the reader takes among the readers of this process; empty: nobody's.
    """

    __slots__ = (
        "_beat",
        "_blocks",
        "_bound",
        "_doubt",
        "_joined",
        "_last",
        "_more",
        "_sender",
        "_sent_at",
        "_size",
        "_wake",
        "_why",
        "_write",
        "owner",
    )

    def __init__(self, bound: int, after: Cursor | None = None, *, owner: str = "", now: float = 0.0) -> None:
        self.owner = owner
        self._bound = bound
        self._last = str(after) if after else ""  # as text, to be compared with a block's ids
        self._doubt = True  # the log must be read
        self._more = False  # the log has more: its last piece was not its end, or blocks were dropped
        self._beat = False  # a heartbeat is due
        self._why = Why.NONE
        self._blocks: deque[Block] = deque()  # what waits
        self._size = 0  # of what waits, in bytes
        # True once a live block was given, or the block was seen at which our read of the log ended. Before
        # that, older blocks may still arrive and are skipped. After it, a block that does not follow means a
        # gap.
        self._joined = False
        self._sent_at = now  # when something was last handed to the socket, by the event loop's clock
        self._sender: asyncio.Task[object] | None = None  # waits for the socket to take a chunk
        # Both are set while the reader rests; `_write` only where a block can go to the socket at once.
        self._wake: Callable[[], None] | None = None
        self._write: Callable[[Block], bool] | None = None

    @property
    def last(self) -> Cursor | None:
        """The last event that the reader was given. None: none."""
        return Cursor(self._last) if self._last else None

    @property
    def head(self) -> str:
        """The id of the last event that the reader was given or that waits for it. Empty: none."""
        return self._blocks[-1].last if self._blocks else self._last

    @property
    def doubt(self) -> bool:
        """Whether the log must be read."""
        return self._doubt

    @property
    def behind(self) -> bool:
        """Whether the log is known to have more than the reader was given."""
        # Blocks that wait may be older than what a read of the log has given.
        return self._more or bool(self._last and _offset(self.head) > _offset(self._last))

    @property
    def ended(self) -> bool:
        """Whether the connection is to be closed."""
        return self._why is not Why.NONE

    @property
    def why(self) -> Why:
        """Why the connection is to be closed."""
        return self._why

    @property
    def has_work(self) -> bool:
        """Whether there is something to do for whoever serves this reader."""
        return bool(self._blocks) or self._doubt or self._beat or self.ended

    # What the hub calls. None of it waits.

    def offer(self, block: Block, now: float = 0.0) -> None:
        """A block was published. Where more waits than the bound allows, the reader must read the log."""
        if self._write is not None and block.before == self._last and not block.final and self._write(block):
            self._joined = True
            self._last, self._sent_at = block.last, now
            return
        if not self._doubt:
            self._blocks.append(block)
            self._size += len(block.frames)
            if self._size > self._bound:
                self._more = True
                self.lose()
        self._call()

    def lose(self) -> None:
        """Something may have been missed: drop what waits, and have the log read from the last event on."""
        self._doubt = True
        self._drop()
        self._call()

    def pulse(self, now: float) -> None:
        """Send a heartbeat."""
        self._sent_at = now
        if self._write is None or not self._write(HEARTBEAT):
            self._beat = True
            self._call()

    def end(self, why: Why = Why.CUT) -> None:
        """Have the connection closed in order. The first reason counts."""
        if not self.ended:
            self._why = why
        self._call()

    @property
    def is_sending(self) -> bool:
        """Whether a chunk waits for the socket to take it."""
        return self._sender is not None

    def silent_seconds(self, now: float) -> float:
        """How long nothing was handed to the socket, or how long a chunk has been waiting for the socket."""
        return now - self._sent_at

    def cut(self) -> None:
        """Cancel the task that waits for the socket: the message is STALLED. The client can come back."""
        if self._sender is not None:
            self._sender.cancel(Why.STALLED)

    # What is called by whoever serves the reader.

    def begin_read(self) -> Cursor | None:
        """The log is about to be read from this event on.

        Blocks that wait are dropped, because the read gives them. A block that comes from now on may be in
        the read too.
        """
        self._doubt = self._more = self._joined = False
        self._drop()
        return self.last

    def read_to(self, last: Cursor, *, more: bool) -> None:
        """The reader was given all events up to `last` from the log. `more`: this was not the log's end."""
        self._last = str(last)
        self._more |= more

    def start_over(self) -> None:
        """The last event does not stand in the log any more: read the log from its beginning."""
        self._last = ""
        self._doubt = True

    def take(self) -> bytes:
        """The frames of waiting blocks that follow, about 64 KiB; or a heartbeat, if one is due; or nothing.

        With the last frame of the stream the reader has ended.
        """
        frames = b"".join(self._following())
        beat, self._beat = self._beat, False
        return frames or (sse.HEARTBEAT if beat else b"")

    def sending(self, now: float, task: asyncio.Task[object] | None) -> None:
        """This task hands a chunk to the socket, and may have to wait."""
        self._sent_at, self._sender = now, task

    def sent(self) -> None:
        """The socket has taken the chunk."""
        self._sender = None

    def rest(self, wake: Callable[[], None], write: Callable[[Block], bool] | None = None) -> None:
        """There is nothing to do: call `wake` once, as soon as there is something to do.

        Until then a block that follows is given to `write`, if there is one. It returns True when it has sent
        the block, and False where the socket takes nothing now.
        """
        self._wake, self._write = wake, write
        if self.has_work:
            self._call()

    def rise(self) -> None:
        """Whoever serves the reader does not rest any more: nobody is woken."""
        self._wake = self._write = None

    async def wait(self) -> None:
        """Rest, until there is something to do."""
        if self.has_work:
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not woken.done():  # it is, where the waiting task was cancelled just now
                woken.set_result(None)

        self.rest(wake)
        try:
            await woken
        finally:
            self.rise()

    def _call(self) -> None:
        """Wake whoever rests. This is the only way to wake."""
        wake = self._wake
        if wake is not None:
            self.rise()
            wake()

    def _following(self) -> list[bytes]:
        taken: list[bytes] = []
        size = 0
        while self._blocks and size < MERGED_BYTES:
            block = self._blocks.popleft()
            self._size -= len(block.frames)
            if block.before == self._last:
                self._joined = True
                self._last = block.last
                taken.append(block.frames)
                size += len(block.frames)
                if block.final:
                    self.end(Why.TERMINAL)
                    break
            elif block.last == self._last and not self._joined:
                self._joined = True  # the log's read has given this block
            elif self._joined or _offset(block.last) >= _offset(self._last):
                self.lose()  # a gap, a block that came twice, or another text in place of a lost end
        return taken

    def _drop(self) -> None:
        self._blocks.clear()
        self._size = 0


def _offset(event_id: str) -> int:
    return Cursor.parse(event_id).offset
