"""The row of a stream in its owner's list and feed. The values are those of the status document."""

from __future__ import annotations

from typing import Any

from gateway import protocol
from gateway.store.record import Record


def row(record: Record) -> dict[str, Any]:
    """Return the row of a stream for the present record."""
    return {
        "id": record.id,
        "status": record.state,
        "chain": record.chain,
        "thread": record.thread or None,
        "created_at": protocol.iso(record.created_ms),
        "started_at": record.started_ms and protocol.iso(record.started_ms),
        "ended_at": record.ended_ms and protocol.iso(record.ended_ms),
        "metadata": record.metadata,
        "last_event_id": record.last_id,
        "finish_reason": record.finish_reason or None,
        "error": record.error,
        "usage": record.usage,
    }
