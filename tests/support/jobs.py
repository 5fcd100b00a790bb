"""The worker side in this process, with a real store and queue. The chains are plain async functions."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, Self

from langchain_core.runnables import RunnableGenerator

from gateway.protocol import TERMINAL_EVENTS, new_token, sse
from gateway.protocol.fold import Fold
from gateway.queue.job_queue import Delivery, Message
from gateway.settings import Settings
from gateway.store.record import Claim, Record
from gateway.streams.service import Gateway
from gateway.streams.start import Start
from workers.chains.registry import Registry, chain
from workers.delivery.runner import Runner

Answering = Callable[[Any], AsyncIterator[Any]]
BOUND_SECONDS = 30


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = BOUND_SECONDS) -> None:
    """Wait until the condition holds. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - only asking can tell
            await asyncio.sleep(0.01)


def make_chain(name: str, answering: Answering) -> None:
    """Register a chain. `answering` is called with the input and returns an async iterator of chunks."""

    async def transform(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for given in inputs:
            async for chunk in answering(given):
                yield chunk

    chain(name)(lambda _: RunnableGenerator(transform))


class Jobs:
    """`async with Jobs(redis_url, answering) as jobs`; `await jobs.stream("…")`, then `jobs.run(id)`."""

    def __init__(self, redis_url: str, answering: Answering | None = None, **settings: Any) -> None:
        if answering is not None:
            make_chain("under-test", answering)
        self.settings = replace(Settings(redis_url=redis_url, lease=2.0), **settings)
        self.registry = Registry(self.settings)
        chains = {**self.registry.catalogue(), "forgotten": ("forgotten",)}
        self.gateway = Gateway(self.settings, chains, schemas=self.registry.schemas())

    async def __aenter__(self) -> Self:
        parts = self.gateway.parts
        self.log, self.queue, self.connection = parts.log, parts.queue, parts.redis
        self.runner = Runner(self.settings, self.log, self.registry, self.queue)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.gateway.close()

    async def stream(self, given: Any = "q", *, chain: str = "under-test") -> str:
        """Create a stream whose job is in the queue. A list is a conversation; any other value is a chain's
        own input."""
        start = Start(chain, {"messages" if isinstance(given, list) else "input": given}, {})
        return (await self.gateway.create(start, owner="anonymous")).id

    async def claim(self, stream_id: str) -> Claim:
        answer = await self.log.claim(stream_id, new_token(), round(self.settings.lease * 1000))
        assert answer.claim is not None, answer
        return answer.claim

    async def delivery(self) -> Delivery:
        """Return the next delivery of the queue."""
        async with asyncio.timeout(BOUND_SECONDS):
            while not (found := await self.queue.receive(1)):
                pass
        return found[0]

    async def record(self, stream_id: str) -> Record:
        record, _ = await self.log.record(stream_id)
        assert record is not None
        return record

    async def messages(self, stream_id: str) -> list[sse.Message]:
        """Return the whole log, decoded."""
        raw = await self.connection.call("GETRANGE", self.log.keys(stream_id)[1], 0, -1)
        return sse.Decoder().feed(raw)

    async def kinds(self, stream_id: str) -> list[str]:
        return [message.type for message in await self.messages(stream_id)]

    async def fold(self, stream_id: str) -> Fold:
        """Return the state that a reader of the whole log has. Checks that only the last event is
        terminal."""
        fold = Fold()
        for message in await self.messages(stream_id):
            assert fold.ended is None, "an event after the end"
            fold.feed(message.id, message.event())
        return fold

    async def shows(self, stream_id: str, text: str) -> None:
        """Wait until the stream's text begins with this text."""

        async def condition() -> bool:
            return (await self.fold(stream_id)).text.startswith(text)

        await eventually(condition)

    async def ended(self, stream_id: str) -> Fold:
        """Wait for the terminal event."""

        async def condition() -> bool:
            return bool(set(await self.kinds(stream_id)) & set(TERMINAL_EVENTS))

        await eventually(condition)
        return await self.fold(stream_id)


def body(stream_id: str) -> bytes:
    """Return the body of the queue message for a stream."""
    return Message(stream_id).encode()


async def _dies(given: Any) -> AsyncIterator[str]:
    yield "last words"
    os.abort()


make_chain("dies", _dies)
