"""The body of one answer that follows a stream, the same for every way to send it. No I/O.

`EventStream` sends the body by ASGI, and `DirectReader` writes it to the socket. This module decides what
both send: where the `retry:` line stands, what a reader gets that finds no store or no room, and whether the
body is ended in order. It also counts the bytes and keeps the reason of the end.
"""

from __future__ import annotations

import asyncio

from gateway.protocol import sse
from gateway.protocol.errors import HoldfastError, StoreUnavailable
from gateway.relay.follow import retry_line
from gateway.relay.reader import Why


class StreamBody:
    """Chunks in, bytes out. `retry:` stands directly before the first frame.

    `retry`: whether there is such a line. Clients of other formats do not read it. `cut`: for clients that
    take an orderly end for the end of the stream. Their body is ended in order only where the stream has
    ended.
    """

    __slots__ = ("_cut", "_retry", "sent", "started", "why")

    def __init__(self, *, retry: bool = True, cut: bool = False) -> None:
        self._retry = retry
        self._cut = cut
        self.started = False  # whether a frame was sent
        self.sent = 0  # bytes of the body
        self.why = Why.NONE  # why the body has ended

    def add(self, chunk: bytes) -> bytes:
        """The bytes to send for a chunk of the relay's."""
        if not self.started and chunk != sse.HEARTBEAT:
            self.started = True
            if self._retry:
                chunk = retry_line() + chunk
        self.sent += len(chunk)
        return chunk

    def refuse(self, error: HoldfastError) -> bytes:
        """End the body: there is no store (StoreUnavailable) or no room (TooManyReaders).

        Any status but 200 makes EventSource give up for good. So the reader is told by the `retry:` line when
        to come back. These are the bytes to send, which may be none.
        """
        self.end(Why.STORE if isinstance(error, StoreUnavailable) else Why.FULL)
        line = b"" if self.started or not self._retry else retry_line(error)
        self.sent += len(line)
        return line

    def end(self, why: Why) -> None:
        """The body has ended. The first reason counts."""
        self.why = self.why or why

    @property
    def in_order(self) -> bool:
        """Whether the body is to be ended in order: else the connection is cut."""
        return not self._cut or self.why is Why.TERMINAL


def why_cancelled(error: asyncio.CancelledError) -> Why | None:
    """Why the task of a reader was cancelled: GONE or STALLED. None: for another reason."""
    return next((why for why in (Why.GONE, Why.STALLED) if error.args and error.args[0] is why), None)
