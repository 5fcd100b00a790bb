"""The state of a graph in a thread.

A host with LangGraph supplies the functions; the ones here do nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.redis.commands import Commands
from gateway.streams.room import Share


@dataclass(frozen=True, slots=True)
class GraphState:
    """A checkpoint of a thread: JSON, in the form of LangGraph's server."""

    values: Any = field(repr=False)
    next: list[str]
    tasks: list[dict[str, Any]] = field(repr=False)
    interrupts: list[dict[str, Any]] = field(repr=False)
    metadata: Mapping[str, Any] = field(repr=False)
    created_at: str
    run: str  # the stream that made this checkpoint
    id: str = ""  # the id of the checkpoint
    parent: str = ""  # the checkpoint before this one; empty: there is none
    size: int = 0  # bytes of memory that the values take
    share: Share | None = None  # the share of memory for these bytes


@dataclass(frozen=True, slots=True)
class StateWanted:
    """Which checkpoints of a thread are wanted.

    Either the one named `checkpoint`, or at most `most`, newest first and older than `before`.
    """

    most: int = 1
    before: str = ""
    checkpoint: str = ""
    # No further checkpoint is read after the total has reached this many bytes.
    bytes: int = 1024 * 1024
    metadata: Mapping[str, Any] = field(default_factory=dict)  # only checkpoints with these metadata


Take = Callable[[int], Awaitable[Share]]  # the signature of `Room.take`
# Called with the Redis, the owner, the thread, and the function that reserves memory. Raises StoreUnavailable
# or TooManyReaders.
StateOf = Callable[[Commands, str, str, Take], Awaitable[GraphState | None]]


async def no_state(redis: Commands, owner: str, thread: str, take: Take) -> GraphState | None:
    """Return None: for a process without LangGraph."""
    return None


# The same, for the checkpoints that are wanted.
StatesOf = Callable[[Commands, str, str, Take, StateWanted], Awaitable[Sequence[GraphState]]]


async def no_states(
    redis: Commands, owner: str, thread: str, take: Take, wanted: StateWanted
) -> Sequence[GraphState]:
    """Return nothing: for a process without LangGraph."""
    return []


# Called with a chain's name. Returns LangGraph's drawing of the chain (`graph`) and its JSON Schemas
# (`schemas`), or None if the chain is not a graph.
DrawnOf = Callable[[str], Awaitable[Mapping[str, Any] | None]]


async def not_drawn(chain: str) -> Mapping[str, Any] | None:
    """Return None: for a process without LangGraph."""
    return None
