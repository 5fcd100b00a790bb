"""Create a stream. The steps are: admit, check, record, queue, confirm, in this order.

Invariant: when `create` returns, the job is in the queue. A record whose job never reached the queue expires
by itself. The place that its owner took for it becomes free within a minute. A process that can run jobs may
run this one at once (GATEWAY_DIRECT_START), but not before the queue has acknowledged it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakValueDictionary

from opentelemetry.trace import SpanKind

from gateway import protocol
from gateway.observe import telemetry
from gateway.protocol import sse
from gateway.protocol.errors import (
    Invalid,
    KeyReused,
    OverQuota,
    QueueFull,
    QueueUnavailable,
    StoreUnavailable,
    ThreadRefused,
)
from gateway.queue.job_queue import Admission, Message, Sender
from gateway.settings import Settings
from gateway.store.conversations import OF_STREAM, Conversations
from gateway.store.log import Log
from gateway.store.mine import Mine
from gateway.store.outbox import Outbox
from gateway.store.quota import Quota
from gateway.store.record import Record, started
from gateway.streams.input_schemas import Inputs
from gateway.streams.order import Order
from gateway.streams.placing import Placing
from gateway.streams.start import Start

# Enqueues a job and runs it in this process. Returns False when this process has no room for the job; then
# nothing was done.
DirectStart = Callable[[Message], Awaitable[bool]]


async def no_direct_start(_: Message) -> bool:
    """Start no job: for a process that runs no jobs."""
    return False


class Creation:
    """Creates streams. The quota and the queue's depth are checked before anything is stored."""

    def __init__(
        self,
        settings: Settings,
        chains: Mapping[str, Sequence[str]],
        log: Log,
        queue: Sender,
        admission: Admission,
        quota: Quota,
        mine: Mine,
        inputs: Inputs,
        conversations: Conversations,
        outbox: Outbox,
        direct_start: DirectStart,
    ) -> None:
        self._settings = settings
        self._chains = chains
        self._log = log
        self._queue = queue
        self._admission = admission
        self._quota = quota
        self._mine = mine
        self._inputs = inputs
        self._conversations = conversations
        self._outbox = outbox
        self._direct_start = direct_start
        self._placing = Placing(settings, log, queue)
        # One lock for each Idempotency-Key. A lock exists only while a request with the key is running.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def learn(self, chains: Mapping[str, Sequence[str]], inputs: Inputs) -> None:
        """Use these chains from now on.

        A request that is already running is accepted, even if its chain was removed.
        """
        self._chains = {**self._chains, **chains}
        self._inputs = inputs

    async def create(self, order: Order) -> Record:
        """Create the stream and put its job into the queue.

        If the Idempotency-Key is known, return the stream of the key, at no cost. A stream that waits for the
        turn of its thread is put into the queue when it gets the turn.

        Raises Invalid, KeyReused, OverQuota, QueueFull, StoreUnavailable or QueueUnavailable. For a stream in
        a thread, also raises ThreadBusy, ThreadWaiting or ThreadMoved.
        """
        key_hash = order.key_hash
        if not key_hash:
            return await self._create(order, "")
        turn = self._turns.setdefault(key_hash, asyncio.Lock())
        # Of several requests with the same key, only one takes a place.
        async with turn:
            return await self._create(order, key_hash)

    async def _create(self, order: Order, key_hash: str) -> Record:
        start, owner = order.start, order.owner
        stream_id = protocol.new_stream_id(key_hash)
        word, found = await self._known(stream_id, key_hash, start)
        if word == "none" and start.thread:
            await self._placing.check(start, owner)
        if word == "none" and start.tells:
            await self._outbox.admit(owner, stream_id)
        if word == "none":
            try:
                now_ms = await self.admit(owner, stream_id)
            except (OverQuota, QueueFull):
                word, found = await self._known(stream_id, key_hash, start)
                # Otherwise another process has created the stream in the meantime.
                if word == "none":
                    raise
        if word == "none":
            await self._check(start, owner, stream_id)
            fields = self._fields(order, now_ms)
            word, found = await self._record(stream_id, start, key_hash, fields)
            if word == "created":
                return await self._placed(Record.made(stream_id, fields), order)
            await self.release(owner, stream_id)  # another process was faster
        if word == "conflict":
            raise KeyReused
        record = (await self._log.look(found, owner)).record
        if record is None:
            raise StoreUnavailable
        if record.confirmed:
            return record
        # The process that received the first POST with this key has died.
        return await self._placed(record, order)

    async def _placed(self, record: Record, order: Order) -> Record:
        """Put the job into the queue, or let the stream wait for the turn of its thread."""
        start = order.start
        if not record.thread:
            return await self._queued(record, order.followed)
        if start.keeps is not None:  # before other streams can see this one in the thread
            await self._conversations.keep(record.owner, record.id, *start.keeps)
        try:
            has_turn = await self._placing.enter(record, start)
        except ThreadRefused:
            await self._withdraw(record)
            raise
        if has_turn:
            return await self._queued(record, order.followed)
        await self._queue.forget(record.id)
        # While the stream waits, it is swept like a job that no worker has claimed.
        if not await self._log.confirm(record.id, round(self._settings.lease * 1000)):
            raise QueueUnavailable("the thread took longer than the record lasts")
        telemetry.started.add(1, {"chain": record.chain})
        await self._placing.tend(record)
        return record

    async def _withdraw(self, record: Record) -> None:
        """Delete everything of a stream that its thread has refused.

        The Idempotency-Key is free again, as if it had never been used.
        """
        await self.release(record.owner, record.id)
        await self._conversations.drop(record.owner, [(OF_STREAM, record.id)])
        await self._log.erase(record.id)

    async def _known(self, stream_id: str, key_hash: str, start: Start) -> tuple[str, str]:
        return await self._log.known(stream_id, key_hash, start.digest) if key_hash else ("none", "")

    async def admit(self, owner: str, stream_id: str) -> int:
        """Reserve the places that a stream needs. Returns the time in ms, by Redis's clock.

        Raises OverQuota, QueueFull or StoreUnavailable.
        """
        others = await self._quota.admit(owner, stream_id)
        now_ms, reserved = await asyncio.gather(
            self._log.now_ms(), self._admission.reserve(stream_id, self._settings.max_queue, others)
        )
        if not reserved:
            await self._quota.release(owner, stream_id)
            raise QueueFull
        await self._mine.note(owner, stream_id, now_ms)
        return now_ms

    async def note_webhook(self, owner: str, stream_id: str, *, is_new: bool) -> None:
        """Note that a stream with a webhook will be created. `is_new`: the webhook is the stream's own.

        Otherwise the stream inherits the webhook of another stream. Raises OverQuota if the webhook is new
        and the owner has too many.
        """
        await (self._outbox.admit(owner, stream_id) if is_new else self._outbox.note(owner, stream_id))

    async def release(self, owner: str, stream_id: str) -> None:
        """Give the places back, because the stream is not created. Its record, if any, expires by itself."""
        await self._quota.release(owner, stream_id)
        await self._queue.forget(stream_id)
        await self._mine.forget(owner, [stream_id])

    async def uncount(self, owner: str, stream_id: str, left_ms: int) -> None:
        """Do what `Quota.uncount` does.

        If the store is out of reach, the stream stays counted for longer.
        """
        with suppress(StoreUnavailable):
            await self._quota.uncount(owner, stream_id, left_ms)

    async def forget(self, owner: str, streams: Mapping[str, tuple[int, int]]) -> None:
        """Do what `Quota.forget` does.

        If the store is out of reach, the streams stay counted until they would have expired.
        """
        with suppress(StoreUnavailable):
            await self._quota.forget(owner, streams)
            await self._mine.forget(owner, list(streams))

    async def _check(self, start: Start, owner: str, stream_id: str) -> None:
        """Check that the chain accepts the input.

        An invalid input has cost work, so it counts as a start in the quota.
        """
        try:
            await self._inputs.hold(start, owner)
        except Invalid:
            await self._quota.release(owner, stream_id, started=True)
            await self._queue.forget(stream_id)
            await self._mine.forget(owner, [stream_id])
            raise

    async def _record(
        self, stream_id: str, start: Start, key_hash: str, fields: dict[str, Any]
    ) -> tuple[str, str]:
        first = started(Record.made(stream_id, {**fields, "last_id": ""}))
        tag = protocol.tag_of(protocol.new_token())
        fields["last_id"] = f"0-{tag}"
        frame = sse.encode(first, 0, tag)
        return await self._log.create(stream_id, fields, frame, key_hash=key_hash, body_hash=start.digest)

    async def _queued(self, record: Record, followed: bool) -> Record:
        await self.send(record, followed)
        if not await self._log.confirm(record.id, round(self._settings.queue_grace * 1000)):
            raise QueueUnavailable("the queue took longer than the record lasts")
        telemetry.started.add(1, {"chain": record.chain})
        return record

    async def send(self, record: Record, followed: bool) -> None:
        """Put the stream's job into the queue. Raises QueueUnavailable."""
        with telemetry.span(f"send {self._settings.queue_name}", SpanKind.PRODUCER):
            await self._enqueue(Message(record.id, record.trace), followed)

    async def _enqueue(self, message: Message, followed: bool) -> None:
        """Enqueue the job, or start it in this process.

        A job that is started here runs at the same time as the rest of the POST. The job's claim also
        confirms the stream.
        """
        mode = self._settings.direct_start
        wanted = mode == "always" or (mode == "stream" and followed)
        if not (wanted and await self._direct_start(message)):
            await self._queue.enqueue(message)

    def _fields(self, order: Order, now_ms: int) -> dict[str, Any]:
        start = order.start
        fields: dict[str, Any] = self.times(now_ms) | {
            "version": protocol.VERSION,
            "owner": order.owner,
            "chain": start.chain,
            "stages": sse.dumps(list(self._chains[start.chain])),
            "input": sse.dumps(start.input),
            "params": sse.dumps(start.params),
            "trace": order.traceparent,
        }
        fields |= {"claims": sse.dumps(dict(order.claims))} if order.claims else {}
        fields |= {"thread": start.thread} if start.thread else {}
        fields |= {"whole": 1} if start.whole else {}
        fields |= {"unstored": 1} if start.unstored else {}
        fields |= {"turn": sse.dumps(start.turn)} if start.turn is not None else {}
        if start.webhook is not None:
            fields |= start.webhook.fields(self._settings.webhook_kept_ms)
        fields |= {"graph": sse.dumps(start.graph)} if start.graph is not None else {}
        if start.again is not None:
            fields |= start.again.fields
        return fields if start.metadata is None else fields | {"metadata": sse.dumps(start.metadata)}

    def stages(self, chain: str) -> list[str] | None:
        """Return the stages of a chain, or None if this process does not know the chain."""
        return list(self._chains[chain]) if chain in self._chains else None

    def times(self, now_ms: int) -> dict[str, Any]:
        """Return the record's fields with the creation time and the lifetimes of the stream's data, in ms."""
        settings = self._settings
        return {
            "created_ms": now_ms,
            "keep_ms": round(settings.retention * 1000),
            "tombstone_ms": round(settings.tombstone * 1000),
            "open_ms": round(settings.open_seconds * 1000),
            "wait_ms": round(settings.max_wait * 1000),
        }
