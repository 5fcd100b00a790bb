"""A stream that a test writes, and relays that follow it. The tests of the reading side need no worker and no
host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis

from gateway import protocol
from gateway.protocol import Cursor, Event, EventType, sse
from gateway.redis.commands import Commands
from gateway.redis.connect import Where
from gateway.redis.connection import Connection
from gateway.relay.feed import Feed
from gateway.relay.follow import Relay
from gateway.relay.hub import Hub, Orphaned
from gateway.store.log import Log
from gateway.store.record import Claim

LEASE_MS = 60_000
UNTIL_SECONDS = 30.0
DONE = Event(EventType.DONE, {"finish_reason": "stop"})


def text(delta: str) -> Event:
    return protocol.text(delta, deployment="test", stage="answer")


async def until(condition: Callable[[], bool], seconds: float = UNTIL_SECONDS) -> None:
    """Poll a condition that no event announces. Raises TimeoutError after the time limit."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def feeds(hub: Hub) -> list[Feed]:
    """Return the feeds of the streams that the hub's readers follow."""
    return [one for one in hub.wanted() if isinstance(one, Feed)]


class Stream:
    """A stream that a test writes itself through claims, as a worker does."""

    def __init__(self, log: Log, stream_id: str) -> None:
        self.id = stream_id
        self._log = log

    @classmethod
    async def create(cls, log: Log, *, keep_ms: int = 60_000) -> Stream:
        """Create the stream's record and first event, confirm the stream and claim it."""
        stream_id, tag = protocol.new_stream_id(), protocol.tag_of(protocol.new_token())
        frame = sse.encode(protocol.start(stream_id, "chat", ["answer"], "now"), 0, tag)
        fields = {
            "keep_ms": keep_ms,
            "tombstone_ms": 60_000,
            "last_id": f"0-{tag}",
            "owner": protocol.ANONYMOUS,
        }
        await log.create(stream_id, fields, frame)
        await log.confirm(stream_id, LEASE_MS)
        stream = cls(log, stream_id)
        await stream.claim()
        return stream

    async def claim(self, lease_ms: int = LEASE_MS) -> Claim:
        """Claim the stream with a new token."""
        answer = await self._log.claim(self.id, protocol.new_token(), lease_ms)
        assert answer.claim is not None, answer
        self._claim, self._end = answer.claim, answer.claim.log_end
        return self._claim

    async def take_over(self) -> Claim:
        """Claim the stream as another worker, after the first worker has released its claim."""
        answer = await self._log.append(self._claim, self._end, b"", "", LEASE_MS, status="queued")
        assert answer.word == "ok", answer
        return await self.claim()

    async def claim_again(self) -> Claim:
        """Claim the stream as another worker, after the lease of the first worker has expired."""
        answer = await self._log.append(self._claim, self._end, b"", "", 1)
        if answer.word == "lost":  # the log was truncated: claim at its present end
            answer = await self._log.append(self._claim, answer.number, b"", "", 1)
        assert answer.word == "ok", answer
        while (answer := await self._log.claim(self.id, protocol.new_token(), LEASE_MS)).claim is None:
            assert answer.word == "held", answer
        self._claim, self._end = answer.claim, answer.claim.log_end
        return self._claim

    async def write(self, *events: Event) -> str:
        """Append these events in one block; return the id of the last event."""
        frames, status, last = b"", "", ""
        for event in events:
            position = self._end + len(frames)
            last = f"{position}-{self._claim.tag}"
            frames += sse.encode(event, position, self._claim.tag)
            status = protocol.TERMINAL_EVENTS.get(event.type, "") or status
        answer = await self._log.append(self._claim, self._end, frames, last, LEASE_MS, status=str(status))
        assert answer.word in ("ok", "duplicate"), answer
        self._end += len(frames)
        return last

    async def texts(self, *deltas: str) -> str:
        """Append each text in a block of its own."""
        last = ""
        for delta in deltas:
            last = await self.write(text(delta))
        return last

    async def end(self) -> str:
        return await self.write(DONE)

    async def discard(self) -> None:
        """End the stream as a caller's DELETE does, so that nothing waits for a worker that never existed."""
        await self._log.cancel(self.id, self._claim.tag)

    async def log_bytes(self, redis: Redis) -> bytes:
        """Return the bytes of the whole log as stored in Redis."""
        raw = await redis.get(self._log.keys(self.id)[1])
        return raw if isinstance(raw, bytes) else b""


@asynccontextmanager
async def connected(url: str, timeout: float = 5.0) -> AsyncIterator[Connection]:
    """Open a separate connection for the test."""
    connection = Connection(url, name="holdfast-test", timeout=timeout)
    try:
        yield connection
    finally:
        await connection.close()


@dataclass(frozen=True, slots=True)
class Following:
    """The objects with which a web process serves its readers."""

    redis: Commands
    log: Log
    hub: Hub
    relay: Relay
    orphans: list[str]  # stream ids that the hub has reported, in order


@asynccontextmanager
async def following(
    url: str,
    *,
    hub_url: Where = "",
    heartbeat: float = 15.0,
    reader_bytes: int = 256 * 1024,
    max_age: float = 0.0,
    orphaned: Orphaned | None = None,
    most: int = 10_000,
    most_of_stream: int = 10_000,
    most_of_owner: int = 10_000,
) -> AsyncIterator[Following]:
    """Open relay, hub and connection. `hub_url` is needed only if the subscriber uses another URL."""
    redis = Connection(url, name="holdfast")
    log = Log(redis)
    orphans: list[str] = []

    async def noted(stream_id: str) -> None:
        orphans.append(stream_id)
        if orphaned is not None:
            await orphaned(stream_id)

    bounds = {"most": most, "most_of_stream": most_of_stream, "most_of_owner": most_of_owner}
    hub = Hub(hub_url or url, log, noted, heartbeat=heartbeat, reader_bytes=reader_bytes, **bounds)
    hub.open()
    try:
        yield Following(redis, log, hub, Relay(log, hub, max_age=max_age), orphans)
    finally:
        await hub.close()
        await redis.close()


class Reader:
    """A task that receives every chunk. `frames` is what it has received; heartbeats are counted
    separately."""

    def __init__(self, relay: Relay, stream: Stream, after: Cursor | None = None) -> None:
        self.frames = b""
        self.heartbeats = 0
        self.task = asyncio.create_task(self._run(relay.follow(stream.id, after)), name="test-reader")

    async def _run(self, chunks: AsyncGenerator[bytes, None]) -> bytes:
        async with aclosing(chunks):
            async for chunk in chunks:
                if chunk == sse.HEARTBEAT:
                    self.heartbeats += 1
                else:
                    self.frames += chunk
        return self.frames

    async def has(self, expected: bytes, seconds: float = UNTIL_SECONDS) -> None:
        """Wait until exactly these bytes have been received."""
        await until(lambda: len(self.frames) >= len(expected) or self.task.done(), seconds)
        assert self.frames == expected

    async def all(self) -> bytes:
        """Wait for the end of the stream and return all bytes."""
        async with asyncio.timeout(UNTIL_SECONDS):
            return await self.task


@asynccontextmanager
async def reading(
    relay: Relay, stream: Stream, count: int = 1, after: Cursor | None = None
) -> AsyncIterator[list[Reader]]:
    """Start `count` readers of one stream, and stop them at the end."""
    readers = [Reader(relay, stream, after) for _ in range(count)]
    try:
        yield readers
    finally:
        for reader in readers:
            reader.task.cancel()
        await asyncio.gather(*(reader.task for reader in readers), return_exceptions=True)
