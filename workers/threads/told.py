"""Convert a thread's checkpoints to the states of LangGraph's server, without the graph that made them.

The next nodes are read from the channels with which LangGraph triggers nodes. LangGraph's own channels are
not returned as values, and the product's own metadata is not returned.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from langgraph.checkpoint.base import CheckpointTuple

from gateway.redis.commands import Commands
from gateway.runtime.json_pieces import size_of
from gateway.streams.graph_state import GraphState, StateWanted, Take
from gateway.streams.params import PRODUCT
from workers.checkpoints.names import parts_of, unquoted
from workers.checkpoints.saver import Saver
from workers.checkpoints.store import Stored
from workers.langchain.values import plain

_TRIGGER = "branch:to:"  # the prefix of the channel that triggers a node; the node's name follows
_COPIES = 8  # Memory, in bytes, for each byte that is read: for the objects, and for the JSON made of them.
_INTERRUPT, _ERROR, _START, _TASKS = "__interrupt__", "__error__", "__start__", "__pregel_tasks"


async def read(redis: Commands, owner: str, thread: str, take: Take) -> GraphState | None:
    """Return the newest checkpoint, or None. Raises StoreUnavailable or TooManyReaders."""
    return await _read(Saver(redis, owner=owner), thread, "", take)


async def read_many(
    redis: Commands, owner: str, thread: str, take: Take, wanted: StateWanted
) -> Sequence[GraphState]:
    """Return checkpoints, newest first. Raises StoreUnavailable or TooManyReaders."""
    saver = Saver(redis, owner=owner)
    if wanted.checkpoint:
        one = await _read(saver, thread, wanted.checkpoint, take)
        return [] if one is None else [one]
    states: list[GraphState] = []
    size = 0
    async for identity in saver.store.ids(thread, "", wanted.before):
        if len(states) >= wanted.most or size > wanted.bytes:
            break
        state = await _read(saver, thread, parts_of(identity)[1], take)
        if state is None or any(state.metadata.get(k) != v for k, v in wanted.metadata.items()):
            continue
        states.append(state)
        size += state.size
    return states


async def _read(saver: Saver, thread: str, checkpoint: str, take: Take) -> GraphState | None:
    share = await take(_COPIES * await saver.store.size(thread, ""))
    found = await saver.store.read(thread, "", checkpoint)
    if found is None:
        return None
    state = await asyncio.to_thread(lambda: _told(saver.tuple_of(thread, found), found))
    share.keep(state.size)
    return replace(state, share=share)


def _told(found: CheckpointTuple, stored: Stored) -> GraphState:
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
            one = tasks.setdefault(task, _task(task, ""))
            if channel == _ERROR:
                one["error"] = "the node has failed"
            else:
                one["interrupts"] += [{"id": each.id, "value": plain(each.value)} for each in value]
    left = list(upcoming)
    for name, one in zip(_named(stored, list(tasks)) or upcoming, tasks.values(), strict=False):
        one["name"] = name
        if name in left:
            left.remove(name)
    for name in left:
        task = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{checkpoint['id']} {name} {len(tasks)}"))
        tasks[task] = _task(task, name)
    metadata = {name: value for name, value in found.metadata.items() if not name.startswith(PRODUCT)}
    asked = [each for one in tasks.values() for each in one["interrupts"]]
    run, known = str(metadata.get("run_id") or ""), plain(metadata)
    size = size_of([values, upcoming, *tasks.values(), known])
    parent = ((found.parent_config or {}).get("configurable") or {}).get("checkpoint_id") or ""
    told = (values, upcoming, list(tasks.values()), asked, known, checkpoint["ts"], run)
    return GraphState(*told, checkpoint["id"], parent, size)


def _task(task: str, name: str) -> dict[str, Any]:
    told = {"id": task, "name": name, "path": ["__pregel_pull", name], "error": None, "interrupts": []}
    return told | {"checkpoint": None, "state": None, "result": None}


def _named(stored: Stored, tasks: Sequence[str]) -> list[str]:
    """Return the nodes of these tasks, by the paths stored with their writes; or an empty list."""
    names: dict[str, str] = {}
    for name, data in stored.writes.items():
        path = unquoted(data.split(b" ", 1)[0].decode())
        if (parts := path.split(", ")) and parts[0].endswith("__pregel_pull") and len(parts) > 1:
            names[unquoted(name.split("/")[1])] = parts[1]
    return [names[task] for task in tasks] if all(task in names for task in tasks) else []


def _next(checkpoint: Any) -> list[str]:
    """Return the nodes that were triggered and have not run yet."""
    if _START in checkpoint["channel_values"]:
        return [_START]
    sent = [str(getattr(one, "node", "")) for one in checkpoint["channel_values"].get(_TASKS) or ()]
    return sorted([*sent, *_triggered(checkpoint)])


def _triggered(checkpoint: Any) -> list[str]:
    versions, seen = checkpoint["channel_versions"], checkpoint["versions_seen"]
    triggered = [name for name in checkpoint["channel_values"] if name.startswith(_TRIGGER)]
    return [
        name.removeprefix(_TRIGGER)
        for name in triggered
        if seen.get(name.removeprefix(_TRIGGER), {}).get(name) != versions.get(name)
    ]
