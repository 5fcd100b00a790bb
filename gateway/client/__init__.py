"""The Python client. It reads a stream to its end even if connections are lost, and yields no event twice.

    async with Gateway("http://127.0.0.1:7071") as gateway:
        async for event in gateway.stream(user="Who are you?"):
            print(event.text, end="", flush=True)

A POST has an Idempotency-Key and is repeated until it is answered. After that, each new connection continues
after the last event. `SyncGateway` does the same for code without an event loop.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from gateway.client.events import (
    Event,
    GatewayError,
    Refused,
    Result,
    Stage,
    StreamCancelled,
    StreamFailed,
    Unreachable,
)
from gateway.client.feed import OwnerFeed
from gateway.client.many import Many
from gateway.client.stream import Pause, Stream, document

__all__ = [
    "Event",
    "Gateway",
    "GatewayError",
    "Refused",
    "Result",
    "Stage",
    "Stream",
    "StreamCancelled",
    "StreamFailed",
    "SyncGateway",
    "SyncStream",
    "Unreachable",
]
SILENCE_SECONDS = 45.0  # three missed heartbeats mean that the connection is lost
PATIENCE_SECONDS = 120.0
T = TypeVar("T")
Responses = Mapping[str, Any] | Sequence[Mapping[str, Any]]
_NOT_GIVEN: Any = object()  # marks an argument that was not given, because `input` may be null


class Gateway:
    """A client of the gateway at a URL.

    `key` is an API key or a JWT. `patience`: for how many seconds the client retries while it receives
    nothing from the gateway. Raises ValueError if the URL is not an HTTP URL.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str = "",
        patience: float = PATIENCE_SECONDS,
        silence: float = SILENCE_SECONDS,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        if http is None and not url.startswith(("http://", "https://")):
            raise ValueError(f"a gateway's URL begins with http:// or https://, and {url!r} does not")
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
        """Close the connections. The streams continue at the gateway."""
        await self._http.aclose()

    def stream(
        self,
        *,
        user: str | None = None,
        messages: list[dict[str, Any]] | None = None,
        input: Any = _NOT_GIVEN,
        chain: str | None = None,
        params: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        thread: str | None = None,
        multitask_strategy: str | None = None,
        webhook: Mapping[str, Any] | None = None,
        key: str = "",
    ) -> Stream:
        """Return a new stream, which starts when it is iterated or awaited.

        Give exactly one of `user`, `messages` and `input`.

        `thread` is the conversation that the stream continues. If another stream of this thread runs,
        `multitask_strategy` decides what happens: `reject` (raises Refused; this is the default), `enqueue`,
        `interrupt` or `rollback`.

        `webhook` is where to report the end of the stream: `{"url", "events"?, "when"?, "within_seconds"?}`.
        `key` is the Idempotency-Key (by default a random one). The same key gives the same stream.
        """
        given = {"user": user, "messages": messages, "chain": chain, "params": params, "metadata": metadata}
        given |= {"thread": thread, "multitask_strategy": multitask_strategy, "webhook": webhook}
        body = {name: value for name, value in given.items() if value is not None}
        if input is not _NOT_GIVEN:
            body["input"] = input
        return Stream(self._http, self.patience, body=body, key=key or secrets.token_urlsafe(16))

    def follow(self, stream_id: str, after: str = "") -> Stream:
        """Return a stream that exists. It is read from after the event `after`, or from its beginning."""
        return Stream(self._http, self.patience, stream_id=stream_id, after=after)

    def retry(
        self,
        stream_id: str,
        start: str = "",
        *,
        params: Mapping[str, Any] | None = None,
        input_patch: Any = None,
        webhook: Mapping[str, Any] | None = _NOT_GIVEN,
        key: str = "",
    ) -> Stream:
        """Return a retry of a stream that has failed. It starts when it is iterated or awaited.

        It continues at the stage that failed, or from `start`: the name of a stage, or the id of the event
        with which a stage began. Each of `params` replaces the param of the same name. The merge patch
        `input_patch` (RFC 7396) changes the input. `webhook` replaces the webhook of the failed stream; None
        means no webhook. `key` is the Idempotency-Key (by default a random one).
        """
        given = {"from": start or None, "params": params, "input_patch": input_patch}
        body = {name: value for name, value in given.items() if value is not None}
        body |= {} if webhook is _NOT_GIVEN else {"webhook": webhook}
        path = f"/stream/{stream_id}/retry"
        return Stream(self._http, self.patience, body=body, path=path, key=key or secrets.token_urlsafe(16))

    def resume(
        self,
        stream_id: str,
        responses: Responses,
        *,
        update: Mapping[str, Any] | None = None,
        goto: Any = None,
        webhook: Mapping[str, Any] | None = _NOT_GIVEN,
    ) -> Stream:
        """Answer the questions of a stream. Return the stream that continues.

        It starts when it is iterated or awaited. `responses` maps the id of each question to its answer, or
        is a list in the format of `POST /stream/{id}/resume`. The same answers give the same stream.
        `webhook` replaces the webhook of the stream that asked; None means no webhook.
        """
        told = responses
        if isinstance(told, Mapping):
            told = [{"interrupt_id": name, "response": value} for name, value in told.items()]
        body: dict[str, Any] = {"responses": list(told)}
        body |= {} if update is None else {"update": update}
        body |= {} if goto is None else {"goto": goto}
        body |= {} if webhook is _NOT_GIVEN else {"webhook": webhook}
        return Stream(self._http, self.patience, body=body, path=f"/stream/{stream_id}/resume")

    async def follow_many(self, stream_ids: Iterable[str]) -> AsyncGenerator[tuple[str, Event], None]:
        """Yield the events of several streams until all have ended, each with its stream's id.

        The events come as they are written. The streams share one connection. Each event comes once, even if
        connections are lost. Raises Refused or Unreachable.
        """
        async with aclosing(aiter(Many(self._http, self.patience, list(stream_ids)))) as pairs:
            async for pair in pairs:
                yield pair

    async def feed(self, after: str = "") -> AsyncGenerator[Event, None]:
        """Yield the events of the caller's own feed, without end: `started`, `stage`, `waiting`, `ended`.

        The data of an event is the row of the stream, as in the list of streams. For `stage` it also has the
        field `stage`. Without `after` the first rows are the streams that ended in the last minute, and the
        streams that run. With `after` the events after that event come. Each event comes once, even if
        connections are lost. After a `reset` the feed starts again from its beginning. Raises Refused or
        Unreachable.
        """
        async with aclosing(aiter(OwnerFeed(self._http, self.patience, after))) as events:
            async for event in events:
                yield event

    async def status(self, stream_id: str) -> dict[str, Any]:
        """Return the status document. Raises Refused or Unreachable."""
        return await document(self._http, Pause(self.patience), "GET", f"/stream/{stream_id}")

    async def chains(self) -> dict[str, Any]:
        """Return the chains of this gateway: names, stages and schemas. Raises Refused or Unreachable."""
        return await document(self._http, Pause(self.patience), "GET", "/chains")

    async def cancel(self, stream_id: str) -> dict[str, Any]:
        """Cancel the stream now, and return its status document. Raises Refused or Unreachable."""
        return await document(self._http, Pause(self.patience), "DELETE", f"/stream/{stream_id}")


class SyncGateway:
    """The same as Gateway, for code without an event loop. Make only one call at a time."""

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
        """Does the same as Gateway.stream."""
        return SyncStream(self._gateway.stream(**given), self._runner)

    def follow(self, stream_id: str, after: str = "") -> SyncStream:
        """Does the same as Gateway.follow."""
        return SyncStream(self._gateway.follow(stream_id, after), self._runner)

    def retry(self, stream_id: str, start: str = "", **given: Any) -> SyncStream:
        """Does the same as Gateway.retry."""
        return SyncStream(self._gateway.retry(stream_id, start, **given), self._runner)

    def resume(self, stream_id: str, responses: Responses, **given: Any) -> SyncStream:
        """Does the same as Gateway.resume."""
        return SyncStream(self._gateway.resume(stream_id, responses, **given), self._runner)

    def status(self, stream_id: str) -> dict[str, Any]:
        """Does the same as Gateway.status."""
        return self._run(self._gateway.status(stream_id))

    def cancel(self, stream_id: str) -> dict[str, Any]:
        """Does the same as Gateway.cancel."""
        return self._run(self._gateway.cancel(stream_id))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)


class SyncStream:
    """A stream for code without an event loop: `for event in stream`, or `stream.result()`."""

    def __init__(self, stream: Stream, runner: asyncio.Runner) -> None:
        self._stream = stream
        self._runner = runner

    @property
    def id(self) -> str:
        """The id of the stream; empty until it is known."""
        return self._stream.id

    @property
    def text(self) -> str:
        """The text of the last stage that was received so far."""
        return self._stream.text

    @property
    def stages(self) -> list[Stage]:
        """The same as Stream.stages."""
        return self._stream.stages

    @property
    def interrupted(self) -> bool:
        """The same as Stream.interrupted."""
        return self._stream.interrupted

    @property
    def interrupts(self) -> Sequence[Mapping[str, Any]]:
        """The same as Stream.interrupts."""
        return self._stream.interrupts

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
        """Does the same as Stream.result."""
        return self._runner.run(self._stream.result())

    def cancel(self) -> dict[str, Any]:
        """Does the same as Stream.cancel."""
        return self._runner.run(self._stream.cancel())
