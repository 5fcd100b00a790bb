"""Send a stream's body to a socket that uvicorn has handed over. A resting reader has no task and no ASGI.

uvicorn has sent the head of the answer. While the reader rests, the hub writes each live block that follows
directly to the socket. A task does everything else, until the reader rests again: join the stream, read the
log, wait for a socket that accepts nothing now, end the body.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

from gateway.protocol import Cursor
from gateway.protocol.chunked import LAST_CHUNK, chunk_of
from gateway.protocol.errors import StoreUnavailable, TooManyReaders, stack_of
from gateway.relay.block import HEARTBEAT, Block
from gateway.relay.feed import Feed
from gateway.relay.follow import Relay
from gateway.relay.reader import Subscription, Why
from gateway.web.stream_body import StreamBody, why_cancelled

Take = Callable[[asyncio.Protocol], asyncio.Transport | None]
_log = logging.getLogger("holdfast.reader")


class DirectReader(asyncio.Protocol):
    """One connection.

    `on_end` is called once, with the reason of the end and the number of body bytes that were sent.
    """

    __slots__ = (
        "_after",
        "_body",
        "_drained",
        "_ended",
        "_feed",
        "_id",
        "_on_end",
        "_owner",
        "_paused",
        "_reader",
        "_relay",
        "_task",
        "_timer",
        "_transport",
    )

    def __init__(
        self,
        relay: Relay,
        stream_id: str,
        after: Cursor | None,
        on_end: Callable[[str, int], None],
        owner: str = "",
    ) -> None:
        self._relay = relay
        self._id = stream_id
        self._owner = owner
        self._after = after
        self._on_end = on_end
        self._body = StreamBody()
        self._transport: asyncio.Transport | None = None
        self._feed: Feed | None = None
        self._reader: Subscription | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None  # None while the reader rests, and after the end
        # the task waits for this until the socket accepts bytes
        self._drained: asyncio.Future[None] | None = None
        self._paused = False  # the socket accepts nothing now
        self._ended = False

    def begin(self, take: Take) -> None:
        """Take over the connection. `take` returns None if the client has already closed the connection."""
        self._transport = take(self)
        if self._transport is None:
            self._over(Why.GONE)
        else:
            self._wake()

    def pause_writing(self) -> None:
        """Note that the socket accepts nothing now."""
        self._paused = True

    def resume_writing(self) -> None:
        """Note that the socket accepts bytes again."""
        self._paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the reader: the client or this process has closed the connection."""
        self._over(Why.GONE)

    def _at_once(self, block: Block) -> bool:
        """Write a live block or a heartbeat for a resting reader. Return False if this is impossible now.

        The task writes the first frame, because the `retry:` line comes before it.
        """
        if self._paused or self._transport is None or not (self._body.started or block is HEARTBEAT):
            return False
        self._transport.write(block.chunk)
        self._body.sent += len(block.frames)
        return True

    def _wake(self) -> None:
        """End the body at once if the reader has ended. Otherwise start the task for the reader's work."""
        if self._reader is not None and self._reader.ended:
            self._close(self._reader.why)
        else:
            self._task = asyncio.create_task(self._work(), name="reader")

    async def _work(self) -> None:
        try:
            reader = self._reader or await self._join()
            while reader.has_work and not reader.ended:
                async with aclosing(self._relay.serve(self._id, reader)) as chunks:
                    async for chunk in chunks:
                        reader.sending(asyncio.get_running_loop().time(), self._task)
                        await self._write(chunk)
                        reader.sent()
        except (StoreUnavailable, TooManyReaders) as error:
            self._task = None
            line = self._body.refuse(error)
            if line and self._transport is not None:
                self._transport.write(chunk_of(line))
            self._close(self._body.why)
        except asyncio.CancelledError as error:
            self._task = None
            why = why_cancelled(error)
            self._cut(why or Why.CUT)
            if why is not Why.STALLED:
                raise
        except Exception as error:
            self._task = None
            _log.error("a reader failed:\n%s", stack_of(error))
            self._cut(Why.FAILED)
        else:
            self._task = None
            if reader.ended:
                self._close(reader.why)
            else:
                reader.rest(self._wake, self._at_once)

    async def _join(self) -> Subscription:
        self._feed, self._reader = self._relay.join(self._id, self._after, self._owner)
        self._timer = self._relay.end_of_life(self._reader)
        await self._relay.hub.acknowledged(self._feed)
        return self._reader

    async def _write(self, chunk: bytes) -> None:
        """Write a chunk from the relay, and wait until the socket accepts more."""
        assert self._transport is not None
        self._transport.write(chunk_of(self._body.add(chunk)))
        if self._paused:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained
            self._drained = None

    def _close(self, why: Why) -> None:
        """End the body in order."""
        if self._transport is not None and not self._ended:
            self._transport.write(LAST_CHUNK)
            self._transport.close()
        self._over(why)

    def _cut(self, why: Why) -> None:
        self._over(why)
        if self._transport is not None:
            self._transport.abort()

    def _over(self, why: Why) -> None:
        """End the reader, because the connection has ended or will end. Only the first call has an effect."""
        if self._ended:
            return
        self._ended = True
        self._body.end(why)
        if self._task is not None:
            self._task.cancel(Why.GONE)
        if self._timer is not None:
            self._timer.cancel()
        if self._feed is not None and self._reader is not None:
            self._reader.rise()
            self._relay.leave(self._feed, self._reader, told=why is Why.TERMINAL)
        self._on_end(self._body.why, self._body.sent)
