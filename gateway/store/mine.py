"""The index of an owner's streams, the newest first.

Its own Redis slot makes a list without a search possible.

An id is added to the index before the record of the stream is written. So each existing stream is listed,
even if a process dies. An id may have no record: the stream was not created, or is deleted. The reader of the
list skips such an id, and the id is removed later. Every key expires.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from gateway.redis.commands import Commands
from gateway.settings import Settings
from gateway.store.newest import Entry, newest

_AT_ONCE = 500  # most ids that one command removes


class Mine:
    """The indexes of all owners. The methods raise StoreUnavailable."""

    def __init__(self, redis: Commands, settings: Settings) -> None:
        self._redis = redis
        self._keep_ms = round(settings.record_seconds * 1000)
        # If the server is open to everybody and does not identify callers, all callers would share one list.
        # So no list is kept.
        self._is_kept = not (settings.is_open and settings.open_to_all == "yes")

    @staticmethod
    def key(owner: str) -> str:
        """Return the key of the index: a sorted set of stream ids, ordered by the time of creation."""
        tag = hashlib.sha256(owner.encode()).hexdigest()[:32]
        return f"{{{tag}}}:mine"

    async def note(self, owner: str, stream_id: str, now_ms: int) -> None:
        """Add a stream that is about to be created."""
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
        """Remove streams that do not exist or are deleted."""
        for first in range(0, len(stream_ids), _AT_ONCE):
            await self._redis.call("ZREM", self.key(owner), *stream_ids[first : first + _AT_ONCE])

    async def page(self, owner: str, before: Entry | None, most: int) -> list[Entry]:
        """Return up to `most` streams, the newest first. `before`: only streams after this entry."""
        return await newest(self._redis, self.key(owner), before, most)
