"""The status document: a record and the fold of its log in one document (`docs/protocol.md`)."""

from __future__ import annotations

from typing import Any

from gateway import protocol
from gateway.protocol import Status, sse
from gateway.protocol.fold import Fold
from gateway.store.log import Log
from gateway.store.record import Record


async def fold_of(log: Log, stream_id: str) -> Fold:
    """Return the fold of the whole log.

    Raises CursorLost when the store loses a tail of the log meanwhile.
    """
    fold, after, at_end = Fold(), None, False
    while not at_end:
        piece = await log.read(stream_id, after)
        for message in sse.Decoder().feed(piece.frames):
            fold.feed(message.id, message.event())
        after, at_end = piece.last, piece.at_end or piece.final
    return fold


def document(record: Record, fold: Fold) -> dict[str, Any]:
    """Return the status document of `docs/protocol.md`.

    It shows the state at the end of the fold, which may be older than the record.
    """
    whole = {
        "id": record.id,
        "status": (fold.ended and record.state) or (Status.RUNNING if record.ended else record.status),
        "chain": record.chain,
        "stages": [stage.document() for stage in fold.stages],
        "text": fold.text,
        "usage": record.usage if fold.usage is None else fold.usage,
        "attempt": record.attempt,
        "last_event_id": fold.last_id,
        "created_at": protocol.iso(record.created_ms),
        "started_at": record.started_ms and protocol.iso(record.started_ms),
        "ended_at": record.ended_ms and fold.ended and protocol.iso(record.ended_ms),
        "metadata": record.metadata,
        "error": fold.error,
        "interrupts": (fold.ended and record.questions) or [],
        "resumes": record.resumes or None,
        "resumed_by": record.resumed_by or None,
        "retries": record.retries or None,
    }
    return whole | ({"usage_lost": fold.usage_lost} if fold.usage_lost else {})
