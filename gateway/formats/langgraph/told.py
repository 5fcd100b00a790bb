"""How LangGraph's server tells of a run: as JSON, and by the headers that its SDKs go by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode

from gateway import protocol
from gateway.formats.langgraph.projection import RUN_STATUS
from gateway.formats.langgraph.threads import Thread
from gateway.store.record import WAITING, Record


def run(thread: Thread, record: Record) -> dict[str, Any]:
    """A run, as LangGraph's server describes one."""
    return {
        "run_id": record.id,
        "thread_id": thread.name,
        "assistant_id": record.chain,
        "created_at": protocol.iso(record.created_ms),
        "updated_at": protocol.iso(record.ended_ms or record.started_ms or record.created_ms),
        "status": "interrupted" if record.state == WAITING else RUN_STATUS[record.status],
        "metadata": record.metadata or {},
        "kwargs": {},
        "multitask_strategy": "reject",
    }


def path(thread: Thread, record: Record) -> str:
    """Where a run is."""
    return f"/threads/{quote(thread.name, safe='')}/runs/{record.id}"


def stream_path(thread: Thread, record: Record, modes: Sequence[str]) -> str:
    """Where to come back to; without a `Last-Event-ID` nothing has been seen."""
    asked = [*(("stream_mode", mode) for mode in modes), ("last_event_id", "-1")]
    return f"{path(thread, record)}/stream?{urlencode(asked)}"


def located(thread: Thread, record: Record, where: str) -> dict[str, str]:
    """Headers that say so: `location` is where to come back to.

    LangGraph's SDKs put it behind the address that they were given, which has the gateway's path already.
    """
    return {"location": where, "content-location": path(thread, record), "x-stream-id": record.id}
