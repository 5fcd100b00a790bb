"""What a thread remembers of chains that are no graphs: the messages that were asked, and the answers.

A graph has its checkpoints instead. What was asked is kept when the run begins, the answer just before the
run's end stands, so a thread whose worker dies in between has the question, and the next attempt gives the
same messages to the chain. A run that has lost its thread's turn remembers nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gateway.protocol.fold import Fold
from gateway.settings import Settings
from gateway.store.record import Record
from gateway.store.threads import Threads, lifetimes
from workers.langchain.shape import is_graph

Messages = Sequence[Mapping[str, Any]]


def has_checkpoints(parts: Mapping[str, Any]) -> bool:
    """Whether the chain, by its parts, is one graph that keeps its own state in a thread."""
    [*runnables] = parts.values()
    return len(runnables) == 1 and is_graph(runnables[0]) and runnables[0].checkpointer is not False


class Said:
    """One run's part of its thread's memory. Raises StoreUnavailable."""

    def __init__(self, threads: Threads, record: Record, settings: Settings) -> None:
        self._threads = threads
        self._record = record
        self._thread_ms, _ = lifetimes(settings)
        self._most_bytes = settings.max_body
        self._most = settings.max_messages

    @property
    def _asked(self) -> Messages | None:
        """This run's own messages; None for an input that is no conversation."""
        asked = self._record.input if self._record.whole else self._record.turn or self._record.input
        messages: Messages | None = asked.get("messages")
        return messages

    async def recalled(self) -> Record:
        """The record, with what was said in the thread before the messages of its input."""
        record, asked = self._record, self._asked
        if asked is None:
            return record
        await self._keep(asked)
        before = [] if record.whole else await self._threads.memory(record.owner, record.thread, record.id)
        messages = _newest([*before, *asked], self._most)
        return replace(record, input={**record.input, "messages": messages})

    async def keep(self, fold: Fold) -> None:
        """What this run has asked, and the answer that stands in its log."""
        if self._asked is not None and fold.text:
            await self._keep([*self._asked, {"role": "assistant", "content": fold.text}])

    async def _keep(self, messages: Messages) -> None:
        bounds = {"thread_ms": self._thread_ms, "most_bytes": self._most_bytes}
        await self._threads.remember(self._record, messages, **bounds)


def _newest(messages: Messages, most: int) -> Messages:
    """The last messages, at most so many; what is cut is cut before a question."""
    if len(messages) <= most:
        return messages
    kept = list(messages[-most:])
    first = next((number for number, one in enumerate(kept) if one["role"] == "user"), 0)
    return kept[first:]
