"""A TCP proxy that acts as the fixed host name of a managed Redis: it connects new clients to the present
primary.

Existing connections stay with their server, as they do when the address behind a name changes. The proxy
counts connections: which client opened a connection, to which server, and which side closed it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Self

from redis.asyncio import Redis

from tests.support.jobs import eventually
from tests.support.redis_server import RedisServer

CHUNK_BYTES = 64 * 1024
_NAMES = {b"holdfast-hub": "hub", b"holdfast-queue": "queue"}


class Name:
    """`async with Name(server) as name`; clients connect to `name.url`. `name.leads_to` changes the server
    later."""

    url = ""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        # Counted by the server's port and by the owner of the connection: `hub`, `queue` (a worker's blocking
        # connection) or `commands`.
        self.opened: Counter[tuple[int, str]] = Counter()
        self.open: Counter[tuple[int, str]] = Counter()  # those connections that are open now
        self.ended_by_server: Counter[tuple[int, str]] = Counter()
        self._answers_left = -1
        self._tasks: set[asyncio.Task[None]] = set()

    def leads_to(self, server: RedisServer) -> None:
        """Send new connections to this server from now on."""
        self._server = server

    def cuts(self, connections: int) -> None:
        """Cut the next `connections` connections for commands, each at its first command after the
        handshake."""
        self._answers_left = connections

    def open_to(self, server: RedisServer) -> int:
        """Return how many connections through this name the server has."""
        return sum(count for (port, _), count in self.open.items() if port == server.port)

    async def __aenter__(self) -> Self:
        self._front = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._front.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._front.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        port, far_writer = self._server.port, None
        try:
            first = await reader.read(CHUNK_BYTES)
            kind = next((kind for name, kind in _NAMES.items() if name in first), "commands")
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            self.opened[port, kind] += 1
            self.open[port, kind] += 1
            try:
                await self._pass_both(port, kind, first, (reader, writer), (far_reader, far_writer))
            finally:
                self.open[port, kind] -= 1
        except OSError:
            pass
        finally:
            for one in (writer, far_writer):
                if one is not None:
                    one.transport.abort()

    async def _pass_both(
        self,
        port: int,
        kind: str,
        first: bytes,
        near: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        far: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        far[1].write(first)
        there = asyncio.create_task(self._requests(kind, near[0], far[1]))
        back = asyncio.create_task(self._answers(port, kind, far[0], near[1]))
        try:
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            there.cancel()
            back.cancel()
            await asyncio.gather(there, back, return_exceptions=True)

    async def _requests(self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            if kind == "commands" and self._answers_left > 0 and b"CLIENT" not in chunk:
                self._answers_left -= 1
                return
            writer.write(chunk)
            await writer.drain()

    async def _answers(
        self, port: int, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
        self.ended_by_server[port, kind] += 1


async def follow(replica: RedisServer, primary: RedisServer) -> None:
    """Make `replica` a replica of `primary`, and wait until it has all data."""
    async with Redis.from_url(replica.url) as redis, Redis.from_url(primary.url) as above:
        await above.config_set("repl-diskless-sync-delay", 0)
        await redis.execute_command("REPLICAOF", "127.0.0.1", primary.port)

        async def in_step() -> bool:
            own, theirs = await redis.info("replication"), await above.info("replication")
            up = own.get("master_link_status") == "up"
            return bool(up and own["slave_repl_offset"] >= theirs["master_repl_offset"])

        await eventually(in_step)


async def promote(replica: RedisServer) -> None:
    """Make the replica a primary."""
    async with Redis.from_url(replica.url) as redis:
        await redis.execute_command("REPLICAOF", "NO", "ONE")


async def switch(primary: RedisServer, replica: RedisServer) -> None:
    """Do a planned failover: no data is lost, and the old primary keeps its connections."""
    async with Redis.from_url(primary.url) as old, Redis.from_url(replica.url) as new:
        await old.execute_command("CLIENT", "PAUSE", 20_000, "WRITE")

        async def in_step() -> bool:
            own, theirs = await new.info("replication"), await old.info("replication")
            return bool(own["slave_repl_offset"] >= theirs["master_repl_offset"])

        await eventually(in_step)
        await new.execute_command("REPLICAOF", "NO", "ONE")
        await old.execute_command("REPLICAOF", "127.0.0.1", replica.port)
        await old.execute_command("CLIENT", "UNPAUSE")
