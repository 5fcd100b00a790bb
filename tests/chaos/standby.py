"""A replica of the store's Redis, behind its own link. The link can be held; the data that it holds is lost.

Replication is asynchronous: a promoted replica may lack the last writes of its primary. A held link makes
this certain.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

from redis.asyncio import Redis

from tests.chaos.proxy import Proxy
from tests.support.redis_server import RedisServer

SYNC_SECONDS = 30.0
_LOOK_SECONDS = 0.01


class Standby:
    """A server that is, or will be, the replica of another. The caller starts and stops both."""

    def __init__(self, server: RedisServer, primary: RedisServer) -> None:
        self.server = server
        self.primary = primary
        self.link = Proxy(lambda: primary.socket, random.Random(0))

    async def follow(self) -> None:
        """Make the server a replica of the primary; the copy runs in the background."""
        await self.link.__aenter__()
        await _call(self.server, "REPLICAOF", "127.0.0.1", self.link.port)

    async def caught_up(self) -> float:
        """Wait until the replica can take over. Return a moment: all data written before it is on the
        replica.

        The moment is of `monotonic`. A replica that is rewriting its append-only file cannot take over: a
        kill would leave it empty.
        """
        async with asyncio.timeout(SYNC_SECONDS):
            while True:
                moment = monotonic()
                theirs, own = await _info(self.primary), await _info(self.server)
                if (
                    own["role"] == "slave"
                    and own["master_link_status"] == "up"
                    and own["master_replid"] == theirs["master_replid"]
                    and own["slave_repl_offset"] >= theirs["master_repl_offset"]
                    and not own["aof_rewrite_in_progress"]
                    and not own["aof_rewrite_scheduled"]
                ):
                    return moment
                await asyncio.sleep(_LOOK_SECONDS)

    async def promote(self) -> None:
        """Make it a primary, and close the link with all data that the link held."""
        self.link.cut(1.0)
        await _call(self.server, "REPLICAOF", "NO", "ONE")
        await self.close()

    async def close(self) -> None:
        """Close the link."""
        await self.link.__aexit__()


async def start(server: RedisServer) -> None:
    """Start a server that can be copied: it begins a copy at once, not after five seconds."""
    await server.start()
    await _call(server, "CONFIG", "SET", "repl-diskless-sync-delay", "0")


@asynccontextmanager
async def writes_held(server: RedisServer) -> AsyncIterator[None]:
    """Make clients that write wait during the block, as in a planned failover."""
    await _call(server, "CLIENT", "PAUSE", round(SYNC_SECONDS * 1000), "WRITE")
    try:
        yield
    finally:
        await _call(server, "CLIENT", "UNPAUSE")


async def _info(server: RedisServer) -> dict[str, Any]:
    async with Redis.from_url(server.url) as client:
        found: dict[str, Any] = await client.info("replication", "persistence")
        return found


async def _call(server: RedisServer, *command: str | int) -> None:
    async with Redis.from_url(server.url) as client:
        await client.execute_command(*command)
