"""The feed of the caller's streams as the Python client follows it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import httpx

from gateway.client.connections import Connections, Request
from gateway.client.events import Event
from gateway.client.stream import read_json

_NOWHERE = ("", "0")  # ids of the frames of a beginning, but for its last


class OwnerFeed:
    """`position` is behind the last event that was handed out; empty: the feed begins."""

    def __init__(self, http: httpx.AsyncClient, patience: float, position: str) -> None:
        self._connections = Connections(http, patience)
        self.position = position

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        """A beginning is handed out when all of it is here, as it may be cut."""
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
