"""Erase the data that a stream which must not be stored has left in its owner's slots.

The data in the stream's own slot (log, record, idempotency key) expires by itself: the script that ends the
stream sets the expiry. An entry of the stream's journal names the rest. So the rest is deleted even if a
process dies.
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
    """Erases streams. It has no state. Each step may be repeated."""

    threads: Threads
    conversations: Conversations
    quota: Quota
    mine: Mine

    async def erase(self, entry: JournalEntry) -> None:
        """Delete the stream's checkpoints, the data of its format, and its entries in lists.

        Raises StoreUnavailable.
        """
        owner, stream_id = entry.owner, entry.stream_id
        if entry.first:
            await self.threads.forget_own(owner, entry.first)
        also = await self.conversations.also(owner, stream_id)
        await self.conversations.drop(owner, [*also, (OF_STREAM, stream_id)])
        await self.mine.forget(owner, [stream_id])
        await self.quota.forget(owner, {stream_id: (0, 0)})
