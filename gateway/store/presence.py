"""Whether any process takes jobs: each says so every few seconds, by one key that all of them share."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from gateway.protocol.errors import StoreUnavailable
from gateway.redis.commands import Commands

TOLD_SECONDS = 15.0
KEPT_SECONDS = 45  # so one word that is late, or lost, does not make the workers look gone


class Presence:
    """The mark of one queue's workers."""

    def __init__(self, redis: Commands, queue_name: str) -> None:
        self._redis = redis
        self._key = "{" + queue_name + "}:workers"

    async def tell(self) -> None:
        """Say again and again that this process takes jobs, until cancelled."""
        while True:
            with suppress(StoreUnavailable):
                await self.note()
            await asyncio.sleep(TOLD_SECONDS)

    async def note(self) -> None:
        """Say once that this process takes jobs. Raises StoreUnavailable."""
        await self._redis.call("SET", self._key, 1, "EX", KEPT_SECONDS)

    async def seen(self) -> bool:
        """Whether some process has said it within KEPT_SECONDS. Raises StoreUnavailable."""
        return bool(await self._redis.call("EXISTS", self._key))
