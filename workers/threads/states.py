"""Read the state of a thread's graph, in a web process that may never have run a graph.

LangGraph is imported, and values are read, in a thread outside the event loop, because both take long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from gateway.redis.commands import Commands
from gateway.streams.graph_state import GraphState, StateWanted, Take


async def state_of(redis: Commands, owner: str, thread: str, take: Take) -> GraphState | None:
    """Return the newest checkpoint of a caller's thread as JSON, or None when there is none.

    Raises StoreUnavailable or TooManyReaders.
    """
    told = await asyncio.to_thread(_reader)
    state: GraphState | None = await told.read(redis, owner, thread, take)
    return state


async def states_of(
    redis: Commands, owner: str, thread: str, take: Take, wanted: StateWanted
) -> Sequence[GraphState]:
    """Return checkpoints of a caller's thread, newest first. Raises StoreUnavailable or TooManyReaders."""
    told = await asyncio.to_thread(_reader)
    found: Sequence[GraphState] = await told.read_many(redis, owner, thread, take, wanted)
    return found


def _reader() -> Any:
    from workers.threads import told

    return told
