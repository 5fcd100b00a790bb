"""The writer of a claim on a real store. Its appends are counted and their answers can be lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from gateway import protocol
from gateway.protocol import Event
from gateway.protocol.errors import StoreUnavailable
from gateway.redis.commands import Commands
from gateway.redis.connection import Connection
from gateway.store.appender import BatchSource, ClaimAppends
from gateway.store.log import Log
from gateway.store.record import Answer, Batch, Claim
from gateway.writing.writer import Writer
from tests.support.jobs import Jobs, eventually


def text(delta: str) -> Event:
    return protocol.text(delta, deployment="d", stage="s")


class WatchedLog(Log):
    """A log that records each append that was tried, and each append that failed.

    `posted` counts the appends that the appender has accepted; `asked` counts those that the writer's task
    has made.
    """

    def __init__(self, redis: Commands) -> None:
        super().__init__(redis)
        self.tried: list[bytes] = []
        self.posted = self.asked = 0
        self.failed = 0

    def appends(self, claim: Claim, lease_ms: int, source: BatchSource) -> ClaimAppends:
        return super().appends(claim, lease_ms, _Watched(self, source))

    async def append(
        self,
        claim: Claim,
        position: int,
        frames: bytes,
        last_id: str,
        lease_ms: int,
        *,
        status: str = "",
        fields: Mapping[str, Any] | None = None,
    ) -> Answer:
        self.tried.append(frames)
        self.asked += 1
        try:
            return await super().append(
                claim, position, frames, last_id, lease_ms, status=status, fields=fields
            )
        except StoreUnavailable:
            self.failed += 1
            raise


class _Watched:
    """A writer whose batches are recorded by the log."""

    def __init__(self, log: WatchedLog, source: BatchSource) -> None:
        self._log = log
        self._source = source
        self.batch_sent = source.batch_sent

    def next_batch(self) -> Batch | None:
        batch = self._source.next_batch()
        if batch is not None:
            self._log.posted += 1
            self._log.tried.append(batch.frames)
        return batch


class Deaf(Connection):
    """A connection that loses answers: the server has executed the command, but the client gets no answer."""

    lose = 0

    async def call(self, *command: str | bytes | int | float) -> Any:
        answer = await super().call(*command)
        if self.lose and command[0] == "EVALSHA":
            self.lose -= 1
            raise StoreUnavailable
        return answer

    def post(self, key: str, command: tuple[Any, ...], answered: Callable[[Any], None]) -> bool:
        def deaf(answer: Any) -> None:
            if self.lose:
                self.lose -= 1
                answer = ConnectionError("its answer was lost")
            answered(answer)

        return super().post(key, command, deaf)


class Pen:
    """A claimed stream, its writer, and the writer's task."""

    def __init__(
        self, jobs: Jobs, claim: Claim, connection: Connection, log: WatchedLog | None = None, **options: Any
    ) -> None:
        self.jobs, self.claim, self.connection, self.id = jobs, claim, connection, claim.record.id
        self.log = log or WatchedLog(connection)
        limits = {"lease": 15.0, "patience": 20.0, "max_event": 1 << 20, "max_log": 1 << 26}
        self.writer = Writer(self.log, claim, **(limits | options))
        self.task = asyncio.create_task(self.writer.run())

    async def another(self) -> Pen:
        """Open a second stream on the same log and connection."""
        claim = await self.jobs.claim(await self.jobs.stream(chain="chat"))
        return Pen(self.jobs, claim, self.connection, log=self.log)

    async def put(self, *deltas: str) -> None:
        for delta in deltas:
            await self.writer.put(text(delta))

    async def tried(self, count: int) -> None:
        """Wait until this number of appends has been started."""

        async def condition() -> bool:
            return len(self.log.tried) >= count

        await eventually(condition)

    async def text(self) -> str:
        return (await self.jobs.fold(self.id)).text


@asynccontextmanager
async def pen(url: str, connection: type[Connection] = Connection, **options: Any) -> AsyncIterator[Pen]:
    async with Jobs(url) as jobs:
        claim = await jobs.claim(await jobs.stream(chain="chat"))
        opened = connection(url, name="pen")
        # After this append the server has the script in its cache.
        await Log(opened).append(claim, claim.log_end, b"", claim.record.last_id, 15_000)
        made = Pen(jobs, claim, opened, **options)
        try:
            yield made
        finally:
            made.task.cancel()
            await asyncio.gather(made.task, return_exceptions=True)
            await made.connection.close()


@asynccontextmanager
async def paused(redis: Redis) -> AsyncIterator[None]:
    """Pause writes in the server; they are answered when this block ends, even if it ends with an error."""
    await redis.client_pause(60_000, all=False)
    try:
        yield
    finally:
        await redis.client_unpause()
