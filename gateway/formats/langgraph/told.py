"""Describes a run as LangGraph's server does: as JSON, and in the headers that LangGraph's SDKs read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode

from gateway import protocol
from gateway.formats.langgraph.projection import RUN_STATUS
from gateway.formats.langgraph.threads import Thread
from gateway.store.record import WAITING, Record


def run(thread: Thread, record: Record) -> dict[str, Any]:
    """Return a run's JSON document, in the form of LangGraph's server."""
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
    """Return the path of a run."""
    return f"/threads/{quote(thread.name, safe='')}/runs/{record.id}"


def stream_path(thread: Thread, record: Record, modes: Sequence[str]) -> str:
    """Return the path at which a client reads the run's frames again.

    A request without a `Last-Event-ID` gets all frames from the start.
    """
    asked = [*(("stream_mode", mode) for mode in modes), ("last_event_id", "-1")]
    return f"{path(thread, record)}/stream?{urlencode(asked)}"


def located(thread: Thread, record: Record, where: str) -> dict[str, str]:
    """Return the headers of an answer about a run; `where` is the path that a client requests to reconnect.

    LangGraph's SDKs append `location` to their base address, which already contains the gateway's path.
    """
    return {"location": where, "content-location": path(thread, record), "x-stream-id": record.id}
