"""The status document is of one moment, whatever happens to the stream while it is put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from gateway import protocol
from gateway.protocol import ANONYMOUS, ENDED, Event
from gateway.protocol.fold import Fold
from gateway.redis.connection import Connection
from gateway.store.log import PIECE_BYTES, Log
from gateway.streams import service as under_test
from gateway.streams.service import FOLDS_AT_ONCE
from gateway.streams.status import fold_of
from tests.support.following import DONE, Stream, text
from tests.support.jobs import Jobs

FAILED = protocol.failed("model_error", "The model's server failed.", retryable=True)
CANCELLED = Event(protocol.EventType.CANCELLED, {})
LONG = "x" * PIECE_BYTES  # so that the log is read in several pieces
Happening = Callable[[], Awaitable[object]]


class Interrupted(Connection):
    """Something happens directly before one of the calls, which is counted down to."""

    happening: Happening
    left = -1

    async def call(self, *command: str | bytes | int | float) -> Any:
        await self._count()
        return await super().call(*command)

    async def call_all(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        await self._count()
        return await super().call_all(commands)

    async def _count(self) -> None:
        self.left -= 1
        if self.left == -1:
            await self.happening()


@asynccontextmanager
async def interrupted(jobs: Jobs, redis_url: str) -> AsyncIterator[Interrupted]:
    """The gateway's connection from now on."""
    connection = Interrupted(redis_url, name="interrupted")
    jobs.gateway._parts = replace(jobs.gateway.parts, log=Log(connection))
    try:
        yield connection
    finally:
        await connection.close()


async def asked(jobs: Jobs, connection: Interrupted, stream: Stream, at: int, end: Event) -> dict[str, Any]:
    """The status document of a stream that ends before the store's call of this number."""

    async def ends() -> None:
        await stream.write(text("last words"), end)

    connection.left, connection.happening = at, ends
    return await jobs.gateway.status(stream.id, ANONYMOUS)


@pytest.mark.parametrize("end", [DONE, FAILED, CANCELLED], ids=lambda end: end.type.value)
async def test_whenever_it_is_asked_it_has_an_end_if_and_only_if_it_says_ended(
    redis_url: str, end: Event
) -> None:
    async with Jobs(redis_url) as jobs, interrupted(jobs, redis_url) as connection:
        at, seen = 0, []
        while connection.left < 0:  # until it no longer happens within
            stream = await Stream.create(jobs.log)
            await stream.texts(LONG, LONG, "before ")
            document = await asked(jobs, connection, stream, at, end)
            ended = document["status"] in ENDED
            assert (document["ended_at"] is not None) == ended, at
            assert document["text"].endswith("last words" if ended else "before "), at
            assert (document["error"] is not None) == (ended and end is FAILED), at
            seen.append(ended)
            at += 1
    assert True in seen
    assert seen[-2:] == [False, False]  # once between the log and the record, once not at all


async def test_few_logs_are_held_at_once_however_many_ask(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now: list[str] = []
    most = 0

    async def counted(log: Log, stream_id: str) -> Fold:
        nonlocal most
        now.append(stream_id)
        most = max(most, len(now))
        fold = await fold_of(log, stream_id)
        now.remove(stream_id)
        return fold

    monkeypatch.setattr(under_test, "fold_of", counted)
    async with Jobs(redis_url) as jobs:
        stream = await Stream.create(jobs.log)
        asking = [jobs.gateway.status(stream.id, ANONYMOUS) for _ in range(5 * FOLDS_AT_ONCE)]
        assert len(await asyncio.gather(*asking)) == 5 * FOLDS_AT_ONCE
    assert most == FOLDS_AT_ONCE
