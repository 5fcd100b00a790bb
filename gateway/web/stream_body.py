"""The body of one answer that follows a stream, the same for every way to send it. No I/O.

`EventStream` sends the body by ASGI, and `DirectReader` writes it to the socket. This module decides what
both of them send: where the `retry:` line is, what a reader gets if the store is out of reach or there is no
room, and whether the body gets an orderly end. It also counts the bytes and stores the reason of the end.
"""

from __future__ import annotations

import asyncio

from gateway.protocol import sse
from gateway.protocol.errors import HoldfastError, StoreUnavailable
from gateway.relay.follow import retry_line
from gateway.relay.reader import Why


class StreamBody:
    """The body of one answer: it takes chunks and returns bytes.

    The `retry:` line comes directly before the first frame. `retry`: whether there is such a line; clients of
    other formats do not read it. `cut`: the clients treat an orderly end of the body as the end of the
    stream. Their body gets an orderly end only if the stream has ended.
    """

    __slots__ = ("_cut", "_retry", "sent", "started", "why")

    def __init__(self, *, retry: bool = True, cut: bool = False) -> None:
        self._retry = retry
        self._cut = cut
        self.started = False  # whether a frame was sent
        self.sent = 0  # number of body bytes that were sent
        self.why = Why.NONE  # why the body has ended

    def add(self, chunk: bytes) -> bytes:
        """Return the bytes to send for a chunk from the relay."""
        if not self.started and chunk != sse.HEARTBEAT:
            self.started = True
            if self._retry:
                chunk = retry_line() + chunk
        self.sent += len(chunk)
        return chunk

    def refuse(self, error: HoldfastError) -> bytes:
        """End the body, because there is no store (StoreUnavailable) or no room (TooManyReaders).

        Any status but 200 makes EventSource give up for good. So the `retry:` line says when the reader
        should connect again. Returns the bytes to send, which may be empty.
        """
        self.end(Why.STORE if isinstance(error, StoreUnavailable) else Why.FULL)
        line = b"" if self.started or not self._retry else retry_line(error)
        self.sent += len(line)
        return line

    def end(self, why: Why) -> None:
        """Note that the body has ended. Only the first reason is kept."""
        self.why = self.why or why

    @property
    def in_order(self) -> bool:
        """Whether the body gets an orderly end. If not, the connection is cut."""
        return not self._cut or self.why is Why.TERMINAL


def why_cancelled(error: asyncio.CancelledError) -> Why | None:
    """Return why the task of a reader was cancelled: GONE or STALLED. None: for another reason."""
    return next((why for why in (Why.GONE, Why.STALLED) if error.args and error.args[0] is why), None)
