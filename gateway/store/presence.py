"""Detect whether any worker process runs. Each worker writes the same Redis key every few seconds."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from gateway.protocol.errors import StoreUnavailable
from gateway.redis.commands import Commands

TOLD_SECONDS = 15.0
KEPT_SECONDS = 45  # three periods: one late or lost write does not make the workers look gone


class Presence:
    """The key that the workers of one queue write."""

    def __init__(self, redis: Commands, queue_name: str) -> None:
        self._redis = redis
        self._key = "{" + queue_name + "}:workers"

    async def tell(self) -> None:
        """Write the key every TOLD_SECONDS, until this task is cancelled."""
        while True:
            with suppress(StoreUnavailable):
                await self.note()
            await asyncio.sleep(TOLD_SECONDS)

    async def note(self) -> None:
        """Write the key once, to show that this process takes jobs. Raises StoreUnavailable."""
        await self._redis.call("SET", self._key, 1, "EX", KEPT_SECONDS)

    async def seen(self) -> bool:
        """Return whether any process wrote the key within KEPT_SECONDS. Raises StoreUnavailable."""
        return bool(await self._redis.call("EXISTS", self._key))
