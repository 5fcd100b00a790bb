"""Join, read, follow: one reader's bytes, exactly the log's, from its cursor to the terminal event.

The log decides; publish only wakes. After the subscription is acknowledged the log is read from the
cursor in pieces of bounded size, each of which proves that the reader's last event still stands; then
published blocks that fit are passed on as they are. Every chunk given here is whole frames, or a heartbeat.
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
from gateway.relay.reader import Ending, Subscription
from gateway.store.log import Log

RETRY_MS = (500, 2000)
BUSY_RETRY_MS = (5000, 15_000)
_YOUNGEST_SHARE = 0.75


class Relay:
    """Follows streams for the readers of this process."""

    def __init__(self, log: Log, hub: Hub, *, max_age: float) -> None:
        self._log = log
        self.hub = hub
        self._max_age = max_age

    async def follow(
        self, stream_id: str, after: Cursor | None, ending: Ending | None = None, owner: str = ""
    ) -> AsyncGenerator[bytes, None]:
        """Frames after the cursor, with heartbeats between them.

        Ends after the terminal event, at the connection's age, or where the stream is gone; `ending` is told
        which. Raises StoreUnavailable or TooManyReaders.
        """
        feed, reader = self.join(stream_id, after, owner)
        timer = self.end_of_life(reader)
        try:
            await self.hub.acknowledged(feed)
            while not reader.ended:
                async with aclosing(self.serve(stream_id, reader)) as chunks:
                    async for chunk in chunks:
                        reader.sent_at = asyncio.get_running_loop().time()
                        reader.busy = asyncio.current_task()
                        if ending is not None:
                            ending.behind = reader.behind
                        yield chunk
                        reader.busy = None
                await reader.wait()
        finally:
            self.leave(feed, reader)
            if ending is not None:
                ending.why = reader.why
            if timer is not None:
                timer.cancel()

    def join(self, stream_id: str, after: Cursor | None, owner: str = "") -> tuple[Feed, Subscription]:
        """A new reader, who has the events up to the cursor; `owner` is the stream's.

        Raises StoreUnavailable or TooManyReaders.
        """
        feed, reader = self.hub.join(stream_id, owner)
        reader.last = str(after) if after else ""
        telemetry.readers.add(1)
        return feed, reader

    def leave(self, feed: Feed, reader: Subscription) -> None:
        """The reader has ended."""
        telemetry.readers.add(-1)
        self.hub.leave(feed, reader)

    async def serve(self, stream_id: str, reader: Subscription) -> AsyncGenerator[bytes, None]:
        """What there is for this reader now, until it has nothing to do or has ended."""
        while reader.has_work and not reader.ended:
            if reader.doubt:
                async with aclosing(self._read(stream_id, reader)) as pieces:
                    async for frames in pieces:
                        yield frames
                continue
            frames, final = reader.take()
            if final:
                reader.end("terminal")
            if frames:
                yield frames
            if final:
                return
            if reader.beat:
                reader.beat = False
                if not frames:
                    yield sse.HEARTBEAT

    async def _read(self, stream_id: str, reader: Subscription) -> AsyncGenerator[bytes, None]:
        """From the reader's own position to the log's end."""
        while not reader.ended:
            reader.reading()
            after = Cursor.parse(reader.last) if reader.last else None
            try:
                piece = await self._log.read(stream_id, after)
            except CursorLost:
                reader.last = ""
                reader.doubt = True
                yield sse.LOG_LOST
                continue
            if piece.last is None:  # no log any more: the stream is past its retention, or was lost whole
                reader.end("expired")
                return
            reader.last = str(piece.last)
            reader.partial |= not (piece.at_end or piece.final)
            if piece.final:
                reader.end("terminal")
            if piece.frames:
                yield piece.frames
            if piece.at_end:
                return

    def end_of_life(self, reader: Subscription) -> asyncio.TimerHandle | None:
        """Close at a random age, before the platform does: a fleet's readers do not return at once."""
        if not self._max_age:
            return None
        age = self._max_age * random.uniform(_YOUNGEST_SHARE, 1.0)
        return asyncio.get_running_loop().call_later(age, reader.end, "age")


def retry_line(why: HoldfastError | None = None) -> bytes:
    """The `retry:` line of a connection, with jitter; later for who found no room."""
    busy = isinstance(why, TooManyReaders)
    return sse.retry(random.randint(*(BUSY_RETRY_MS if busy else RETRY_MS)))
