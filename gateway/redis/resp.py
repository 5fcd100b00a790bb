"""An open connection to Redis, taken over from redis-py: answers to a callback, without a coroutine for each.

redis-py has connected it, with TLS, credentials and handshake; from then on bytes go straight from the event
loop into hiredis's reader. What is sent goes out at once, or with what else is sent within one turn of the
event loop, as the sender says; what gathers while the socket is full goes in one write.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import hiredis
from redis import exceptions as redis_errors
from redis.asyncio.connection import AbstractConnection

from gateway.protocol.errors import stack_of
from gateway.redis.replies import Answer

_log = logging.getLogger("holdfast.connection")


class Wire(asyncio.Protocol):
    """`answered` is called with each answer in turn, an error's too, and `lost` once, when no more can come.

    `read` is called after the answers that have come together, `refused` with each answer that is an error,
    before `answered`; answers that are none cost nothing for it. What these raise ends the connection: the
    order of answers is lost with it.
    """

    def __init__(
        self,
        link: AbstractConnection,
        answered: Callable[[Answer], None],
        lost: Callable[[BaseException], None],
        read: Callable[[], None] = lambda: None,
        refused: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        assert link._writer is not None
        self._answered = answered
        self._read = read
        self._lost: Callable[[BaseException], None] | None = lost
        parse_error: Callable[[str], Exception] = link._parser.parse_error

        def error_of(text: str) -> Exception:
            error = parse_error(text)
            refused(error)
            return error

        self._reader = hiredis.Reader(protocolError=redis_errors.InvalidResponse, replyError=error_of)
        self._loop = asyncio.get_running_loop()
        self._outbox: list[bytes] = []
        self._due = self._full = False
        self._transport = link._writer.transport
        self._transport.set_protocol(self)

    def send(self, *packed: bytes, at_once: bool = False) -> None:
        """Write these bytes with what else is sent in this turn of the event loop, or at once."""
        self._outbox += packed
        if self._due or self._full:
            return
        if at_once:
            self._flush()
        else:
            self._due = True
            self._loop.call_soon(self._flush)

    def end(self, reason: BaseException) -> None:
        """End the connection at once. `lost` is called if it has not been."""
        self._transport.abort()
        self._outbox.clear()
        lost, self._lost = self._lost, None
        if lost is not None:
            lost(reason)

    def data_received(self, data: bytes) -> None:
        """Hand on every answer that is whole."""
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not False and self._lost is not None:
                self._answered(answer)
            self._read()
        except Exception as error:
            if not isinstance(error, redis_errors.RedisError):  # nothing that a server has said
                _log.error("the order of answers is lost:\n%s", stack_of(error))
            self.end(error)

    def pause_writing(self) -> None:
        """The socket takes nothing more for now."""
        self._full = True

    def resume_writing(self) -> None:
        """It does again."""
        self._full = False
        if self._outbox:
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing comes any more."""
        self.end(exc or redis_errors.ConnectionError("Connection closed by server."))

    def _flush(self) -> None:
        self._due = False
        if self._lost is None or self._full:
            return
        outbox, self._outbox = self._outbox, []
        self._transport.write(b"".join(outbox))


def packed(command: Sequence[str | bytes | int | float]) -> bytes:
    """A command as Redis reads it (RESP arrays of bulk strings)."""
    whole: bytes = hiredis.pack_command(tuple(command))  # type: ignore[arg-type] # of any length
    return whole
