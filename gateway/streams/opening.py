"""Open a producer's stream. The steps are: admit, record, confirm. There is no job and no queue.

A record that is not confirmed expires by itself within a minute, and then the place that its owner took for
it becomes free. After the creation, a producer must send something within GATEWAY_PRODUCER_GRACE_SECONDS.
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakValueDictionary

from gateway import protocol
from gateway.observe import telemetry
from gateway.protocol import sse
from gateway.protocol.errors import KeyReused, OverQuota, StoreUnavailable
from gateway.settings import Settings
from gateway.store.log import Log
from gateway.store.mine import Mine
from gateway.store.outbox import Outbox
from gateway.store.quota import Quota
from gateway.store.record import Claim, Record
from gateway.streams.producer_asked import Asked
from gateway.streams.write_tokens import new_key


class Opening:
    """Opens streams for producers, and gives producers their claims."""

    def __init__(self, settings: Settings, log: Log, quota: Quota, mine: Mine, outbox: Outbox) -> None:
        self.settings = settings
        self.log = log
        self._quota = quota
        self._mine = mine
        self._outbox = outbox
        # One lock for each Idempotency-Key. A lock exists only while a request with the key is running.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def lease_ms(self) -> int:
        """How long a producer may be silent, in ms."""
        return round(self.settings.producer_grace * 1000)

    async def open(self, asked: Asked, *, owner: str, key: str = "", traceparent: str = "") -> Record:
        """Open a stream that has no writer yet.

        If the Idempotency-Key is known, return the stream of the key, at no cost.

        Raises KeyReused, OverQuota or StoreUnavailable.
        """
        key_hash = protocol.idempotency_hash(owner, key) if key else ""
        turn = self._turns.setdefault(key_hash, asyncio.Lock()) if key else asyncio.Lock()
        # All requests with the same key together take only one place.
        async with turn:
            return await self._open(asked, owner, key_hash, traceparent)

    async def take(self, stream_id: str, token: str, *, keep: bool = False) -> Claim | str:
        """Claim the stream with this token. Returns the claim, or why there is none.

        The reasons are `held`, `ended` and `unknown`. The claim is taken from the producer that has it. With
        `keep`, only a claim that already has this token is continued. Raises StoreUnavailable.
        """
        word = "keep" if keep else "take"
        answer = await self.log.claim(stream_id, token, self.lease_ms, producer=word)
        return answer.claim or answer.word

    async def _open(self, asked: Asked, owner: str, key_hash: str, traceparent: str) -> Record:
        stream_id = protocol.new_stream_id(key_hash)
        word, found = await self._known(stream_id, key_hash, asked)
        if word == "none" and asked.webhook is not None:
            await self._outbox.admit(owner, stream_id)
        if word == "none":
            try:
                await self._quota.admit(owner, stream_id)
            except OverQuota:
                word, found = await self._known(stream_id, key_hash, asked)
                # Otherwise another process has created the stream in the meantime.
                if word == "none":
                    raise
        if word == "none":
            now_ms = await self.log.now_ms()
            await self._mine.note(owner, stream_id, now_ms)
            fields = self._fields(asked, owner, traceparent, now_ms)
            word, found = await self._record(stream_id, asked, key_hash, fields)
            if word == "created":
                return await self._confirmed(Record.made(stream_id, fields))
            await self._quota.release(owner, stream_id)  # another process was faster
            await self._mine.forget(owner, [stream_id])
        if word == "conflict":
            raise KeyReused
        record, _ = await self.log.record(found)
        if record is None:
            raise StoreUnavailable
        # The process that created the stream has died.
        return record if record.confirmed else await self._confirmed(record)

    async def _known(self, stream_id: str, key_hash: str, asked: Asked) -> tuple[str, str]:
        return await self.log.known(stream_id, key_hash, asked.digest) if key_hash else ("none", "")

    async def _record(
        self, stream_id: str, asked: Asked, key_hash: str, fields: dict[str, Any]
    ) -> tuple[str, str]:
        created_at = protocol.iso(fields["created_ms"])
        tag = protocol.tag_of(protocol.new_token())
        frame = sse.encode(protocol.start(stream_id, asked.chain, asked.stages, created_at), 0, tag)
        fields["last_id"] = f"0-{tag}"
        return await self.log.create(stream_id, fields, frame, key_hash=key_hash, body_hash=asked.digest)

    async def _confirmed(self, record: Record) -> Record:
        if not await self.log.confirm(record.id, self.lease_ms):
            raise StoreUnavailable("the store took longer than the record lasts")
        telemetry.started.add(1, {"chain": record.chain})
        return record

    def _fields(self, asked: Asked, owner: str, traceparent: str, now_ms: int) -> dict[str, Any]:
        settings = self.settings
        fields: dict[str, Any] = {
            "version": protocol.VERSION,
            "producer": 1,
            "write_key": new_key(),
            "owner": owner,
            "chain": asked.chain,
            "stages": sse.dumps(list(asked.stages)),
            "trace": traceparent,
            "created_ms": now_ms,
            "keep_ms": round(settings.retention * 1000),
            "tombstone_ms": round(settings.tombstone * 1000),
            "open_ms": round(settings.open_seconds * 1000),
            "wait_ms": self.lease_ms,
        }
        fields |= asked.webhook.fields(settings.webhook_kept_ms) if asked.webhook else {}
        return fields if asked.metadata is None else fields | {"metadata": sse.dumps(asked.metadata)}
