"""The feed of the caller's streams as the Python client follows it: one connection after another."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import httpx

from gateway.client.events import Event, Refused
from gateway.client.stream import AGAIN, LOST, Pause, read_json, refusal
from gateway.protocol.sse import HEARTBEAT, Decoder

_NOWHERE = ("", "0")  # ids of the frames of a beginning, but for its last


class OwnerFeed:
    """`position` is behind the last event that was handed out; empty: the feed begins."""

    def __init__(self, http: httpx.AsyncClient, patience: float, position: str) -> None:
        self._http = http
        self._pause = Pause(patience)
        self._retry_ms: int | None = None
        self.position = position

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        self._pause.reset()
        while True:
            error: Exception = ConnectionError("the connection was closed")
            after: float | None = None
            try:
                async with aclosing(self._connection()) as events:
                    async for event in events:
                        yield event
            except LOST as caught:
                error = caught
            except Refused as caught:
                if caught.status not in AGAIN:
                    raise
                error, after = caught, caught.retry_after
            least = None if self._retry_ms is None else self._retry_ms / 1000
            await self._pause.wait(error, least if after is None else after)

    async def _connection(self) -> AsyncGenerator[Event, None]:
        """What one connection carries. A beginning is handed out when all of it is here, as it may be cut."""
        headers = {"accept": "text/event-stream", "cache-control": "no-store"}
        if self.position:
            headers["last-event-id"] = self.position
        async with self._http.stream("GET", "/streams", headers=headers) as answer:
            if answer.status_code != 200:
                raise await refusal(answer)
            decoder, beginning = Decoder(), list[Event]()
            async for data in answer.aiter_bytes():
                messages = decoder.feed(data)
                self._retry_ms = decoder.retry_ms
                if messages or data.startswith(HEARTBEAT[:1]):
                    self._pause.reset()
                for message in messages:
                    event = Event(message.id, message.type, read_json(message.data))
                    if message.id in _NOWHERE and message.type != "reset":
                        beginning.append(event)
                        continue
                    self.position = message.id
                    for held in (*beginning, event):
                        yield held
                    beginning.clear()
