"""How the graph of a thread stands, for a process that serves and may never have run a graph.

LangGraph is imported, and values are read, in a thread beside the event loop: both take long.
"""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.redis.commands import Commands
from gateway.streams.graph_state import GraphState, Take


async def state_of(redis: Commands, owner: str, thread: str, take: Take) -> GraphState | None:
    """The newest checkpoint of a caller's thread, as JSON; None where there is none.

    Raises StoreUnavailable or TooManyReaders.
    """
    read = await asyncio.to_thread(_reader)
    told: GraphState | None = await read(redis, owner, thread, take)
    return told


def _reader() -> Any:
    from workers.threads.told import read

    return read
