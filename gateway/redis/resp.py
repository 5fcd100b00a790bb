"""An open connection to Redis: it sends bytes and passes answers to a callback, with no coroutine per answer.

The event loop passes received bytes directly to hiredis's reader. The sender decides whether a command is
written at once, or together with the other commands of the same turn of the event loop. Commands that gather
while the socket accepts nothing are written together later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import cast

import hiredis
from redis import exceptions as redis_errors
from redis.asyncio.connection import DefaultParser

from gateway.protocol.errors import stack_of
from gateway.redis.replies import Answer

_log = logging.getLogger("holdfast.connection")


class Wire(asyncio.Protocol):
    """One connection. `serve` sets the callbacks for its answers, and can be called again.

    `answered` is called with each answer in turn, also when the answer is an error. `lost` is called once,
    when no more answers can come. `read` is called after the answers that have arrived together. `refused` is
    called with each answer that is an error, before `answered`. If one of them raises, the connection is
    ended, because the order of answers is lost.
    """

    def __init__(self, answered: Callable[[Answer], None], lost: Callable[[BaseException], None]) -> None:
        self._answered = answered
        self._lost: Callable[[BaseException], None] | None = lost  # None: the connection has ended
        self._read: Callable[[], None] = lambda: None
        self._refused: Callable[[Exception], None] = lambda _: None
        self._reader = hiredis.Reader(protocolError=redis_errors.InvalidResponse, replyError=self._error_of)
        self._loop = asyncio.get_running_loop()
        self._outbox: list[bytes] = []
        # A write is scheduled for this turn of the event loop.
        self._due = False
        self._full = False  # the socket accepts nothing now
        self._transport: asyncio.Transport | None = None

    def serve(
        self,
        answered: Callable[[Answer], None],
        lost: Callable[[BaseException], None],
        read: Callable[[], None] = lambda: None,
        refused: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        """Pass answers to these callbacks from now on.

        Raises redis-py's ConnectionError if the connection has ended.
        """
        if self._lost is None:
            raise redis_errors.ConnectionError("the connection has ended")
        self._answered, self._lost, self._read, self._refused = answered, lost, read, refused

    def send(self, *packed: bytes, at_once: bool = False) -> None:
        """Write these bytes at once, or with everything that is sent in this turn of the event loop."""
        self._outbox += packed
        if self._due or self._full:
            return
        if at_once:
            self._flush()
        else:
            self._due = True
            self._loop.call_soon(self._flush)

    def end(self, reason: BaseException) -> None:
        """End the connection at once. `lost` is called, unless it was called before.

        An orderly close could wait forever for bytes that the other side does not accept.
        """
        if self._transport is not None:
            self._transport.abort()
        self._outbox.clear()
        lost, self._lost = self._lost, None
        if lost is not None:
            lost(reason)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport of the connection, which is now open."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Pass on every complete answer."""
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not False and self._lost is not None:
                self._answered(answer)
            self._read()
        except Exception as error:
            if not isinstance(error, redis_errors.RedisError):  # a programming error of ours
                _log.error("the order of answers is lost:\n%s", stack_of(error))
            self.end(error)

    def pause_writing(self) -> None:
        """Note that the socket accepts nothing now."""
        self._full = True

    def resume_writing(self) -> None:
        """Note that the socket accepts bytes again, and write the waiting bytes."""
        self._full = False
        if self._outbox:
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection, because the socket was closed."""
        self.end(exc or redis_errors.ConnectionError("Connection closed by server."))

    def _error_of(self, text: str) -> Exception:
        """Return the exception for an error answer. Its class is one of redis-py's."""
        error: Exception = DefaultParser.parse_error(text)  # type: ignore[no-untyped-call]
        self._refused(error)
        return error

    def _flush(self) -> None:
        self._due = False
        if self._lost is None or self._full or self._transport is None:
            return
        outbox, self._outbox = self._outbox, []
        self._transport.write(b"".join(outbox))


def packed(command: Sequence[str | bytes | int | float]) -> bytes:
    """Return a command in Redis's format (RESP arrays of bulk strings). Raises TypeError for other values."""
    whole: bytes = hiredis.pack_command(tuple(command))  # type: ignore[arg-type] # of any length
    return whole
