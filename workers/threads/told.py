"""A thread's newest checkpoint as LangGraph's server tells a state, without the graph that has made it.

Which nodes come next is read from the channels by which LangGraph triggers them. Channels that are
LangGraph's own are no values, and the product's own metadata are not told.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from langgraph.checkpoint.base import CheckpointTuple

from gateway.redis.commands import Commands
from gateway.runtime.json_pieces import size_of
from gateway.streams.graph_state import GraphState, Take
from gateway.streams.params import PRODUCT
from workers.checkpoints.saver import Saver
from workers.langchain.values import plain

_TRIGGER = "branch:to:"  # before a node's name: the channel that triggers it
_COPIES = 8  # bytes of memory for each byte that is read: its objects, and what is told of them
_INTERRUPT, _ERROR = "__interrupt__", "__error__"


async def read(redis: Commands, owner: str, thread: str, take: Take) -> GraphState | None:
    """The newest checkpoint, or None. Raises StoreUnavailable or TooManyReaders."""
    saver = Saver(redis, owner=owner)
    share = await take(_COPIES * await saver.store.size(thread, ""))
    found = await saver.store.read(thread, "")
    if found is None:
        return None
    state = await asyncio.to_thread(lambda: _told(saver.tuple_of(thread, found)))
    share.keep(state.size)
    return replace(state, share=share)


def _told(found: CheckpointTuple) -> GraphState:
    checkpoint, writes = found.checkpoint, found.pending_writes or []
    values = {
        name: plain(value)
        for name, value in checkpoint["channel_values"].items()
        if not name.startswith("__") and ":" not in name
    }
    upcoming = _next(checkpoint)
    tasks: dict[str, dict[str, Any]] = {}
    for task, channel, value in writes:
        if channel in (_INTERRUPT, _ERROR):
            one = tasks.setdefault(task, {"id": task, "name": "", "error": None, "interrupts": []})
            if channel == _ERROR:
                one["error"] = "the node has failed"
            else:
                one["interrupts"] += [{"id": each.id, "value": plain(each.value)} for each in value]
    if len(upcoming) == 1:
        for one in tasks.values():
            one["name"] = upcoming[0]
    metadata = {name: value for name, value in found.metadata.items() if not name.startswith(PRODUCT)}
    asked = [each for one in tasks.values() for each in one["interrupts"]]
    run, known = str(metadata.get("run_id") or ""), plain(metadata)
    size = size_of([values, upcoming, *tasks.values(), known])
    return GraphState(values, upcoming, list(tasks.values()), asked, known, checkpoint["ts"], run, size)


def _next(checkpoint: Any) -> list[str]:
    """The nodes that are triggered and have not run."""
    versions, seen = checkpoint["channel_versions"], checkpoint["versions_seen"]
    triggered = [name for name in checkpoint["channel_values"] if name.startswith(_TRIGGER)]
    return sorted(
        name.removeprefix(_TRIGGER)
        for name in triggered
        if seen.get(name.removeprefix(_TRIGGER), {}).get(name) != versions.get(name)
    )
