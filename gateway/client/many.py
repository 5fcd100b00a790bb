"""Several streams, as the Python client reads them: one connection at a time for all of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import httpx

from gateway.client.connections import Connections, Request
from gateway.client.events import Event
from gateway.client.stream import read_json

Pair = tuple[str, Event]


class Many:
    """Streams that share a connection. `position` is the place after the last event of each stream."""

    def __init__(self, http: httpx.AsyncClient, patience: float, stream_ids: Sequence[str]) -> None:
        self._connections = Connections(http, patience)
        self._left = dict.fromkeys(stream_ids)
        self.position = ""

    async def __aiter__(self) -> AsyncGenerator[Pair, None]:
        async with aclosing(self._connections.messages(self._asks)) as messages:
            async for message in messages:
                if message is None:
                    continue
                told = read_json(message.data)
                event = Event(told["id"], message.type, told["data"])
                self.position = message.id
                if event.final:
                    self._left.pop(told["stream"], None)
                yield told["stream"], event

    def _asks(self) -> Request | None:
        """Return the request for the streams that have not ended; None if all have ended."""
        body = {"streams": [{"id": one} for one in self._left]}
        return Request("POST", "/streams/events", self.position, body) if self._left else None
