"""The state of one reader of a live stream: the last event that it was given, and the blocks that wait.

A block is given to a reader only if the block follows the reader's last event. In every other case the reader
must read the log from its last event on. The reader must also read the log when more bytes wait than the
bound allows: a slow reader keeps its position in the log, and no data.

Only the methods of this class change the state. The hub calls `offer`, `lose`, `pulse`, `cut` and `end`. The
server of the reader (the code that sends to its client) calls the other methods. A reader that has nothing to
do rests (`rest`), and is woken once.
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
    """The reason why a reader's connection ended."""

    NONE = ""  # the connection has not ended
    TERMINAL = "terminal"  # the stream has ended, and the reader has its last event
    EXPIRED = "expired"  # the stream's log does not exist any more
    AGE = "age"  # the connection has reached its maximum age
    STOPPING = "stopping"  # the process stops
    GONE = "gone"  # the client has closed the connection
    STALLED = "stalled"  # the client's socket accepted no more data
    STORE = "store"  # the store is out of reach
    FULL = "full"  # there is no room for another reader
    # A `reset` came, and the sample's endpoint cannot retract text that it has sent.
    RESET = "reset"
    FAILED = "failed"  # a programming error of ours
    CUT = "cut"  # none of these reasons


@dataclass(slots=True)
class Ending:
    """The reason why a reader's connection ended.

    `why` is NONE when the consumer of the frames stopped early. `behind` says whether, at the last chunk, the
    log was known to have more events.
    """

    why: Why = Why.NONE
    behind: bool = False


class Subscription:
    """One reader of a stream.

    `after` is the last event that the reader has. `bound` is the most bytes that may wait. `owner` is the
    owner whose place the reader takes among the readers of this process. An empty `owner` means that no
    owner's place is taken.
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
        self._last = str(after) if after else ""  # as text, to be compared with the ids of a block
        self._doubt = True  # the log must be read
        # The log has more events: the last piece was not the log's end, or blocks were dropped.
        self._more = False
        self._beat = False  # a heartbeat is due
        self._why = Why.NONE
        self._blocks: deque[Block] = deque()  # blocks that wait to be sent
        self._size = 0  # size of the waiting blocks in bytes
        # True once the reader was given a live block, or the block that ends our read of the log was
        # received. Before that, older blocks may still arrive and are skipped. After that, a block that does
        # not follow means a gap.
        self._joined = False
        # When something was last handed to the socket, by the event loop's clock.
        self._sent_at = now
        # The task that waits until the socket accepts a chunk.
        self._sender: asyncio.Task[object] | None = None
        # Both are set while the reader rests. `_write` is set only if a block can go to the socket at once.
        self._wake: Callable[[], None] | None = None
        self._write: Callable[[Block], bool] | None = None

    @property
    def last(self) -> Cursor | None:
        """The last event that the reader was given. None if it was given no event."""
        return Cursor(self._last) if self._last else None

    @property
    def head(self) -> str:
        """The id of the last event that was given to the reader or waits for it. Empty if there is none."""
        return self._blocks[-1].last if self._blocks else self._last

    @property
    def doubt(self) -> bool:
        """Whether the log must be read."""
        return self._doubt

    @property
    def behind(self) -> bool:
        """Whether the log is known to have more events than the reader was given."""
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
        """Whether the server of this reader has something to do."""
        return bool(self._blocks) or self._doubt or self._beat or self.ended

    # The hub calls these methods. They never wait.

    def offer(self, block: Block, now: float = 0.0) -> None:
        """Offer a published block. If more bytes wait than the bound allows, the reader must read the log."""
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
        """Drop the waiting blocks and read the log from the last event on: an event may have been missed."""
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
        """Ask for an orderly close of the connection. Only the first reason is kept."""
        if not self.ended:
            self._why = why
        self._call()

    @property
    def is_sending(self) -> bool:
        """Whether a chunk waits for the socket to accept it."""
        return self._sender is not None

    def silent_seconds(self, now: float) -> float:
        """Return how many seconds ago something was last handed to the socket.

        If a chunk waits for the socket, this is how long the chunk has been waiting.
        """
        return now - self._sent_at

    def cut(self) -> None:
        """Cancel the task that waits for the socket, with the message STALLED. The client can reconnect."""
        if self._sender is not None:
            self._sender.cancel(Why.STALLED)

    # The server of the reader calls these methods.

    def begin_read(self) -> Cursor | None:
        """Prepare a read of the log, and return the event after which to read.

        The waiting blocks are dropped, because the read returns them. A block that arrives from now on may
        also be in the read.
        """
        self._doubt = self._more = self._joined = False
        self._drop()
        return self.last

    def read_to(self, last: Cursor, *, more: bool) -> None:
        """Note that the reader was given all events up to `last` from the log.

        `more` says that the log did not end there.
        """
        self._last = str(last)
        self._more |= more

    def start_over(self) -> None:
        """Read the log from its beginning: the reader's last event is no longer in the log."""
        self._last = ""
        self._doubt = True

    def take(self) -> bytes:
        """Return the frames of waiting blocks that follow, about 64 KiB, or a due heartbeat, or nothing.

        With the last frame of the stream, the reader has ended.
        """
        frames = b"".join(self._following())
        beat, self._beat = self._beat, False
        return frames or (sse.HEARTBEAT if beat else b"")

    def sending(self, now: float, task: asyncio.Task[object] | None) -> None:
        """Note that this task hands a chunk to the socket and may have to wait."""
        self._sent_at, self._sender = now, task

    def sent(self) -> None:
        """Note that the socket has accepted the chunk."""
        self._sender = None

    def rest(self, wake: Callable[[], None], write: Callable[[Block], bool] | None = None) -> None:
        """Rest: call `wake` once, as soon as there is something to do.

        While the reader rests, each block that follows is passed to `write`, if `write` is given. `write`
        returns True when it has sent the block, and False when the socket accepts nothing now.
        """
        self._wake, self._write = wake, write
        if self.has_work:
            self._call()

    def rise(self) -> None:
        """Stop resting: neither `wake` nor `write` is called any more."""
        self._wake = self._write = None

    async def wait(self) -> None:
        """Wait until there is something to do."""
        if self.has_work:
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not woken.done():  # done already if the waiting task was just cancelled
                woken.set_result(None)

        self.rest(wake)
        try:
            await woken
        finally:
            self.rise()

    def _call(self) -> None:
        """Call `wake` if the reader rests. This is the only place that calls `wake`."""
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
                self._joined = True  # the read of the log has already returned this block
            elif self._joined or _offset(block.last) >= _offset(self._last):
                # A gap, a block that came twice, or a new text that replaces a lost end of the log.
                self.lose()
        return taken

    def _drop(self) -> None:
        self._blocks.clear()
        self._size = 0


def _offset(event_id: str) -> int:
    return Cursor.parse(event_id).offset
