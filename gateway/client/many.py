"""Several streams as the Python client follows them: one connection after another for all of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import httpx

from gateway.client.events import Event, Refused
from gateway.client.stream import AGAIN, LOST, Pause, read_json, refusal
from gateway.protocol.sse import HEARTBEAT, Decoder

Pair = tuple[str, Event]


class Many:
    """Streams that share a connection; `position` is behind the last event of each."""

    def __init__(self, http: httpx.AsyncClient, patience: float, stream_ids: Sequence[str]) -> None:
        self._http = http
        self._pause = Pause(patience)
        self._left = dict.fromkeys(stream_ids)
        self._retry_ms: int | None = None
        self.position = ""

    async def __aiter__(self) -> AsyncGenerator[Pair, None]:
        self._pause.reset()
        while self._left:
            error: Exception = ConnectionError("the connection was closed")
            after: float | None = None
            try:
                async with aclosing(self._connection()) as pairs:
                    async for pair in pairs:
                        yield pair
            except LOST as caught:
                error = caught
            except Refused as caught:
                if caught.status not in AGAIN:
                    raise
                error, after = caught, caught.retry_after
            if self._left:
                least = None if self._retry_ms is None else self._retry_ms / 1000
                await self._pause.wait(error, least if after is None else after)

    async def _connection(self) -> AsyncGenerator[Pair, None]:
        """What one connection carries. Raises Refused or httpx's TransportError."""
        headers = {"accept": "text/event-stream", "cache-control": "no-store"}
        if self.position:
            headers["last-event-id"] = self.position
        body = {"streams": [{"id": one} for one in self._left]}
        async with self._http.stream("POST", "/streams/events", headers=headers, json=body) as answer:
            if answer.status_code == 204:  # all have ended, and each last event is here
                self._left.clear()
                return
            if answer.status_code != 200:
                raise await refusal(answer)
            decoder = Decoder()
            async for data in answer.aiter_bytes():
                messages = decoder.feed(data)
                self._retry_ms = decoder.retry_ms
                if messages or data.startswith(HEARTBEAT[:1]):
                    self._pause.reset()
                for message in messages:
                    told = read_json(message.data)
                    event = Event(told["id"], message.type, told["data"])
                    self.position = message.id
                    if event.final:
                        self._left.pop(told["stream"], None)
                    yield told["stream"], event
