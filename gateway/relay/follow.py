"""Follow a stream for one reader: send the log's bytes, from the reader's cursor to the terminal event.

The log is the only truth; a publish only wakes a reader. First the server must acknowledge the subscription.
Then the log is read from the cursor on, in pieces of bounded size. Each read also proves that the reader's
last event is still in the log. After that, each published block that follows the last event is passed on
unchanged. Each chunk is whole frames, or a heartbeat.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing

from gateway.observe import telemetry
from gateway.protocol import Cursor, sse
from gateway.protocol.errors import CursorLost, HoldfastError, TooManyReaders
from gateway.relay.feed import Feed
from gateway.relay.hub import Hub
from gateway.relay.reader import Ending, Subscription, Why
from gateway.relay.seen import Seen
from gateway.relay.sources import Source

RETRY_MS = (500, 2000)
BUSY_RETRY_MS = (5000, 15_000)
_YOUNGEST_SHARE = 0.75


class Relay:
    """Follows streams for the readers of this process."""

    def __init__(self, source: Source, hub: Hub, *, max_age: float, seen: Seen | None = None) -> None:
        self._source = source
        self.hub = hub
        self._seen = seen
        self._max_age = max_age

    def watch(self, stream_id: str) -> None:
        """Watch a stream, to store later that a reader has had its terminal event.

        The stream has a webhook that is sent only if no reader has had the terminal event.
        """
        if self._seen is not None:
            self._seen.watch(stream_id)

    async def follow(
        self, stream_id: str, after: Cursor | None, ending: Ending | None = None, owner: str = ""
    ) -> AsyncGenerator[bytes, None]:
        """Yield the frames after the cursor, with heartbeats between them.

        Ends after the terminal event, when the connection has reached its maximum age, or when the stream's
        log is gone. `ending` then says which of these it was. Raises StoreUnavailable or TooManyReaders.
        """
        feed, reader = self.join(stream_id, after, owner)
        timer = self.end_of_life(reader)
        told = False
        try:
            await self.hub.acknowledged(feed)
            while not reader.ended:
                async with aclosing(self.serve(stream_id, reader)) as chunks:
                    async for chunk in chunks:
                        reader.sending(asyncio.get_running_loop().time(), asyncio.current_task())
                        if ending is not None:
                            ending.behind = reader.behind
                        yield chunk
                        reader.sent()
                await reader.wait()
            told = reader.why is Why.TERMINAL
        finally:
            self.leave(feed, reader, told=told)
            if ending is not None:
                ending.why = reader.why
            if timer is not None:
                timer.cancel()

    def join(self, stream_id: str, after: Cursor | None, owner: str = "") -> tuple[Feed, Subscription]:
        """Add a reader that has the events up to the cursor. `owner` is the stream's owner.

        Raises StoreUnavailable or TooManyReaders.
        """
        feed, reader = self.hub.join(stream_id, owner, after)
        telemetry.readers.add(1)
        return feed, reader

    def leave(self, feed: Feed, reader: Subscription, *, told: bool = False) -> None:
        """Remove a reader. `told` says whether the terminal event was sent to this reader."""
        telemetry.readers.add(-1)
        if told and self._seen is not None:
            self._seen.had(feed.id)
        self.hub.leave(feed, reader)

    async def serve(self, stream_id: str, reader: Subscription) -> AsyncGenerator[bytes, None]:
        """Yield the chunks that are ready for this reader, until the reader has no work or has ended."""
        while reader.has_work and not reader.ended:
            if reader.doubt:
                async with aclosing(self._read(stream_id, reader)) as pieces:
                    async for frames in pieces:
                        yield frames
            elif chunk := reader.take():
                yield chunk

    async def _read(self, stream_id: str, reader: Subscription) -> AsyncGenerator[bytes, None]:
        """Yield the log's frames from the reader's last event to the log's end."""
        while not reader.ended:
            try:
                piece = await self._source.read(stream_id, reader.begin_read())
            except CursorLost:
                reader.start_over()
                yield sse.LOG_LOST
                continue
            # There is no log: its retention is over, or the store has lost the log.
            if piece.last is None:
                reader.end(Why.EXPIRED)
                return
            reader.read_to(piece.last, more=not (piece.at_end or piece.final))
            if piece.final:
                reader.end(Why.TERMINAL)
            if piece.frames:
                yield piece.frames
            if piece.at_end:
                return

    def end_of_life(self, reader: Subscription) -> asyncio.TimerHandle | None:
        """Set a timer that closes the connection before the platform does.

        The age is random, so that not all readers reconnect at once. Returns None where there is no maximum
        age.
        """
        if not self._max_age:
            return None
        age = self._max_age * random.uniform(_YOUNGEST_SHARE, 1.0)
        return asyncio.get_running_loop().call_later(age, reader.end, Why.AGE)


def retry_line(why: HoldfastError | None = None) -> bytes:
    """Return the `retry:` line of a connection, with jitter.

    A reader that was refused for lack of room is asked to wait longer.
    """
    busy = isinstance(why, TooManyReaders)
    return sse.retry(random.randint(*(BUSY_RETRY_MS if busy else RETRY_MS)))
