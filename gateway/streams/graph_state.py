"""How a graph stands in a thread, as a host that knows LangGraph tells it. Here nobody does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.redis.commands import Commands
from gateway.streams.room import Share


@dataclass(frozen=True, slots=True)
class GraphState:
    """A checkpoint of a thread: JSON, as LangGraph's server has it."""

    values: Any = field(repr=False)
    next: list[str]
    tasks: list[dict[str, Any]] = field(repr=False)
    interrupts: list[dict[str, Any]] = field(repr=False)
    metadata: Mapping[str, Any] = field(repr=False)
    created_at: str
    run: str  # the stream that has made it
    id: str = ""  # of the checkpoint
    parent: str = ""  # the one that it goes on from; empty: there is none
    size: int = 0  # bytes of memory
    share: Share | None = None  # for them


@dataclass(frozen=True, slots=True)
class StateWanted:
    """Which checkpoints of a thread: this one, or so many, the newest first, and older than `before`."""

    most: int = 1
    before: str = ""
    checkpoint: str = ""
    bytes: int = 1024 * 1024  # no more behind the one that brings them to so many
    metadata: Mapping[str, Any] = field(default_factory=dict)  # only those that have these


Take = Callable[[int], Awaitable[Share]]  # as `Room.take`
# Of the Redis, the owner, the thread, and what gives memory. Raises StoreUnavailable or TooManyReaders.
StateOf = Callable[[Commands, str, str, Take], Awaitable[GraphState | None]]


async def no_state(redis: Commands, owner: str, thread: str, take: Take) -> GraphState | None:
    """Of a process that knows no LangGraph."""
    return None


# The same, of the checkpoints that are wanted.
StatesOf = Callable[[Commands, str, str, Take, StateWanted], Awaitable[Sequence[GraphState]]]


async def no_states(
    redis: Commands, owner: str, thread: str, take: Take, wanted: StateWanted
) -> Sequence[GraphState]:
    """Of a process that knows no LangGraph."""
    return []


# Of a chain's name: LangGraph's drawing of it (`graph`) and its JSON Schemas (`schemas`); None of no graph.
DrawnOf = Callable[[str], Awaitable[Mapping[str, Any] | None]]


async def not_drawn(chain: str) -> Mapping[str, Any] | None:
    """Of a process that knows no LangGraph."""
    return None
