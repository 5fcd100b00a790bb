"""How a graph stands in a thread, as a host that knows LangGraph tells it. Here nobody does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.redis.commands import Commands
from gateway.streams.room import Share


@dataclass(frozen=True, slots=True)
class GraphState:
    """The newest checkpoint of a thread: JSON, as LangGraph's server has it."""

    values: Any = field(repr=False)
    next: list[str]
    tasks: list[dict[str, Any]] = field(repr=False)
    interrupts: list[dict[str, Any]] = field(repr=False)
    metadata: Mapping[str, Any] = field(repr=False)
    created_at: str
    run: str  # the stream that has made it
    size: int = 0  # bytes of memory
    share: Share | None = None  # for them


Take = Callable[[int], Awaitable[Share]]  # as `Room.take`
# Of the Redis, the owner, the thread, and what gives memory. Raises StoreUnavailable or TooManyReaders.
StateOf = Callable[[Commands, str, str, Take], Awaitable[GraphState | None]]


async def no_state(redis: Commands, owner: str, thread: str, take: Take) -> GraphState | None:
    """Of a process that knows no LangGraph."""
    return None
