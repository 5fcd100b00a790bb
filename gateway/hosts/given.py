"""Keep the place of a connection that uvicorn has given away, until the connection is closed."""

from __future__ import annotations

import asyncio

from gateway.hosts.door import Door

MOST_BYTES = 64 * 1024


class Given(asyncio.Protocol):
    """Passes the transport's calls to the protocol that owns the connection now. Received data is limited.

    The protocol writes directly to the transport, so its output does not pass through this object.
    """

    __slots__ = ("_door", "_received", "_to", "_transport", "inside")

    def __init__(self, to: asyncio.Protocol, transport: asyncio.Transport, door: Door) -> None:
        self._to = to
        self._transport = transport
        self._door = door
        self._received = 0
        self.inside = False

    def give_way(self) -> None:
        """Do nothing: the peer of this connection never owes a request, so the connection keeps its place."""

    def data_received(self, data: bytes) -> None:
        """Ignore the data, because the connection is closed after the answer.

        Cut the connection if there is too much.
        """
        self._received += len(data)
        if self._received > MOST_BYTES:
            self._door.tally.count("a reader's connection was cut: it sent what nobody asked for")
            self._transport.abort()

    def pause_writing(self) -> None:
        """Pause the protocol, because the peer reads too slowly."""
        self._to.pause_writing()

    def resume_writing(self) -> None:
        """Resume the protocol, because the peer has read enough."""
        self._to.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the place and tell the protocol that the connection is closed."""
        self._door.leave(self)
        self._to.connection_lost(exc)
