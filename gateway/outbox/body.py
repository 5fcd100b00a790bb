"""What a webhook sends: the stream's status document as of the event, made once and then kept as bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from gateway import protocol
from gateway.protocol import Cursor, sse
from gateway.protocol.errors import CursorLost
from gateway.store.log import Log
from gateway.store.outbox import Outgoing
from gateway.store.record import Record
from gateway.store.row import row
from gateway.streams.status import document, fold_of

MOST_BYTES = 65_536  # of what is sent; past it the text is left out, and is to be had from the stream
MOST_LOG_BYTES = 1_048_576  # of a longer log no text is made here
_TRIES = 3


async def body_of(log: Log, entry: Outgoing) -> bytes | None:
    """The bytes, or None where the stream is not there any more. Raises StoreUnavailable."""
    if entry.told:  # it is not to be stored, and perhaps gone: neither text nor metadata is told
        record, size, whole = Record.of(entry.stream_id, entry.told), 0, None
    else:
        found, size = await log.record(entry.stream_id)
        if found is None:
            return None
        record = _as_of(found, entry)
        whole = await _whole(log, record, size)
    for told in (whole, None if whole is None else _without_text(whole), {**row(record), "text": None}):
        if told is None:
            continue
        body = sse.dumps(
            {
                "type": f"stream.{entry.event}",
                "timestamp": protocol.iso(entry.at_ms),
                "data": told,
                **({} if told is whole else {"text_left_out": True}),
            }
        )
        if len(body) <= MOST_BYTES:
            break
    return body


def _as_of(record: Record, entry: Outgoing) -> Record:
    """The record as it was then: a question may have been answered, or taken back, since."""
    if entry.event != "interrupted":
        return record
    questions = json.loads(entry.questions or b"[]")
    return replace(record, questions=questions, resumed_by="", dropped=False)


async def _whole(log: Log, record: Record, size: int) -> dict[str, Any] | None:
    """The status document; None where there is no log any more, or too long a one."""
    if not 0 < size <= MOST_LOG_BYTES or Cursor.parse(record.last_id).offset >= MOST_LOG_BYTES:
        return None
    for _ in range(_TRIES):
        try:
            return document(record, await fold_of(log, record.id))
        except CursorLost:  # the store lost a tail between two pieces of this very read
            continue
    return None


def _without_text(whole: dict[str, Any]) -> dict[str, Any]:
    stages = [{**stage, "text": None} for stage in whole["stages"]]
    return {**whole, "text": None, "stages": stages}
