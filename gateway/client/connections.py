"""Read the messages of one address over a sequence of connections.

Each connection continues after the last event.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx

from gateway.client.events import Refused
from gateway.client.stream import AGAIN, LOST, Pause, refusal
from gateway.protocol.sse import HEARTBEAT, Decoder, Message


@dataclass(frozen=True, slots=True)
class Request:
    """The request of one connection. `position` is the id of the last received event, or empty."""

    method: str
    path: str
    position: str
    body: Mapping[str, Any] | None = None


class Connections:
    """The connections over which messages are received.

    `patience`: for how many seconds connections are retried while nothing is received from the gateway.
    """

    def __init__(self, http: httpx.AsyncClient, patience: float) -> None:
        self._http = http
        self._pause = Pause(patience)
        self._retry_ms: int | None = None
        self._is_over = False  # True after an answer with the status 204

    async def messages(self, asks: Callable[[], Request | None]) -> AsyncGenerator[Message | None, None]:
        """Yield each message once, and None when a new connection begins.

        `asks` returns the request of the next connection. The messages end if it returns None, or after an
        answer with the status 204. Raises Refused or Unreachable.
        """
        self._pause.reset()
        while not self._is_over and (request := asks()):
            error: Exception = ConnectionError("the connection was closed")
            after: float | None = None
            try:
                async with aclosing(self._connection(request)) as messages:
                    async for message in messages:
                        yield message
            except LOST as caught:
                error = caught
            except Refused as caught:
                if caught.status not in AGAIN:
                    raise
                error, after = caught, caught.retry_after
            if not self._is_over and asks():
                least = None if self._retry_ms is None else self._retry_ms / 1000
                await self._pause.wait(error, least if after is None else after)

    async def _connection(self, request: Request) -> AsyncGenerator[Message | None, None]:
        headers = {"accept": "text/event-stream", "cache-control": "no-store"}
        if request.position:
            headers["last-event-id"] = request.position
        asked = self._http.stream(request.method, request.path, headers=headers, json=request.body)
        async with asked as answer:
            if answer.status_code == 204:
                self._is_over = True
                return
            if answer.status_code != 200:
                raise await refusal(answer)
            yield None
            decoder = Decoder()
            async for data in answer.aiter_bytes():
                messages = decoder.feed(data)
                self._retry_ms = decoder.retry_ms
                if messages or data.startswith(HEARTBEAT[:1]):
                    self._pause.reset()
                for message in messages:
                    yield message
