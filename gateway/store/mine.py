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

Entry = tuple[int, str]  # when it was made, in ms of Redis's clock, and the stream's id


class Mine:
    """The indexes of all owners. Raises StoreUnavailable."""

    def __init__(self, redis: Commands, settings: Settings) -> None:
        self._redis = redis
        kept = max(settings.retention, settings.thread_seconds) + settings.tombstone
        self._keep_ms = round((settings.open_seconds + kept) * 1000)
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
        if stream_ids:
            await self._redis.call("ZREM", self.key(owner), *stream_ids)

    async def page(self, owner: str, before: Entry | None, most: int) -> list[Entry]:
        """`most` of them, the newest first; `before`: only those behind this one."""
        found: list[Entry] = []
        last, at = "+inf" if before is None else str(before[0]), 0
        while len(found) < most:
            command = ("ZREVRANGEBYSCORE", self.key(owner), last, "-inf", "WITHSCORES", "LIMIT", at, most)
            raw = await self._redis.call(*command)
            pairs = zip(raw[::2], raw[1::2], strict=True)
            items = [(int(float(score)), member.decode()) for member, score in pairs]
            found += [item for item in items if before is None or item < before]
            at += most
            if len(items) < most:
                break
        return found[:most]
