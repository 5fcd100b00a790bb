"""The feed of the caller's streams, as the Python client reads it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import httpx

from gateway.client.connections import Connections, Request
from gateway.client.events import Event
from gateway.client.stream import read_json

_NOWHERE = ("", "0")  # ids of the first frames of a feed's beginning; only its last frame has a real id


class OwnerFeed:
    """A reader of the feed.

    `position` is the id of the last yielded event; empty: start from the beginning.
    """

    def __init__(self, http: httpx.AsyncClient, patience: float, position: str) -> None:
        self._connections = Connections(http, patience)
        self.position = position

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        """Yield the events.

        The beginning is yielded only when all of it was received, because a connection may be lost.
        """
        beginning = list[Event]()
        async with aclosing(self._connections.messages(self._asks)) as messages:
            async for message in messages:
                if message is None:
                    beginning.clear()
                    continue
                beginning.append(Event(message.id, message.type, read_json(message.data)))
                if message.id in _NOWHERE and message.type != "reset":
                    continue
                self.position, events = message.id, tuple(beginning)
                beginning.clear()
                for event in events:
                    yield event

    def _asks(self) -> Request:
        return Request("GET", "/streams", self.position)
