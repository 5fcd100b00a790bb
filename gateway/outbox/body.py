"""The body of a webhook: the stream's status document at the time of the event.

It is made once, then stored as bytes.
"""

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

# Most bytes of a body. A larger body is sent without text; the receiver can read the text from the stream.
MOST_BYTES = 65_536
MOST_LOG_BYTES = 1_048_576  # the text of a longer log is left out
_TRIES = 3


async def body_of(log: Log, entry: Outgoing) -> bytes | None:
    """Return the body as bytes, or None if the stream no longer exists. Raises StoreUnavailable."""
    # This stream must not be stored, and may be gone. So the body has neither text nor metadata.
    if entry.told:
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
    """Return the record at the time of the event.

    After the event, a question may have been answered or withdrawn.
    """
    if entry.event != "interrupted":
        return record
    questions = json.loads(entry.questions or b"[]")
    return replace(record, questions=questions, resumed_by="", dropped=False)


async def _whole(log: Log, record: Record, size: int) -> dict[str, Any] | None:
    """Return the status document; None if the log no longer exists, or is too long."""
    if not 0 < size <= MOST_LOG_BYTES or Cursor.parse(record.last_id).offset >= MOST_LOG_BYTES:
        return None
    for _ in range(_TRIES):
        try:
            return document(record, await fold_of(log, record.id))
        except CursorLost:  # the store lost the end of the log during this read
            continue
    return None


def _without_text(whole: dict[str, Any]) -> dict[str, Any]:
    stages = [{**stage, "text": None} for stage in whole["stages"]]
    return {**whole, "text": None, "stages": stages}
