"""The queues of one test: a Redis, and the connections to close."""

from __future__ import annotations

import asyncio

from gateway.queue.redis_queue import RedisQueue
from gateway.redis.connection import Connection

LEASE_MS = 400


class Store:
    """Make queues with one name on one Redis, for any number of consumers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connections: list[Connection] = []

    def queue(self, consumer: str, *, lease_ms: int = LEASE_MS) -> RedisQueue:
        two = [Connection(self.url, name=f"{consumer}-{n}") for n in ("sender", "receiver")]
        self.connections += two
        return RedisQueue(*two, name="jobs", consumer=consumer, lease_ms=lease_ms, keep_ms=60_000)

    async def close(self) -> None:
        await asyncio.gather(*(connection.close() for connection in self.connections))
