"""The answer to what a graph has asked: it makes a new stream, which goes on where the one before stopped.

Invariant: the answer and the new stream come to be in one step of the store, so of many answers one wins, and
each of the others is told which stream that is. A job that the queue does not take then is enqueued by the
sweeper.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway import protocol
from gateway.callers.claims import NO_CLAIMS
from gateway.observe import telemetry
from gateway.protocol import sse
from gateway.protocol.errors import (
    AlreadyAnswered,
    NotWaiting,
    OverQuota,
    QueueFull,
    QueueUnavailable,
    StreamNotFound,
    UnansweredInterrupts,
    UnknownInterrupt,
)
from gateway.settings import Settings
from gateway.store.log import Log
from gateway.store.record import Record, started
from gateway.streams.create import Creation
from gateway.streams.doubt import doubts_in
from gateway.streams.input_schemas import hold_answer
from gateway.streams.resume import Resume
from gateway.streams.strict_json import shown

_log = logging.getLogger("holdfast.resuming")


class Resuming:
    """Takes answers."""

    def __init__(self, settings: Settings, log: Log, creation: Creation) -> None:
        self._settings = settings
        self._log = log
        self._creation = creation

    async def resume(
        self,
        before: Record,
        given: Resume,
        *,
        traceparent: str = "",
        followed: bool = False,
        claims: Mapping[str, Any] = NO_CLAIMS,
    ) -> Record:
        """The stream that goes on from `before`, which its owner answers; the same for the same answer.

        Raises NotWaiting, AlreadyAnswered, UnknownInterrupt, UnansweredInterrupts, Invalid, OverQuota,
        QueueFull, StoreUnavailable or StreamNotFound. After these nothing has changed.
        """
        new_id = protocol.new_stream_id(before.id)  # beside the other: one script changes both
        if (known := await self._known(before, new_id, given)) is not None:
            return known
        await self._check(before, given)
        try:
            now_ms = await self._creation.admit(before.owner, new_id)
        except (OverQuota, QueueFull):
            if (known := await self._known(before, new_id, given)) is not None:
                return known
            raise
        fields = await self._fields(before, given, traceparent, now_ms, claims)
        if "webhook" in fields:
            await self._creation.note_webhook(before.owner, new_id, is_new=given.webhook is not None)
        tag = protocol.tag_of(protocol.new_token())
        fields["last_id"] = f"0-{tag}"
        frame = sse.encode(started(Record.made(new_id, fields)), 0, tag)
        grace_ms = round(self._settings.queue_grace * 1000)
        word, found, left_ms = await self._log.resume(
            before.id, new_id, given.pending, given.digest, frame, grace_ms, fields
        )
        if found != new_id:
            await self._creation.release(before.owner, new_id)
            return await self._told(word, found, before)
        if left_ms is not None:
            await self._creation.uncount(before.owner, before.id, left_ms)
        record = replace(Record.made(new_id, fields), metadata=before.metadata)  # which the script copies
        telemetry.started.add(1, {"chain": record.chain})
        try:
            await self._creation.send(record, followed)
        except QueueUnavailable:  # the stream is there: nobody is to answer again
            _log.warning("stream %s: its answer is taken, and the queue is out of reach", before.id)
        return record

    async def _known(self, before: Record, new_id: str, given: Resume) -> Record | None:
        """What there is to say before anything is made; None: the answer may be taken."""
        word, found, _ = await self._log.resume(before.id, new_id, given.pending, given.digest)
        if word == "waiting":
            return None
        if word == "unmatched":
            await self._check(before, given)
        return await self._told(word, found, before)

    async def _told(self, word: str, found: str, before: Record) -> Record:
        """The stream that has the same answer, or why there is none."""
        if word == "unknown":
            raise StreamNotFound
        if word == "answered":
            raise AlreadyAnswered(found)
        if word != "resumed":
            raise NotWaiting
        record = (await self._log.look(found, before.owner)).record
        if record is None:
            raise AlreadyAnswered(found)
        return record

    async def _check(self, before: Record, given: Resume) -> None:
        """Whether these are the questions, all of them, and each answer is as its question wants it."""
        if before.questions is None:
            raise NotWaiting
        asked = {one["id"]: one for one in before.questions}
        for name in given.responses:
            if name not in asked:
                raise UnknownInterrupt(f"{shown(name)} is no open question of this stream")
        if left := [name for name in asked if name not in given.responses]:
            raise UnansweredInterrupts(f"also to be answered: {', '.join(left)}")
        for number, (name, value) in enumerate(given.responses.items()):
            schema = asked[name].get("response_schema")
            if schema is not None and name not in given.cancelled:
                await hold_answer(schema, value, f"responses.{number}.response", before.owner)

    async def _fields(
        self, before: Record, given: Resume, traceparent: str, now_ms: int, claims: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The new record's fields, beside those that the script copies."""
        whole, _ = await self._log.record(before.id)
        if whole is None:
            raise StreamNotFound
        kept = [name for name in whole.checkpoints if not name.startswith(" ")]
        fields = self._creation.times(now_ms) | {
            "version": protocol.VERSION,
            "owner": before.owner,
            "chain": before.chain,
            "stages": sse.dumps(self._creation.stages(before.chain) or before.stages),
            "trace": traceparent,
            "resumes": before.id,
            "first": whole.first or before.id,
            "answer": sse.dumps(given.answer()),
            "carried": sse.dumps(kept),
        }
        fields |= {"thread": before.thread} if before.thread else {}
        own = given.webhook
        fields |= whole.webhook if own is None else own.fields(self._settings.webhook_kept_ms)
        fields |= {"unstored": 1} if given.unstored else {}
        fields |= {"graph": sse.dumps({})} if whole.graph is not None else {}
        if doubted := doubts_in(whole.questions or ()):
            fields["doubted"] = sse.dumps(doubted)
        return fields | ({"claims": sse.dumps(dict(claims))} if claims else {})
