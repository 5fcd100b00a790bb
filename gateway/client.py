"""The Python client: a stream is followed to its end through any cut, and no event comes twice.

    async with Gateway("http://127.0.0.1:7071") as gateway:
        async for event in gateway.stream(user="Who are you?"):
            print(event.data.get("delta_content", ""), end="", flush=True)

A POST carries an Idempotency-Key and is repeated until it is answered; from then on each connection goes on
behind the last event. `SyncGateway` is the same for code without an event loop.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from gateway.client_events import (
    Event,
    GatewayError,
    Refused,
    Result,
    StreamCancelled,
    StreamFailed,
    Unreachable,
)
from gateway.client_stream import AGAIN, Pause, Stream, refusal

__all__ = [
    "Event",
    "Gateway",
    "GatewayError",
    "Refused",
    "Result",
    "Stream",
    "StreamCancelled",
    "StreamFailed",
    "SyncGateway",
    "SyncStream",
    "Unreachable",
]
SILENCE_SECONDS = 45.0  # three heartbeats missed: the connection is dead
PATIENCE_SECONDS = 120.0
T = TypeVar("T")


class Gateway:
    """A gateway at a URL. `key` is an API key or a JWT; `patience` in seconds without a sign of it."""

    def __init__(
        self,
        url: str,
        *,
        key: str = "",
        patience: float = PATIENCE_SECONDS,
        silence: float = SILENCE_SECONDS,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(silence, connect=10.0)
        self._http = http or httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout)
        self.patience = patience

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; streams go on at the gateway."""
        await self._http.aclose()

    def stream(
        self,
        *,
        user: str | None = None,
        messages: list[dict[str, Any]] | None = None,
        input: Any = None,
        chain: str | None = None,
        params: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        key: str = "",
    ) -> Stream:
        """A new stream, started when it is iterated or awaited; exactly one of `user`, `messages`, `input`.

        `key` is its Idempotency-Key (a random one by default): the same key is the same stream.
        """
        given = {"user": user, "messages": messages, "input": input, "chain": chain}
        given |= {"params": params, "metadata": metadata}
        body = {name: value for name, value in given.items() if value is not None}
        return Stream(self._http, self.patience, body=body, key=key or secrets.token_urlsafe(16))

    def follow(self, stream_id: str, after: str = "") -> Stream:
        """A stream that exists, from behind the event `after`, or from its beginning."""
        return Stream(self._http, self.patience, stream_id=stream_id, after=after)

    async def status(self, stream_id: str) -> dict[str, Any]:
        """The status document. Raises Refused or Unreachable."""
        return await self._json("GET", f"/stream/{stream_id}")

    async def cancel(self, stream_id: str) -> dict[str, Any]:
        """End it now; answers the status document. Raises Refused or Unreachable."""
        return await self._json("DELETE", f"/stream/{stream_id}")

    async def _json(self, method: str, path: str) -> dict[str, Any]:
        pause = Pause(self.patience)
        pause.reset()
        while True:
            try:
                answer = await self._http.request(method, path, headers={"accept": "application/json"})
            except httpx.TransportError as error:
                await pause.wait(error)
                continue
            if answer.is_success:
                document: dict[str, Any] = answer.json()
                return document
            refused = await refusal(answer)
            if answer.status_code not in AGAIN:
                raise refused
            await pause.wait(refused, refused.retry_after)


class SyncGateway:
    """The same for code without an event loop; one call at a time."""

    def __init__(self, url: str, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._gateway = Gateway(url, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._gateway.close())
        self._runner.close()

    def stream(self, **given: Any) -> SyncStream:
        """As Gateway.stream."""
        return SyncStream(self._gateway.stream(**given), self._runner)

    def follow(self, stream_id: str, after: str = "") -> SyncStream:
        """As Gateway.follow."""
        return SyncStream(self._gateway.follow(stream_id, after), self._runner)

    def status(self, stream_id: str) -> dict[str, Any]:
        """As Gateway.status."""
        return self._run(self._gateway.status(stream_id))

    def cancel(self, stream_id: str) -> dict[str, Any]:
        """As Gateway.cancel."""
        return self._run(self._gateway.cancel(stream_id))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)


class SyncStream:
    """`for event in stream`, or `stream.result()`."""

    def __init__(self, stream: Stream, runner: asyncio.Runner) -> None:
        self._stream = stream
        self._runner = runner

    @property
    def id(self) -> str:
        """The stream's id, once it is known."""
        return self._stream.id

    @property
    def text(self) -> str:
        """The last stage's text, as far as it has come."""
        return self._stream.text

    def __iter__(self) -> Iterator[Event]:
        events = aiter(self._stream)

        async def following() -> Event | None:
            return await anext(events, None)

        try:
            while (event := self._runner.run(following())) is not None:
                yield event
        finally:
            self._runner.run(events.aclose())

    def result(self) -> Result:
        """As Stream.result."""
        return self._runner.run(self._stream.result())
