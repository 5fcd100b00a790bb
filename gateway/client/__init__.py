"""The Python client: a stream is followed to its end through any cut, and no event comes twice.

    async with Gateway("http://127.0.0.1:7071") as gateway:
        async for event in gateway.stream(user="Who are you?"):
            print(event.text, end="", flush=True)

A POST carries an Idempotency-Key and is repeated until it is answered; from then on each connection goes on
behind the last event. `SyncGateway` is the same for code without an event loop.
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
SILENCE_SECONDS = 45.0  # three heartbeats missed: the connection is dead
PATIENCE_SECONDS = 120.0
T = TypeVar("T")
Responses = Mapping[str, Any] | Sequence[Mapping[str, Any]]
_NOT_GIVEN: Any = object()  # `input` may be null


class Gateway:
    """A gateway at a URL. `key` is an API key or a JWT; `patience` in seconds without a sign of it.

    Raises ValueError for what is no URL of HTTP.
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
        """Close the connections; streams go on at the gateway."""
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
        """A new stream, started when it is iterated or awaited; exactly one of `user`, `messages`, `input`.

        `thread` is the conversation that it goes on with. Where another stream of that one runs,
        `multitask_strategy` says what happens: `reject` (Refused, by default), `enqueue`, `interrupt` or
        `rollback`.
        `webhook` is whom to tell of its end: `{"url", "events"?, "when"?, "within_seconds"?}`.
        `key` is its Idempotency-Key (a random one by default): the same key is the same stream.
        """
        given = {"user": user, "messages": messages, "chain": chain, "params": params, "metadata": metadata}
        given |= {"thread": thread, "multitask_strategy": multitask_strategy, "webhook": webhook}
        body = {name: value for name, value in given.items() if value is not None}
        if input is not _NOT_GIVEN:
            body["input"] = input
        return Stream(self._http, self.patience, body=body, key=key or secrets.token_urlsafe(16))

    def follow(self, stream_id: str, after: str = "") -> Stream:
        """A stream that exists, from behind the event `after`, or from its beginning."""
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
        """Another try of a stream that has failed, started when it is iterated or awaited.

        It goes on where that one has failed, or from `start`: a stage, or the id of the event with which one
        began. `params` are set anew, and the input by the merge patch `input_patch` (RFC 7396). `webhook` is
        instead of the failed stream's; None: none. `key` is its Idempotency-Key (a random one by default).
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
        """Answer what a stream has asked: the stream that goes on, started when it is iterated or awaited.

        `responses`: each answer by its question's id, or a list as `POST /stream/{id}/resume` takes it. The
        same answers are the same stream. `webhook` is instead of that of the stream that asks; None: none.
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
        """The events of several streams as they come, each with its stream's id, until all have ended.

        They share one connection; each event comes once, through cuts. Raises Refused or Unreachable.
        """
        async with aclosing(aiter(Many(self._http, self.patience, list(stream_ids)))) as pairs:
            async for pair in pairs:
                yield pair

    async def feed(self, after: str = "") -> AsyncGenerator[Event, None]:
        """What becomes of the caller's streams, without end: `started`, `stage`, `waiting`, `ended`.

        An event's data is the stream's row, as the list tells it; in `stage` it has `stage` too. First comes
        what ended in the last minute, and what runs; or, behind the event `after`, what came since. Each
        event comes once, through cuts; after a `reset` the feed begins anew. Raises Refused or Unreachable.
        """
        async with aclosing(aiter(OwnerFeed(self._http, self.patience, after))) as events:
            async for event in events:
                yield event

    async def status(self, stream_id: str) -> dict[str, Any]:
        """The status document. Raises Refused or Unreachable."""
        return await document(self._http, Pause(self.patience), "GET", f"/stream/{stream_id}")

    async def chains(self) -> dict[str, Any]:
        """The chains of this gateway: names, stages, and schemas. Raises Refused or Unreachable."""
        return await document(self._http, Pause(self.patience), "GET", "/chains")

    async def cancel(self, stream_id: str) -> dict[str, Any]:
        """End it now; answers the status document. Raises Refused or Unreachable."""
        return await document(self._http, Pause(self.patience), "DELETE", f"/stream/{stream_id}")


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

    def retry(self, stream_id: str, start: str = "", **given: Any) -> SyncStream:
        """As Gateway.retry."""
        return SyncStream(self._gateway.retry(stream_id, start, **given), self._runner)

    def resume(self, stream_id: str, responses: Responses, **given: Any) -> SyncStream:
        """As Gateway.resume."""
        return SyncStream(self._gateway.resume(stream_id, responses, **given), self._runner)

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

    @property
    def stages(self) -> list[Stage]:
        """As Stream.stages."""
        return self._stream.stages

    @property
    def interrupted(self) -> bool:
        """As Stream.interrupted."""
        return self._stream.interrupted

    @property
    def interrupts(self) -> Sequence[Mapping[str, Any]]:
        """As Stream.interrupts."""
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
        """As Stream.result."""
        return self._runner.run(self._stream.result())

    def cancel(self) -> dict[str, Any]:
        """As Stream.cancel."""
        return self._runner.run(self._stream.cancel())
