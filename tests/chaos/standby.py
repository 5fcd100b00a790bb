"""A replica of the store's Redis, behind a link of its own: the link can be held, and what it holds is lost.

Replication is asynchronous: a replica that is promoted may lack the last writes of its primary. The held link
makes that certain.
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
    """A server that is, or will be, the replica of another. Both are somebody else's to start and to stop."""

    def __init__(self, server: RedisServer, primary: RedisServer) -> None:
        self.server = server
        self.primary = primary
        self.link = Proxy(lambda: primary.socket, random.Random(0))

    async def follow(self) -> None:
        """Make the server a replica of the primary; it copies what it needs in its own time."""
        await self.link.__aenter__()
        await _call(self.server, "REPLICAOF", "127.0.0.1", self.link.port)

    async def caught_up(self) -> float:
        """Wait until it can take over. Answers a moment: all that was written before it is there.

        The moment is of `monotonic`. A replica that is writing its append-only file anew cannot take over: a
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
        """It is a primary from now on, and the link is gone with all that it held."""
        self.link.cut(1.0)
        await _call(self.server, "REPLICAOF", "NO", "ONE")
        await self.close()

    async def close(self) -> None:
        """End the link."""
        await self.link.__aexit__()


async def start(server: RedisServer) -> None:
    """Start a server that may be asked for a copy: it begins one at once, and not after five seconds."""
    await server.start()
    await _call(server, "CONFIG", "SET", "repl-diskless-sync-delay", "0")


@asynccontextmanager
async def writes_held(server: RedisServer) -> AsyncIterator[None]:
    """Clients that write wait meanwhile, as in a failover that is planned."""
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
