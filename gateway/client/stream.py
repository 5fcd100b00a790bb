"""One stream, as the Python client reads it. Each new connection continues after the last event."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import httpx

from gateway.client.events import (
    WAITING,
    Event,
    GatewayError,
    Refused,
    Result,
    Stage,
    StreamCancelled,
    StreamFailed,
    Unreachable,
)
from gateway.protocol import Event as ProtocolEvent
from gateway.protocol import EventType, Status
from gateway.protocol.fold import Fold
from gateway.protocol.sse import HEARTBEAT, Decoder, Message

BACKOFF_SECONDS = (0.25, 10.0)
AGAIN = frozenset({408, 429, 500, 502, 503, 504})
# errors after which a new connection may work
LOST = (httpx.TransportError, httpx.DecodingError)
_KNOWN = frozenset(kind.value for kind in EventType if kind.value)


class Stream:
    """One stream: `async for event in stream`, or `await stream.result()`.

    `text` is the text that was received so far.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        patience: float,
        *,
        body: Mapping[str, Any] | None = None,
        path: str = "/stream",
        key: str = "",
        stream_id: str = "",
        after: str = "",
    ) -> None:
        self._http = http
        self._pause = Pause(patience)
        self._body = body
        self._path = path  # path of the POST that starts the stream
        self._key = key
        self.id = stream_id
        self._fold = Fold(last_id=after)
        self._end: Mapping[str, Any] = {}  # the data of the terminal event
        self._ended = False
        self._retry_ms: int | None = None

    @property
    def text(self) -> str:
        """The text of the last stage that was received so far."""
        return self._fold.text

    @property
    def stages(self) -> list[Stage]:
        """The runs of its stages, in order, as received so far."""
        return [Stage(stage.name, stage.run, stage.state, stage.text) for stage in self._fold.stages]

    @property
    def last_event_id(self) -> str:
        """The id of the last event. A new connection continues after it."""
        return self._fold.last_id

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        self._pause.reset()
        while not self._ended:
            try:
                async with aclosing(self._connection()) as events:
                    async for event in events:
                        yield event
                error: Exception = ConnectionError("the connection was closed")
            except LOST as caught:
                error = caught
            except Refused as caught:
                if not self._again(caught):
                    raise
                error = caught
            if not self._ended:
                await self._pause.wait(error, self._wait_seconds(error))

    async def result(self) -> Result:
        """Read the stream to its end. Raises StreamFailed, StreamCancelled, Refused or Unreachable."""
        async for _ in self:
            pass
        if self._fold.ended is None:
            return await self._ended_before()
        if self._fold.error is not None:
            raise StreamFailed(self._fold.error, self.text)
        if self._fold.ended is Status.CANCELLED:
            raise StreamCancelled
        reason, interrupts = self._end.get("finish_reason", ""), self._end.get("interrupts", ())
        return Result(self.text, self.stages, self._fold.usage or {}, reason, interrupts)

    async def _ended_before(self) -> Result:
        """Return the result from the status document, for a stream that ended before it was read here."""
        told = await document(self._http, self._pause, "GET", f"/stream/{self.id}")
        if told["error"] is not None:
            raise StreamFailed(told["error"], told["text"])
        if told["status"] == Status.CANCELLED:
            raise StreamCancelled
        stages = [Stage(one["name"], one["run"], one["state"], one["text"]) for one in told["stages"]]
        reason = "interrupted" if told["status"] == WAITING else ""
        return Result(told["text"], stages, told["usage"] or {}, reason, told.get("interrupts", ()))

    @property
    def interrupted(self) -> bool:
        """Return whether the stream ended with an open question.

        This is known only after its end was read.
        """
        return bool(self._end.get("finish_reason") == "interrupted")

    @property
    def interrupts(self) -> Sequence[Mapping[str, Any]]:
        """The questions of a graph. They have the same form as `Result.interrupts`."""
        asked: Sequence[Mapping[str, Any]] = self._end.get("interrupts", ())
        return asked

    async def cancel(self) -> dict[str, Any]:
        """Cancel the stream at the gateway. Return its status document. Raises Refused or Unreachable.

        The id is unknown if the answer to the POST was lost. Then the POST is repeated with the same key to
        find the stream.
        """
        if not self.id:
            made = await document(self._http, self._pause, "POST", self._path, self._named(), self._body)
            self.id = made["id"]
        return await document(self._http, self._pause, "DELETE", f"/stream/{self.id}")

    def _named(self) -> dict[str, str]:
        """Return the header that makes a repeated start give the same stream.

        A resume needs no such header, because the same answers give the same stream.
        """
        return {"idempotency-key": self._key} if self._key else {}

    async def _connection(self) -> AsyncGenerator[Event, None]:
        """Yield the events of one connection. Raises Refused or httpx's TransportError."""
        headers = {"accept": "text/event-stream", "cache-control": "no-store"}
        if self._fold.last_id:
            headers["last-event-id"] = self._fold.last_id
        if self.id:
            asked = self._http.stream("GET", f"/stream/{self.id}", headers=headers)
        else:
            headers |= self._named()
            asked = self._http.stream("POST", self._path, headers=headers, json=self._body)
        async with asked as answer:
            if answer.status_code == 204:
                self._ended = True
                return
            if answer.status_code != 200:
                raise await refusal(answer)
            self.id = self.id or answer.headers.get("x-stream-id", "")
            if not self.id:
                raise GatewayError("what answers there is no gateway: it names no stream")
            decoder = Decoder()
            async for data in answer.aiter_bytes():
                messages = decoder.feed(data)
                self._retry_ms = decoder.retry_ms
                # more than the `retry:` line and the last comment
                if messages or data.startswith(HEARTBEAT[:1]):
                    self._pause.reset()
                for message in messages:
                    yield self._take(message)
                if self._ended:
                    return

    def _take(self, message: Message) -> Event:
        event = Event(message.id, message.type, read_json(message.data))
        if event.type in _KNOWN or event.type == "message":
            kind = EventType.MESSAGE if event.type == "message" else EventType(event.type)
            self._fold.feed(event.id, ProtocolEvent(kind, event.data))
        else:
            self._fold.last_id = event.id
        if event.final:
            self._ended = True
            self._end = event.data
        return event

    def _again(self, refused: Refused) -> bool:
        """Return whether to try again.

        A caller that is over its quota at the start gets the error instead.
        """
        return refused.status in AGAIN and (bool(self.id) or refused.status != 429)

    def _wait_seconds(self, error: Exception) -> float | None:
        if isinstance(error, Refused):
            return error.retry_after
        return None if self._retry_ms is None else self._retry_ms / 1000


class Pause:
    """The waits between two tries.

    A wait is at least as long as the gateway asks for. It becomes longer with each try, has jitter, and is
    limited.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._tries, self._since = 0, 0.0

    def reset(self) -> None:
        """Something was received, so the patience and the waits start again."""
        self._tries = 0
        self._since = asyncio.get_running_loop().time()

    async def wait(self, error: Exception, least: float | None = None) -> None:
        """Wait before the next try. Raises Unreachable when the patience is over."""
        first, longest = BACKOFF_SECONDS
        seconds = min(first * 2**self._tries, longest) * random.uniform(0.5, 1.0)
        seconds = max(seconds, least or 0.0) if self._tries else least or seconds
        self._tries += 1
        if asyncio.get_running_loop().time() + seconds > self._since + self._patience:
            raise Unreachable(error) from error
        await asyncio.sleep(seconds)


async def document(
    http: httpx.AsyncClient,
    pause: Pause,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Request a JSON document until the gateway answers. Raises Refused or Unreachable."""
    pause.reset()
    while True:
        try:
            answer = await http.request(
                method, path, headers={"accept": "application/json", **(headers or {})}, json=body
            )
        except LOST as error:
            await pause.wait(error)
            continue
        if answer.is_success:
            told: dict[str, Any] = read_json(answer.content)
            return told
        refused = await refusal(answer)
        if answer.status_code not in AGAIN:
            raise refused
        await pause.wait(refused, refused.retry_after)


def read_json(text: str | bytes) -> Any:
    """Parse JSON that a gateway has sent. Raises GatewayError."""
    try:
        return json.loads(text)
    except ValueError:
        raise GatewayError("what answers there is no gateway: that is not JSON") from None


async def refusal(answer: httpx.Response) -> Refused:
    """Convert an answer with an error status to Refused."""
    try:
        problem = json.loads(await answer.aread())
    except ValueError:
        problem = {}
    given = answer.headers.get("retry-after", "")
    retry_after = float(given) if given.isascii() and given.isdigit() else None
    return Refused(answer.status_code, problem if isinstance(problem, dict) else {}, retry_after)
