"""Streams from Python, without HTTP, for example for a timer, a function of a queue or another service.

    async with Streams.from_env() as streams:
        stream_id = await streams.start(user="Three days in Rome", chain="trip", owner="key:alice")
        async for event in streams.follow(stream_id, owner="key:alice"):
            print(event.text, end="")

A worker runs the job, as after `POST /stream`. All rules of that request apply. A broken rule raises
`Refused`, with the problem document of the HTTP answer. `Unreachable` means that the store or the queue
cannot be reached.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from gateway.protocol import ANONYMOUS, Cursor, sse
from gateway.protocol.errors import (
    HoldfastError,
    Invalid,
    Malformed,
    QueueUnavailable,
    StoreUnavailable,
    TooLarge,
)
from gateway.relay.follow import Relay
from gateway.relay.reader import Ending, Why
from gateway.settings import Settings
from gateway.streams.service import Gateway
from gateway.streams.start import parse_json, parse_start
from workers.chains.registry import Registry

if TYPE_CHECKING:
    from gateway.client.events import Event, Refused

# Modules that are shared with the HTTP clients are imported in the functions that use them. Their package
# imports httpx, which a Functions app that only registers the gateway does not need before its first request.
FOLLOW_PATIENCE_SECONDS = 120.0  # how long `follow` retries while the store cannot be reached
MOST_KEY_CHARACTERS = 255
_NOT_GIVEN: Any = object()  # marks an argument that was not given: `input` may be None


class Streams:
    """The streams of one gateway, for one event loop."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    @classmethod
    def from_env(cls) -> Self:
        """Make it from the settings in the environment, the same as for a `holdfast web` process.

        Raises ValueError for a wrong setting, and if REDIS_URL is not set.
        """
        settings = Settings.from_env()
        if not settings.redis_url:
            raise ValueError("REDIS_URL must be set: streams are where the workers find them")
        registry = Registry(settings)
        chains = registry.catalogue()
        return cls(Gateway(settings, chains, schemas=registry.schemas(), params=registry.params()))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. The streams continue.

        Do not call it on `create_app(…).streams`: its host closes the gateway.
        """
        await self._gateway.close()

    async def start(
        self,
        *,
        user: str | None = None,
        messages: Sequence[Mapping[str, Any]] | None = None,
        input: Any = _NOT_GIVEN,
        chain: str | None = None,
        params: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        webhook: Mapping[str, Any] | None = None,
        owner: str = "",
        key: str = "",
    ) -> str:
        """Start a stream, and return its id. Its job is then in the queue.

        Give exactly one of `user`, `messages` and `input`. `chain`: None means GATEWAY_DEFAULT_CHAIN.
        `owner`: the name of the caller, as the gateway's authentication gives it. `key`: an Idempotency-Key
        of this owner. `webhook`: the field `webhook` of `POST /stream`, which says where to report the end.

        Raises Refused or Unreachable. After Unreachable, call it again with the same key: that never makes
        two jobs.
        """
        given = {"user": user, "messages": messages, "chain": chain, "params": params, "metadata": metadata}
        given |= {"webhook": webhook}
        body = {name: value for name, value in given.items() if value is not None}
        if input is not _NOT_GIVEN:
            body["input"] = input
        with _told():
            gateway = self._gateway
            start = parse_start(
                parse_json(self._written(body), gateway.bounds),
                gateway.chains,
                gateway.bounds,
                gateway.settings.default_chain,
            )
            if len(key) > MOST_KEY_CHARACTERS or not (key.isascii() and key.isprintable()):
                raise Invalid("key", f"must be up to {MOST_KEY_CHARACTERS} printable ASCII characters")
            return (await gateway.create(start, owner=owner or ANONYMOUS, key=key)).id

    async def follow(
        self, stream_id: str, *, after: str = "", owner: str = ""
    ) -> AsyncGenerator[Event, None]:
        """Yield the events after the event `after`, or from the beginning, up to the terminal event.

        It continues by itself if the store cannot be reached for less than two minutes. Raises Refused or
        Unreachable.
        """
        from gateway.client.events import Unreachable
        from gateway.client.stream import Pause

        pause = Pause(FOLLOW_PATIENCE_SECONDS)
        pause.reset()
        while True:
            ending = Ending()
            try:
                async with aclosing(self._events(stream_id, after, owner, ending)) as events:
                    async for event in events:
                        pause.reset()
                        after = event.id
                        yield event
                        if event.final:
                            return
            except StoreUnavailable as error:
                await pause.wait(error)
                continue
            except HoldfastError as error:
                raise _refused(error) from error
            if ending.why in (Why.NONE, Why.TERMINAL):
                return  # there are no events after the event `after`
            if ending.why is Why.STOPPING:
                raise Unreachable(ConnectionError("this gateway is being closed"))
            await pause.wait(ConnectionError(ending.why))

    async def status(self, stream_id: str, *, owner: str = "") -> dict[str, Any]:
        """Return the status document. Raises Refused or Unreachable."""
        with _told():
            return dict(await self._gateway.status(stream_id, owner or ANONYMOUS))

    async def cancel(self, stream_id: str, *, owner: str = "") -> dict[str, Any]:
        """Cancel the stream now, and return its status document. Raises Refused or Unreachable."""
        with _told():
            return dict(await self._gateway.cancel(stream_id, owner or ANONYMOUS))

    async def _events(
        self, stream_id: str, after: str, owner: str, ending: Ending
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of one reader, until the end, or until the relay ends the connection."""
        from gateway.client.events import Event

        try:
            cursor = Cursor.parse(after) if after not in ("", "0") else None
        except ValueError:
            raise Malformed("`after` is not an event id of this gateway") from None
        gateway = self._gateway
        record = await gateway.find(stream_id, owner or ANONYMOUS)
        if record.ended and after == record.last_id:
            ending.why = Why.TERMINAL
            return
        gateway.parts.hub.check_room(record.id, record.owner)
        decoder = sse.Decoder()
        # there is no connection whose age must be limited
        relay = Relay(gateway.parts.log, gateway.parts.hub, max_age=0.0)
        async with aclosing(relay.follow(record.id, cursor, ending, record.owner)) as chunks:
            async for chunk in chunks:
                for message in decoder.feed(chunk):
                    yield Event(message.id, message.type, json.loads(message.data))

    def _written(self, body: Mapping[str, Any]) -> bytes:
        """Return the body of the request as JSON, within the limit for requests."""
        try:
            text = sse.dumps(body)
        except (TypeError, ValueError) as error:
            raise Invalid("body", f"must be JSON ({type(error).__name__})") from None
        if len(text) > self._gateway.bounds.bytes:
            raise TooLarge(f"the bound is {self._gateway.bounds.bytes} bytes")
        return text


@contextmanager
def _told() -> Iterator[None]:
    """Convert errors to those of the clients."""
    try:
        yield
    except (StoreUnavailable, QueueUnavailable) as error:
        from gateway.client.events import Unreachable

        raise Unreachable(error) from error
    except HoldfastError as error:
        raise _refused(error) from error


def _refused(error: HoldfastError) -> Refused:
    from gateway.client.events import Refused

    after = error.retry_after_seconds
    return Refused(error.status, error.problem(), None if after is None else float(after))
