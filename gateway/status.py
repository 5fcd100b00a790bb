"""The status document: what a record and the fold of its log say together (`docs/protocol.md`)."""

from __future__ import annotations

from typing import Any, Protocol

from gateway import protocol, sse
from gateway.fold import Fold
from gateway.log import Log
from gateway.protocol import Event, Status
from gateway.record import Record


class Reader(Protocol):
    """Who is fed a log's events: a fold, or a format's projection."""

    @property
    def ended(self) -> Status | None:
        """How the stream has ended, if its terminal event was fed."""

    def feed(self, event_id: str, event: Event) -> object:
        """Take the next event."""


async def replay(log: Log, stream_id: str, reader: Reader) -> None:
    """Have the whole log read. Raises CursorLost when the store loses a tail meanwhile."""
    after, at_end = None, False
    while not at_end:
        piece = await log.read(stream_id, after)
        for message in sse.Decoder().feed(piece.frames):
            reader.feed(message.id, message.event())
        after, at_end = piece.last, piece.at_end or piece.final


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
        "created_at": protocol.iso(record.created_ms),
        "started_at": record.started_ms and protocol.iso(record.started_ms),
        "ended_at": record.ended_ms and fold.ended and protocol.iso(record.ended_ms),
        "metadata": record.metadata,
        "error": fold.error,
    }
