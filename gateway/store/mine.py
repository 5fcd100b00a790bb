"""An owner's streams, the newest first: an index in a slot of its own, so that a list needs no search.

An id stands here before its record does, so each stream that exists is listed, whatever dies. An id whose
stream does not come to be, or is gone, is passed over by who reads the list, and dropped some time later.
Every key expires.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from gateway.redis.commands import Commands
from gateway.settings import Settings
from gateway.store.newest import Entry, newest

_AT_ONCE = 500  # ids that one command drops


class Mine:
    """The indexes of all owners. Raises StoreUnavailable."""

    def __init__(self, redis: Commands, settings: Settings) -> None:
        self._redis = redis
        self._keep_ms = round(settings.record_seconds * 1000)
        # Where everybody may ask and nobody is asked who he is, all would share one list.
        self._is_kept = not (settings.is_open and settings.open_to_all == "yes")

    @staticmethod
    def key(owner: str) -> str:
        """Where it stands: a sorted set, ids by when they were made."""
        tag = hashlib.sha256(owner.encode()).hexdigest()[:32]
        return f"{{{tag}}}:mine"

    async def note(self, owner: str, stream_id: str, now_ms: int) -> None:
        """A stream is about to be made."""
        if self._is_kept:
            key = self.key(owner)
            await self._redis.call_all(
                [
                    ("ZADD", key, "NX", now_ms, stream_id),
                    ("ZREMRANGEBYSCORE", key, "-inf", now_ms - self._keep_ms),
                    ("PEXPIRE", key, self._keep_ms),
                ]
            )

    async def forget(self, owner: str, stream_ids: Sequence[str]) -> None:
        """These are not there, or are deleted."""
        for first in range(0, len(stream_ids), _AT_ONCE):
            await self._redis.call("ZREM", self.key(owner), *stream_ids[first : first + _AT_ONCE])

    async def page(self, owner: str, before: Entry | None, most: int) -> list[Entry]:
        """`most` of them, the newest first; `before`: only those behind this one."""
        return await newest(self._redis, self.key(owner), before, most)
