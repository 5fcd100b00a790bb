"""A connection that uvicorn has given away: it keeps its place at the door until it is closed."""

from __future__ import annotations

import asyncio

from gateway.hosts.door import Door

MOST_BYTES = 64 * 1024


class Given(asyncio.Protocol):
    """Hands the transport's calls on to the protocol that has the connection now; it may send only so much.

    What that protocol writes goes to the transport itself and does not pass here.
    """

    __slots__ = ("_door", "_received", "_to", "_transport", "inside")

    def __init__(self, to: asyncio.Protocol, transport: asyncio.Transport, door: Door) -> None:
        self._to = to
        self._transport = transport
        self._door = door
        self._received = 0
        self.inside = False

    def give_way(self) -> None:
        """It never owes a request, so it never gives way."""

    def data_received(self, data: bytes) -> None:
        """Nothing that comes is looked at: the connection is closed after the answer."""
        self._received += len(data)
        if self._received > MOST_BYTES:
            self._door.tally.count("a reader's connection was cut: it sent what nobody asked for")
            self._transport.abort()

    def pause_writing(self) -> None:
        """The socket is behind."""
        self._to.pause_writing()

    def resume_writing(self) -> None:
        """It is not any more."""
        self._to.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        self._door.leave(self)
        self._to.connection_lost(exc)
