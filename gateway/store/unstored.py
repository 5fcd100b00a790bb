"""Erases what a stream that was not to be stored has left in its owner's slots.

What stands in the stream's own slot (log, record, idempotency key) expires by itself: the script that ends
the stream has set it so. The rest is named by an entry of its journal, so it goes whatever dies.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.store.conversations import OF_STREAM, Conversations
from gateway.store.journal import JournalEntry
from gateway.store.mine import Mine
from gateway.store.quota import Quota
from gateway.store.threads import Threads


@dataclass(frozen=True, slots=True)
class Eraser:
    """Holds no state. Each step may be made twice."""

    threads: Threads
    conversations: Conversations
    quota: Quota
    mine: Mine

    async def erase(self, entry: JournalEntry) -> None:
        """Delete its checkpoints, what a format keeps, and its places in lists. Raises StoreUnavailable."""
        owner, stream_id = entry.owner, entry.stream_id
        if entry.first:
            await self.threads.forget_own(owner, entry.first)
        also = await self.conversations.also(owner, stream_id)
        await self.conversations.drop(owner, [*also, (OF_STREAM, stream_id)])
        await self.mine.forget(owner, [stream_id])
        await self.quota.forget(owner, {stream_id: (0, 0)})
