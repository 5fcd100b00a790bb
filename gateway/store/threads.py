"""Which thread a stream's checkpoints belong to."""

from __future__ import annotations

from gateway.store.record import Record


def thread_id(record: Record) -> str:
    """The thread that the caller has named; else one of the stream's own, or of the first that it resumes."""
    return record.thread or f"stream:{record.first or record.id}"
