"""Answer a graph's question: the answer makes a new stream, which continues where the first one stopped.

Invariant: one step of the store creates both the answer and the new stream. So one of several answers wins,
and the other callers receive the id of the winner's stream. If the queue does not accept the job, the sweeper
enqueues it later.
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
    """Accepts answers."""

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
        """Return the stream that continues `before` with its owner's answer.

        The same answer always returns the same stream.

        Raises NotWaiting, AlreadyAnswered, UnknownInterrupt, UnansweredInterrupts, Invalid, OverQuota,
        QueueFull, StoreUnavailable or StreamNotFound. After these errors nothing has changed.
        """
        # In the same bucket as the first stream, because one script changes both.
        new_id = protocol.new_stream_id(before.id)
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
        # the script copies the metadata
        record = replace(Record.made(new_id, fields), metadata=before.metadata)
        telemetry.started.add(1, {"chain": record.chain})
        try:
            await self._creation.send(record, followed)
        # The new stream exists, so the client must not answer again.
        except QueueUnavailable:
            _log.warning("stream %s: its answer is taken, and the queue is out of reach", before.id)
        return record

    async def _known(self, before: Record, new_id: str, given: Resume) -> Record | None:
        """Return the stream of the same answer, if one exists. None: the answer may be accepted.

        Raises the same errors as `_told` if the answer cannot be accepted.
        """
        word, found, _ = await self._log.resume(before.id, new_id, given.pending, given.digest)
        if word == "waiting":
            return None
        if word == "unmatched":
            await self._check(before, given)
        return await self._told(word, found, before)

    async def _told(self, word: str, found: str, before: Record) -> Record:
        """Return the stream that has the same answer, or raise the reason why there is none."""
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
        """Check that all open questions are answered, and that each answer keeps to its question's schema."""
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
        """Return the new record's fields, except those that the script copies."""
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
