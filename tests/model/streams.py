"""Streams made by hand: the data that the gateway and its workers would write, without running them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from gateway import protocol
from gateway.protocol import Event, sse
from gateway.redis.connection import Connection
from gateway.store.log import Log
from gateway.store.record import Answer, Claim

LEASE_MS = 60_000  # longer than any test; a lease ends only when a test ends it
GRACE_MS = 30_000
KEEP_MS = 3_600_000
TOMBSTONE_MS = 1_800_000
OPEN_MS = 7_200_000  # lifetime of the keys of an open stream
WAIT_MS = 1_800_000  # longest wait for the first attempt
RUN_MS = 2_400_000  # longest run, from the first attempt
START_TAG = "5a5a"
INPUT, PARAMS = '{"messages":"a prompt"}', "{}"
CANCEL_TAG = "cafe"


def token(number: int) -> str:
    """Return a claim's token whose tag is the number: two tokens of a test have different tags."""
    return f"{number:04x}" + "0" * 28


def stream_id(bucket: int) -> str:
    """Return a new id of this bucket."""
    return f"{bucket:02x}{protocol.new_stream_id()[2:]}"


def said(text: str) -> Event:
    return protocol.text(text, deployment="model", stage="answer")


DONE = protocol.done(finish_reason="stop", usage={"total_tokens": 3}, attempts=1, duration_ms=5)


def frames_of(position: int, tag: str, *events: Event) -> bytes:
    """Return the frames of consecutive events, the first at `position`."""
    frames = b""
    for event in events:
        frames += sse.encode(event, position + len(frames), tag)
    return frames


def last_id_of(frames: bytes) -> str:
    last = sse.split_frames(frames)[-1]
    return last.split(b"\n")[0].removeprefix(b"id: ").decode()


def ids_of(frames: bytes) -> list[str]:
    return [last_id_of(frame) for frame in sse.split_frames(frames)]


def start_frame(stream_id: str) -> bytes:
    event = protocol.start(stream_id, "chat", ["answer"], "2026-01-01T00:00:00.000Z")
    return sse.encode(event, 0, START_TAG)


def record_fields(**changes: Any) -> dict[str, Any]:
    """Return the record's fields that a POST writes."""
    fields = {
        "version": protocol.VERSION,
        "owner": protocol.ANONYMOUS,
        "chain": "chat",
        "stages": '["answer"]',
        "input": INPUT,
        "params": PARAMS,
        "trace": "",
        "created_ms": 1,
        "keep_ms": KEEP_MS,
        "tombstone_ms": TOMBSTONE_MS,
        "open_ms": OPEN_MS,
        "wait_ms": WAIT_MS,
        "last_id": f"0-{START_TAG}",
    }
    return fields | changes


async def text_of(redis: Redis, stream: Stream) -> bytes:
    """Return the log as stored in Redis, read without the product."""
    text = await redis.get(stream.keys[1])
    assert isinstance(text, bytes)
    return text


@asynccontextmanager
async def open_log(url: str) -> AsyncIterator[Log]:
    connection = Connection(url, name="test")
    try:
        yield Log(connection)
    finally:
        await connection.close()


@dataclass(slots=True)
class Pen:
    """A claim that writes as a worker does: it knows the position of its next frame."""

    log: Log
    claim: Claim
    end: int = 0
    wrote: bytes = field(default=b"", repr=False)

    async def write(self, *events: Event, status: str = "", **fields: Any) -> Answer:
        """Append these events at the pen's own end. The end moves when the events are stored there."""
        frames = frames_of(self.end, self.claim.tag, *events)
        answer = await self.put(self.end, frames, status=status, **fields)
        if answer.word in ("ok", "duplicate"):
            self.end += len(frames)
            self.wrote += frames
        return answer

    async def put(self, position: int, frames: bytes, *, status: str = "", **fields: Any) -> Answer:
        last = last_id_of(frames) if frames else self.claim.record.last_id
        return await self.log.append(
            self.claim, position, frames, last, LEASE_MS, status=status, fields=fields
        )

    async def release(self) -> Answer:
        return await self.put(self.end, b"", status="queued")


@dataclass(slots=True)
class Stream:
    """One stream in the store, and its keys."""

    log: Log
    id: str

    @classmethod
    async def create(cls, log: Log, *, confirmed: bool = True, **fields: Any) -> Stream:
        stream = cls(log, protocol.new_stream_id())
        assert await stream.create_again(**fields) == ("created", stream.id)
        if confirmed:
            assert await log.confirm(stream.id, GRACE_MS)
        return stream

    async def create_again(self, *, key: str = "", body: str = "", **fields: Any) -> tuple[str, str]:
        first = start_frame(self.id)
        return await self.log.create(self.id, record_fields(**fields), first, key_hash=key, body_hash=body)

    @property
    def keys(self) -> tuple[str, str, str]:
        job, log, index = Log.keys(self.id)
        return job, log, index

    async def pen(self, number: int = 1) -> Pen:
        """Claim the stream with the token of this number."""
        answer = await self.log.claim(self.id, token(number), LEASE_MS)
        assert answer.claim is not None, answer.word
        return Pen(self.log, answer.claim, answer.claim.log_end)
