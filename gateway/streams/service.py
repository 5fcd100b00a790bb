"""The composition root: one process's log, hub, relay and queue, opened at first use.

Azure Functions has no start-up hook, so the first request opens the parts, in the event loop that serves
it. Hosts pass in the catalogue of chains as plain data: nothing here knows LangChain.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from opentelemetry.trace import SpanKind

from gateway import protocol
from gateway.azure import credentials
from gateway.callers.auth import Named, OwnerOf, auth_of
from gateway.callers.claims import NO_CLAIMS
from gateway.observe import telemetry
from gateway.ops.readiness import Readiness, Shared
from gateway.protocol import Cursor
from gateway.protocol.errors import (
    CursorLost,
    QueueUnavailable,
    StoreUnavailable,
    StreamGone,
    StreamNotFound,
    Unauthorized,
)
from gateway.queue import overdue
from gateway.queue.open import open_queue
from gateway.queue.redeliver import revive
from gateway.queue.turns import Turns
from gateway.redis.cluster import Router
from gateway.redis.connect import Place
from gateway.relay.follow import Relay
from gateway.relay.hub import Hub
from gateway.relay.seen import Seen
from gateway.relay.sources import Sources
from gateway.settings import Settings
from gateway.store.conversations import Conversations
from gateway.store.log import Log
from gateway.store.mine import Mine
from gateway.store.outbox import Outbox
from gateway.store.plans import Plans
from gateway.store.presence import Presence
from gateway.store.projector import Projector
from gateway.store.quota import Quota
from gateway.store.record import Look, Record
from gateway.store.threads import Threads
from gateway.store.unstored import Eraser
from gateway.streams.create import Creation, DirectStart, no_direct_start
from gateway.streams.graph_state import DrawnOf, StateOf, StatesOf, no_state, no_states, not_drawn
from gateway.streams.input_schemas import Inputs, Schema
from gateway.streams.opening import Opening
from gateway.streams.order import Order
from gateway.streams.parts import Parts
from gateway.streams.resume import Resume
from gateway.streams.resuming import Resuming
from gateway.streams.retrying import Wanted, again
from gateway.streams.room import BYTES_OF_A_BYTE, Document, Room, Share
from gateway.streams.start import Bounds, Start
from gateway.streams.status import document, fold_of
from gateway.streams.stream_tokens import SHORT_LIFE, StreamTokens, life_of

FOLD_TRIES = 3
FOLDS_AT_ONCE = 4  # in one process: each may use memory for a whole log and text
REFUSED_AFTER_SECONDS = 0.005  # longer than a read of the store takes
_log = logging.getLogger("holdfast.gateway")


class Gateway:
    """The operations of the product: create, follow, cancel, status."""

    def __init__(
        self,
        settings: Settings,
        chains: Mapping[str, Sequence[str]],
        *,
        schemas: Mapping[str, Schema | None] | None = None,
        params: Mapping[str, Collection[str] | Schema] | None = None,
        model_state: Callable[[], str] = lambda: "configured",
        owner: OwnerOf | None = None,
    ) -> None:
        """`chains`: names and stages. `schemas`: of their inputs. Raises ValueError for an invalid schema.

        `params`: by chain, the params that callers may set (see `Inputs`). `owner`: a function of an
        embedding application that names the caller; the settings' `auth` is then `owner`.
        """
        self.settings = settings
        self.chains = chains
        self.inputs = Inputs(schemas or {}, params)
        self.model_state = model_state
        self.bounds, self.auth, self.plans = Bounds.of(settings), auth_of(settings), Plans(settings)
        self.named = None if owner is None else Named(owner)
        self._token_life = life_of(settings.token_seconds, settings.max_run)
        self.tokens = StreamTokens(settings.token_keys.split(), self._token_life.seconds)
        if self._token_life.is_short:
            _log.warning(SHORT_LIFE)
        # Without configured keys, a process cannot tell another process's token from a wrong one. Without
        # authentication, the id alone opens a stream, and a token in the request is ignored.
        self.knows_tokens = bool(settings.token_keys) or not settings.is_open
        self._parts: Parts | None = None
        self.direct_start: DirectStart = no_direct_start  # set by a host that runs jobs itself
        self.state_of: StateOf = no_state  # set by a host that knows LangGraph
        self.states_of: StatesOf = no_states  # set by a host that knows LangGraph
        self.drawn: DrawnOf = not_drawn  # set by a host that knows LangGraph
        self.folding = asyncio.Semaphore(FOLDS_AT_ONCE)
        self._room = Room(settings.max_documents)
        self.readiness = Readiness(lambda: self.parts, model_state, lambda: self.works_here)
        self.exposition = Shared(telemetry.exposition) if telemetry.exposition else None

    @property
    def parts(self) -> Parts:
        """The open parts. They are opened at the first use, which must be in the event loop that serves."""
        if self._parts is None:
            self._parts = self._open()
        return self._parts

    def learn(
        self,
        chains: Mapping[str, Sequence[str]],
        schemas: Mapping[str, Schema | None],
        params: Mapping[str, Collection[str]],
    ) -> None:
        """Use these chains from now on; running requests go on. Call this in the loop that serves.

        Raises ValueError for an invalid schema; then nothing has changed.
        """
        self.inputs = Inputs(schemas, params)
        self.chains = chains
        if self._parts is not None:
            self._parts.creation.learn(chains, self.inputs)

    @property
    def works_here(self) -> bool:
        """Whether this process itself runs jobs."""
        return self.direct_start is not no_direct_start

    def start_here(self, start: DirectStart) -> None:
        """Let this process run jobs of its own POSTs, if the settings allow it (GATEWAY_DIRECT_START)."""
        self.direct_start = start

    async def end_readers(self) -> None:
        """Close all readers' connections: they reconnect elsewhere. No reader can join any more."""
        if self._parts is not None:
            await self._parts.hub.close()

    async def close(self) -> None:
        """Close all parts. The connections of readers end in order."""
        if self._parts is None:
            return
        parts, self._parts = self._parts, None
        self.readiness.close()
        await parts.hub.close()
        if parts.log.projector is not None:
            await parts.log.projector.close()
        await parts.queue.close()
        await parts.redis.close()
        if parts.tokens is not None:
            await parts.tokens.close()
        await credentials.close()

    def _open(self) -> Parts:
        settings = self.settings
        if not settings.redis_url:
            raise StoreUnavailable("REDIS_URL is not set")
        place = Place(settings.redis_url, tokens := credentials.redis_tokens(settings))
        redis = Router(place, name="holdfast")
        log = Log(redis, projector := Projector(redis, settings))
        queue = open_queue(settings, redis, place)
        sources = Sources(log, projector.feeds)
        hub = Hub(
            redis.place,
            sources,
            partial(revive, log, queue, backoff=settings.lease),
            heartbeat=settings.heartbeat,
            reader_bytes=settings.max_reader,
            most=settings.max_readers,
            most_of_stream=settings.max_stream_readers,
            most_of_owner=settings.max_owner_readers,
        )
        redis.on_moved(partial(hub.subscriber.leave, "the store has another primary"))
        hub.open()
        self.readiness.open()
        telemetry.queue_depth.ask = self.readiness.depth
        relay = Relay(sources, hub, max_age=settings.stream_max_age, seen=Seen(log))
        quota, mine = Quota(redis, settings, self.plans), Mine(redis, settings)
        outbox, conversations = Outbox(redis, settings), Conversations(redis, settings)
        projector.erase = Eraser(threads := Threads(redis), conversations, quota, mine).erase
        creation = Creation(
            *(settings, self.chains, log, queue, queue, quota, mine, self.inputs, conversations, outbox),
            lambda job: self.direct_start(job),
        )
        opening, resuming = Opening(settings, log, quota, mine, outbox), Resuming(settings, log, creation)
        return Parts(
            *(redis, log, hub, relay, queue, creation, opening, resuming, conversations, threads),
            *(mine, outbox, Turns(log, queue), Presence(redis, settings.queue_name), tokens),
        )

    async def create(
        self,
        start: Start,
        *,
        owner: str,
        key: str = "",
        traceparent: str = "",
        followed: bool = False,
        claims: Mapping[str, Any] = NO_CLAIMS,
    ) -> Record:
        """Create a stream and put its job into the queue. For a known key, return the stream of the key.

        `followed`: the caller reads its events in the answer. `claims`: what the chain may read about the
        caller. Raises Invalid, KeyReused, OverQuota, QueueFull, StoreUnavailable or QueueUnavailable, and
        what `Creation.create` raises about threads. After these nothing was started, unless only the answer
        of the store or the queue was lost. With the same key it is one job in any case.
        """
        with telemetry.span("create stream", SpanKind.SERVER, parent=traceparent) as span:
            order = Order(start, owner, key, telemetry.traceparent_of(span), followed, claims)
            record = await self.parts.creation.create(order)
            span.set_attributes({"holdfast.stream.id": record.id, "holdfast.chain": record.chain})
            return self._watched(record)

    async def retry(
        self,
        stream_id: str,
        wanted: Wanted,
        *,
        owner: str,
        key: str = "",
        traceparent: str = "",
        followed: bool = False,
        claims: Mapping[str, Any] = NO_CLAIMS,
    ) -> Record:
        """Create a stream that continues the caller's failed stream where it failed, and queue its job.

        Raises what `create`, `find` and `retrying.again` raise.
        """
        await self.find(stream_id, owner)
        start = await again(self.parts.log, stream_id, wanted, self.chains, self.bounds)
        return await self.create(
            start, owner=owner, key=key, traceparent=traceparent, followed=followed, claims=claims
        )

    async def resume(
        self,
        stream_id: str,
        given: Resume,
        *,
        owner: str,
        traceparent: str = "",
        followed: bool = False,
        claims: Mapping[str, Any] = NO_CLAIMS,
    ) -> Record:
        """Return the stream that continues this one with the answers. The same answers give the same stream.

        Raises what `find` and `Resuming.resume` raise.
        """
        before = await self.find(stream_id, owner)
        with telemetry.span("resume stream", SpanKind.SERVER, parent=traceparent) as span:
            trace = telemetry.traceparent_of(span)
            record = await self.parts.resuming.resume(
                before, given, traceparent=trace, followed=followed, claims=claims
            )
            span.set_attributes({"holdfast.stream.id": record.id, "holdfast.chain": record.chain})
        if before.thread:
            with suppress(QueueUnavailable, StoreUnavailable):  # the next check of the thread does it
                await self.parts.turns.tend(owner, before.thread)
        return self._watched(record)

    async def find(self, stream_id: str, owner: str) -> Record:
        """Return the caller's stream. Raises StreamNotFound (also for another owner's stream) or StreamGone.

        The store needs some microseconds more for another owner's stream than for an unknown id. So the time
        of a refusal is fixed before the store is asked.
        """
        if not protocol.is_stream_id(stream_id):
            raise StreamNotFound
        loop = asyncio.get_running_loop()
        refusing = loop.create_future()
        timer = loop.call_later(REFUSED_AFTER_SECONDS, refusing.set_result, None)
        try:
            look = await self.parts.log.look(stream_id, owner)
            if look.record is None:
                await refusing
            return self._found(await self._ended_in_time(look, owner))
        finally:
            timer.cancel()

    async def find_by_token(self, stream_id: str, token: str) -> Record:
        """Return the stream of a token. Raises Unauthorized for a wrong token, StreamNotFound or StreamGone.

        Nothing of the stream is read before the token is known to be ours. So the time of a refusal shows
        nothing about the stream to a caller that never had a token.
        """
        if not protocol.is_stream_id(stream_id):
            raise Unauthorized
        log = self.parts.log
        _, _, index = log.keys(stream_id)  # on its node, shared with other streams
        now_ms = await log.now_ms(index)
        read = self.tokens.read(stream_id, token)
        if read is None or (now_ms >= read[0] and not self._token_life.follows_run):
            raise Unauthorized
        expiry_ms, ended = read
        look = await log.look(stream_id, "", any_owner=True)
        look = await self._ended_in_time(look, look.record.owner if look.record else "")
        if look.record is None and (ended or now_ms >= expiry_ms):
            raise Unauthorized
        if look.record is not None and (
            ended != look.record.tokens_ended
            or (now_ms >= expiry_ms and self._token_life.is_over(look.record.ended_ms, now_ms))
        ):
            raise Unauthorized
        return self._found(look)

    async def cancel(self, stream_id: str, owner: str) -> Document:
        """End the stream now, if it has not ended, and return the status document.

        Raises what `end` raises, or TooManyReaders if there is no room for the document; it has ended then.
        """
        await self.end(stream_id, owner)
        return await self.status(stream_id, owner)

    async def end(self, stream_id: str, owner: str) -> None:
        """End the stream now, if it has not ended. A stream that waits for an answer stops waiting.

        Raises StreamNotFound or StreamGone.
        """
        record = await self.find(stream_id, owner)
        tag = protocol.tag_of(protocol.new_token())
        answer = await self.parts.log.cancel(stream_id, tag)
        if answer.word == "cancelled":
            telemetry.ended.add(1, {"status": protocol.Status.CANCELLED, "code": ""})
            with suppress(QueueUnavailable):  # then its place in the queue becomes free later
                await self.parts.queue.forget(stream_id)
        if answer.word == "dropped":
            await self.parts.creation.uncount(owner, stream_id, answer.number)
            with suppress(StoreUnavailable):  # then they expire by themselves
                await self.parts.threads.forget_own(owner, record.first or stream_id)
        if answer.word in ("cancelled", "dropped"):
            with suppress(QueueUnavailable, StoreUnavailable):  # a later check passes on the turn
                await self.parts.turns.left(record)

    async def status(self, stream_id: str, owner: str) -> Document:
        """Return the document of the caller's stream. Raises StreamNotFound or StreamGone."""
        return await self.status_of(await self.find(stream_id, owner))

    async def room(self, size: int) -> Share:
        """Reserve bytes of memory for a document. Raises TooManyReaders if there is no room for 10 s."""
        return await self._room.take(size)

    async def room_for(self, record: Record) -> Share:
        """Reserve memory for the folded log. Raises TooManyReaders if there is no room for 10 s."""
        return await self._room.take(Cursor.parse(record.last_id).offset * BYTES_OF_A_BYTE)

    async def status_of(self, record: Record, *, metadata: bool = True) -> Document:
        """Return the status document: the record and the fold of the whole log, with text and cursor in step.

        `metadata`: include the caller's own metadata, which a request with only a stream token must not see.
        """
        stream_id, owner = record.id, record.owner
        share = await self.room_for(record)
        for _ in range(FOLD_TRIES):
            try:
                async with self.folding:
                    fold = await fold_of(self.parts.log, stream_id)
            except CursorLost:  # the store lost a tail between two pieces of this read
                continue
            record = await self.find(stream_id, owner)  # the record is never behind its log
            if not fold.ended or record.ended_ms:
                told = document(record, fold)
                if not metadata:
                    del told["metadata"]
                return Document.of(told, share)
            # The store lost the log's end after this end was read.
        raise StoreUnavailable

    def _found(self, look: Look) -> Record:
        if look.record is None:
            raise StreamNotFound
        if look.log_end == 0:
            raise StreamGone
        return self._watched(look.record)

    def _watched(self, record: Record) -> Record:
        if record.unseen:
            self.parts.relay.watch(record.id)
        return record

    async def _ended_in_time(self, look: Look, owner: str) -> Look:
        """Return this look, or end a stream whose time is over and look again. Raises StoreUnavailable."""
        if look.record is None or not look.over:
            return look
        parts, stream_id = self.parts, look.record.id
        with suppress(StoreUnavailable):  # a store that refuses writes can still be read
            await overdue.end_queued(parts.log, parts.queue, stream_id, look.over)
        return await parts.log.look(stream_id, owner)
