"""A reader whose socket the relay writes itself: while it rests there is no task, no generator and no ASGI.

uvicorn has sent the head of its response and has given the connection away. A live block that fits goes
from the hub straight to the socket. For all else (to join, to read the log, a socket that is behind, the end)
a task works until the reader rests again; what it does is the relay's own `serve`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

from gateway.protocol import Cursor, sse
from gateway.protocol.errors import HoldfastError, StoreUnavailable, TooManyReaders, stack_of
from gateway.relay.block import HEARTBEAT, Block
from gateway.relay.feed import Feed
from gateway.relay.follow import Relay, retry_line
from gateway.relay.reader import STALLED, Subscription

GONE = "the reader has gone"
_LAST_CHUNK = b"0\r\n\r\n"  # RFC 9112, 7.1
Take = Callable[[asyncio.Protocol], asyncio.Transport | None]
_log = logging.getLogger("holdfast.reader")


class DirectReader(asyncio.Protocol):
    """One connection. `on_end` is told once why it has ended, and how many bytes of the body were sent."""

    __slots__ = (
        *(
            "_after",
            "_drained",
            "_ended",
            "_feed",
            "_id",
            "_on_end",
            "_owner",
            "_paused",
            "_reader",
            "_relay",
        ),
        *("_sent", "_started", "_task", "_timer", "_transport"),
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
        self._transport: asyncio.Transport | None = None
        self._feed: Feed | None = None
        self._reader: Subscription | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._paused = self._started = self._ended = False
        self._sent = 0

    def begin(self, take: Take) -> None:
        """Take the connection over."""
        self._transport = take(self)
        if self._transport is None:
            self._over("gone")
        else:
            self._wake()

    def pause_writing(self) -> None:
        """The socket is behind."""
        self._paused = True

    def resume_writing(self) -> None:
        """It is not any more."""
        self._paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The reader has gone, or we have closed."""
        self._over("gone")

    def _at_once(self, block: Block) -> bool:
        """Write a live block, or a heartbeat, of a reader that rests."""
        if self._paused or self._transport is None or not (self._started or block is HEARTBEAT):
            return False
        self._transport.write(block.chunk)
        self._sent += len(block.frames)
        return True

    def _wake(self) -> None:
        if self._reader is not None and self._reader.ended:
            self._close(self._reader.why)
            return
        self._task = asyncio.create_task(self._work(), name="reader")

    async def _work(self) -> None:
        try:
            reader = self._reader or await self._join()
            while reader.has_work and not reader.ended:
                async with aclosing(self._relay.serve(self._id, reader)) as chunks:
                    async for chunk in chunks:
                        reader.sending(_now(), self._task)
                        await self._write(chunk)
                        reader.sent()
        except (StoreUnavailable, TooManyReaders) as error:
            self._task = None
            self._away(error)
        except asyncio.CancelledError as error:
            self._task = None
            if error.args != (STALLED,):
                self._cut("cut")
                raise
            self._cut("stalled")
        except Exception as error:
            self._task = None
            _log.error("a reader failed:\n%s", stack_of(error))
            self._cut("failed")
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
        """A chunk of the body, when the socket takes it; `retry:` stands directly before the first frame."""
        if not self._started and chunk != sse.HEARTBEAT:
            self._started = True
            chunk = retry_line() + chunk
        assert self._transport is not None
        self._transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        self._sent += len(chunk)
        if self._paused:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained
            self._drained = None

    def _away(self, error: HoldfastError) -> None:
        """Who finds no store, or no room, is told when to come back."""
        if not self._started and self._transport is not None:
            line = retry_line(error)
            self._transport.write(b"%x\r\n%b\r\n" % (len(line), line))
            self._sent += len(line)
        self._close("store" if isinstance(error, StoreUnavailable) else "full")

    def _close(self, why: str) -> None:
        if self._transport is not None and not self._ended:
            self._transport.write(_LAST_CHUNK)
            self._transport.close()
        self._over(why)

    def _cut(self, why: str) -> None:
        self._over(why)
        if self._transport is not None:
            self._transport.abort()

    def _over(self, why: str) -> None:
        if self._ended:
            return
        self._ended = True
        if self._task is not None:
            self._task.cancel(GONE)
        if self._timer is not None:
            self._timer.cancel()
        if self._feed is not None and self._reader is not None:
            self._reader.rise()
            self._relay.leave(self._feed, self._reader)
        self._on_end(why or "cut", self._sent)


def _now() -> float:
    return asyncio.get_running_loop().time()
