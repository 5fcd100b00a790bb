"""The composition root: one process's log, hub, relay and queue, opened at first use.

Azure Functions has no start-up hook, so `open` is called by the first request of the event loop that
serves it. Hosts hand in the catalogue of chains as plain data: nothing here knows LangChain.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from gateway import protocol, sse
from gateway.body import Start
from gateway.connection import Connection
from gateway.errors import (
    CursorLost,
    KeyReused,
    QueueUnavailable,
    StoreUnavailable,
    StreamGone,
    StreamNotFound,
)
from gateway.fold import Fold
from gateway.hub import Hub
from gateway.log import Log
from gateway.protocol import Status
from gateway.queue import Message, RedisQueue
from gateway.record import Record
from gateway.relay import Relay
from gateway.revive import revive
from gateway.settings import Settings

READ_TIMEOUT_SECONDS = 15.0  # a blocking read of the queue takes a second of it
FOLD_TRIES = 3


@dataclass(frozen=True, slots=True)
class Parts:
    """What an open gateway holds."""

    redis: Connection
    receiver: Connection
    log: Log
    hub: Hub
    relay: Relay
    queue: RedisQueue


class Gateway:
    """The product's verbs: create, follow, cancel, status."""

    def __init__(
        self,
        settings: Settings,
        chains: Mapping[str, Sequence[str]],
        *,
        model_state: Callable[[], str] = lambda: "configured",
    ) -> None:
        self.settings = settings
        self.chains = chains
        self.model_state = model_state
        self._parts: Parts | None = None

    @property
    def parts(self) -> Parts:
        """The open parts; opened now when they are not. Must be called within the event loop that serves."""
        if self._parts is None:
            self._parts = self._open()
        return self._parts

    async def close(self) -> None:
        """Let go of everything; readers end cleanly."""
        if self._parts is None:
            return
        parts, self._parts = self._parts, None
        await parts.hub.close()
        await asyncio.gather(parts.redis.close(), parts.receiver.close())

    def _open(self) -> Parts:
        settings = self.settings
        if not settings.redis_url:
            raise StoreUnavailable("REDIS_URL is not set")
        redis = Connection(settings.redis_url, name="holdfast")
        receiver = Connection(settings.redis_url, name="holdfast-queue", timeout=READ_TIMEOUT_SECONDS)
        log = Log(redis)
        queue = RedisQueue(
            redis,
            receiver,
            name=settings.queue_name,
            consumer=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
            lease_ms=_ms(settings.lease),
            keep_ms=_ms(settings.retention + settings.tombstone),
        )
        hub = Hub(
            settings.redis_url,
            log,
            partial(revive, log, queue, backoff=settings.lease),
            heartbeat=settings.heartbeat,
            reader_bytes=settings.max_reader,
        )
        hub.open()
        relay = Relay(log, hub, max_age=settings.stream_max_age)
        return Parts(redis, receiver, log, hub, relay, queue)

    async def create(self, start: Start, *, owner: str, key: str = "", traceparent: str = "") -> Record:
        """A stream whose job is in the queue when this returns; for a known key, the stream that it has.

        Raises KeyReused, StoreUnavailable or QueueUnavailable; after either nothing is run.
        """
        log, queue = self.parts.log, self.parts.queue
        key_hash = protocol.idempotency_hash(owner, key) if key else ""
        stream_id = protocol.new_stream_id(key_hash)
        now = await log.now_ms()
        first = protocol.start(stream_id, start.chain, self.chains[start.chain], iso(now))
        tag = protocol.tag_of(protocol.new_token())
        fields = self._fields(start, owner, traceparent, now) | {"last_id": f"0-{tag}"}
        word, found = await log.create(
            stream_id, fields, sse.encode(first, 0, tag), key_hash=key_hash, body_hash=start.digest
        )
        if word == "conflict":
            raise KeyReused
        record, _ = await log.record(found)
        if record is None:
            raise StoreUnavailable
        if not record.confirmed:  # ours, or one whose first POST died between the record and the queue
            await queue.enqueue(Message(found, record.trace))
            if not await log.confirm(found, _ms(self.settings.queue_grace)):
                raise QueueUnavailable("the queue took longer than the record lasts")
        return record

    async def find(self, stream_id: str, owner: str) -> Record:
        """The caller's stream. Raises StreamNotFound (also for another's) or StreamGone."""
        if not protocol.is_stream_id(stream_id):
            raise StreamNotFound
        record, log_end = await self.parts.log.record(stream_id)
        if record is None or record.owner != owner:
            raise StreamNotFound
        if log_end == 0:
            raise StreamGone
        return record

    async def cancel(self, stream_id: str, owner: str) -> dict[str, Any]:
        """End it now, if it has not ended, and answer the status document."""
        await self.find(stream_id, owner)
        tag = protocol.tag_of(protocol.new_token())
        await self.parts.log.cancel(stream_id, tag)
        return await self.status(stream_id, owner)

    async def status(self, stream_id: str, owner: str) -> dict[str, Any]:
        """The status document: the record, and the fold of the whole log, text and cursor together."""
        await self.find(stream_id, owner)
        for _ in range(FOLD_TRIES):
            try:
                fold = await self._fold(stream_id)
            except CursorLost:  # the store lost a tail between two pieces of this very read
                continue
            return document(await self.find(stream_id, owner), fold)  # the record is never behind its log
        raise StoreUnavailable

    async def _fold(self, stream_id: str) -> Fold:
        fold, after, at_end = Fold(), None, False
        while not at_end:
            piece = await self.parts.log.read(stream_id, after)
            for message in sse.Decoder().feed(piece.frames):
                fold.feed(message.id, message.event())
            after, at_end = piece.last, piece.at_end or piece.final
        return fold

    def _fields(self, start: Start, owner: str, traceparent: str, now_ms: int) -> dict[str, Any]:
        settings = self.settings
        fields: dict[str, Any] = {
            "version": protocol.VERSION,
            "owner": owner,
            "chain": start.chain,
            "stages": sse.dumps(list(self.chains[start.chain])),
            "input": sse.dumps(start.input),
            "params": sse.dumps(start.params),
            "trace": traceparent,
            "created_ms": now_ms,
            "keep_ms": _ms(settings.retention),
            "tombstone_ms": _ms(settings.tombstone),
        }
        return fields if start.metadata is None else fields | {"metadata": sse.dumps(start.metadata)}


def document(record: Record, fold: Fold) -> dict[str, Any]:
    """The status document of `docs/protocol.md`: as of the fold, which may be older than the record."""
    return {
        "id": record.id,
        "status": fold.ended or (Status.RUNNING if record.ended else record.status),
        "chain": record.chain,
        "stages": [stage.document() for stage in fold.stages],
        "text": fold.text,
        "usage": fold.usage,
        "attempt": record.attempt,
        "last_event_id": fold.last_id,
        "created_at": iso(record.created_ms),
        "started_at": record.started_ms and iso(record.started_ms),
        "ended_at": record.ended_ms and fold.ended and iso(record.ended_ms),
        "metadata": record.metadata,
        "error": fold.error,
    }


def iso(ms: int) -> str:
    """Milliseconds of Redis's clock as RFC 3339 in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
