"""HTTP/1.1 as uvicorn takes it, within bounds of our own: it has none for what comes before a body.

A stranger's request line and headers, or the silence instead of them, may cost neither memory nor a place for
ever. Past the bound the answer is 431 (RFC 6585, 5), past the time the connection is closed.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.hub import STALLED_SECONDS
from gateway.response import TAKE

MOST_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 15.0
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Bounded(HttpToolsProtocol):
    """One connection."""

    _head_bytes = 0
    _in_head = _fresh = True
    _late: asyncio.TimerHandle | None = None
    _behind: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first request's head is due."""
        super().connection_made(transport)
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is due any more."""
        self._in_time()
        self._in_step()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        extensions: dict[str, Any] = {TAKE: self._give}
        self.scope["extensions"] = extensions
        self._begin()

    def on_headers_complete(self) -> None:
        """Its head is whole."""
        self._in_head = False
        self._in_time()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Take what has come, and no more of a head than its bound."""
        super().data_received(data)
        if self._in_head:
            # Where in these bytes a head has begun is not known; one read is bounded anyway.
            self._head_bytes += 0 if self._fresh else len(data)
            self._fresh = False
            if self._head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(_TOO_LARGE)
                self.transport.close()

    def pause_writing(self) -> None:
        """The socket is behind: what waits for it is let go when nobody takes any of it any more."""
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def _watch(self, waiting: int) -> None:
        self._behind = self.loop.call_later(STALLED_SECONDS, self._look, waiting)

    def _look(self, waited: int) -> None:
        waiting = self.transport.get_write_buffer_size()
        if waiting < waited:
            self._watch(waiting)
        else:
            self.transport.abort()

    def resume_writing(self) -> None:
        """It is not any more."""
        super().resume_writing()
        self._in_step()

    def _in_step(self) -> None:
        if self._behind is not None:
            self._behind.cancel()
            self._behind = None

    def _give(self, protocol: asyncio.Protocol) -> asyncio.Transport | None:
        """Let go of the connection: it is the protocol's from now on. None when it is closing."""
        transport = self.transport
        if transport.is_closing():
            return None
        self.flow.resume_reading()
        self._in_step()
        super().connection_lost(ConnectionResetError("given away"))
        transport.set_protocol(protocol)
        return transport

    def _begin(self) -> None:
        self._in_head, self._fresh, self._head_bytes = True, True, 0
        self._in_time()
        self._late = self.loop.call_later(HEAD_SECONDS, self._cut)

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _cut(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
