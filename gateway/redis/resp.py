"""An open connection to Redis: bytes out, answers to a callback, without a coroutine for each answer.

Received bytes go straight from the event loop into hiredis's reader. Commands are written at once, or
together with the others of the same turn of the event loop, as the sender says. Commands that gather while
the socket takes nothing go in one write later.
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
    """One connection. `serve` says who gets its answers, and can be called again with other callbacks.

    `answered` is called with each answer in turn, also when the answer is an error. `lost` is called once,
    when no more answers can come. `read` is called after the answers that have come together. `refused` is
    called with each answer that is an error, before `answered`. When one of them raises, the connection is
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
        self._due = False  # a write is scheduled for this turn of the event loop
        self._full = False  # the socket takes nothing now
        self._transport: asyncio.Transport | None = None

    def serve(
        self,
        answered: Callable[[Answer], None],
        lost: Callable[[BaseException], None],
        read: Callable[[], None] = lambda: None,
        refused: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        """From now on answers go to these callbacks. Raises redis-py's ConnectionError where it has ended."""
        if self._lost is None:
            raise redis_errors.ConnectionError("the connection has ended")
        self._answered, self._lost, self._read, self._refused = answered, lost, read, refused

    def send(self, *packed: bytes, at_once: bool = False) -> None:
        """Write these bytes at once, or with all that is sent in this turn of the event loop."""
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

        An orderly close would wait without end for bytes that the other side does not take.
        """
        if self._transport is not None:
            self._transport.abort()
        self._outbox.clear()
        lost, self._lost = self._lost, None
        if lost is not None:
            lost(reason)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Hand on every answer that is whole."""
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not False and self._lost is not None:
                self._answered(answer)
            self._read()
        except Exception as error:
            if not isinstance(error, redis_errors.RedisError):  # a mistake of ours
                _log.error("the order of answers is lost:\n%s", stack_of(error))
            self.end(error)

    def pause_writing(self) -> None:
        """The socket takes nothing now."""
        self._full = True

    def resume_writing(self) -> None:
        """The socket takes bytes again."""
        self._full = False
        if self._outbox:
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self.end(exc or redis_errors.ConnectionError("Connection closed by server."))

    def _error_of(self, text: str) -> Exception:
        """The exception for an error answer. Its class is redis-py's."""
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
    """A command as Redis reads it (RESP arrays of bulk strings). Raises TypeError for other values."""
    whole: bytes = hiredis.pack_command(tuple(command))  # type: ignore[arg-type] # of any length
    return whole
