"""Keep the messages of a thread for chains that are not graphs: the questions and the answers.

A graph has its checkpoints instead. The question is stored when the run begins. The answer is stored just
before the end of the run is stored. So if the worker dies in between, the thread has the question, and the
next attempt gives the same messages to the chain. A run that has lost the turn of its thread stores nothing.
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
    """Return whether the chain is one graph that keeps its own state in a thread."""
    [*runnables] = parts.values()
    return len(runnables) == 1 and is_graph(runnables[0]) and runnables[0].checkpointer is not False


class Said:
    """The messages that one run adds to the memory of its thread. Raises StoreUnavailable."""

    def __init__(self, threads: Threads, record: Record, settings: Settings) -> None:
        self._threads = threads
        self._record = record
        self._thread_ms, _ = lifetimes(settings)
        self._most_bytes = settings.max_body
        self._most = settings.max_messages

    @property
    def _asked(self) -> Messages | None:
        """Return this run's own messages, or None for an input that is not a conversation."""
        asked = self._record.input if self._record.whole else self._record.turn or self._record.input
        messages: Messages | None = asked.get("messages")
        return messages

    async def recalled(self) -> Record:
        """Return the record with the thread's earlier messages put before the messages of its input."""
        record, asked = self._record, self._asked
        if asked is None:
            return record
        await self._keep(asked)
        before = [] if record.whole else await self._threads.memory(record.owner, record.thread, record.id)
        messages = _newest([*before, *asked], self._most)
        return replace(record, input={**record.input, "messages": messages})

    async def keep(self, fold: Fold) -> None:
        """Store the question of this run and the answer in its log."""
        if self._asked is not None and fold.text:
            await self._keep([*self._asked, {"role": "assistant", "content": fold.text}])

    async def _keep(self, messages: Messages) -> None:
        bounds = {"thread_ms": self._thread_ms, "most_bytes": self._most_bytes}
        await self._threads.remember(self._record, messages, **bounds)


def _newest(messages: Messages, most: int) -> Messages:
    """Return at most `most` of the last messages. The result begins with a question, if it has one."""
    if len(messages) <= most:
        return messages
    kept = list(messages[-most:])
    first = next((number for number, one in enumerate(kept) if one["role"] == "user"), 0)
    return kept[first:]
