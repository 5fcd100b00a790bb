"""Count and read all jobs that were ever sent to a queue, in Redis or in Storage."""

from __future__ import annotations

import asyncio
import base64
import html
import re
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

from redis.asyncio import Redis

from tests.support.azurite import Azurite, connection_string

QUEUE = "{holdfast-jobs}:queue"
CHUNK_BYTES = 64 * 1024
_SENT = re.compile(rb"<MessageText>([^<]*)</MessageText>")


class Queued(Protocol):
    """Access to the jobs in a host's queue."""

    async def last(self) -> bytes:
        """Return the newest job, in the form in which the queue carries it."""

    async def ever(self) -> int:
        """Return how many jobs were ever sent."""


class RedisQueued:
    """Access to the stream of the Redis queue."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def last(self) -> bytes:
        entries: Any = await self._redis.xrevrange(QUEUE, count=1)
        message: bytes = entries[0][1][b"job"]
        return message

    async def ever(self) -> int:
        found: dict[str, int] = await self._redis.xinfo_stream(QUEUE)
        return found["entries-added"]


class StorageTap:
    """A TCP proxy in front of Azurite that records the messages sent to it. The product uses `connection`.

    `cuts`: cut a connection that carries a message before the message arrives.
    """

    def __init__(self, azurite: Azurite) -> None:
        self._azurite = azurite
        self._tasks: set[asyncio.Task[None]] = set()
        self.sent: list[bytes] = []
        self.cuts = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.connection = connection_string(self.url)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def last(self) -> bytes:
        return self.sent[-1]

    async def ever(self) -> int:
        return len(self.sent)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        where = urlsplit(self._azurite.url)
        try:
            upstream, to_upstream = await asyncio.open_connection(where.hostname, where.port)
        except OSError:
            writer.transport.abort()
            return
        ways = (
            self._pass(reader, to_upstream, listening=True),
            self._pass(upstream, writer, listening=False),
        )
        tasks = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in tasks:
                way.cancel()
            writer.transport.abort()  # abort first: an await could be cancelled
            to_upstream.transport.abort()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, listening: bool
    ) -> None:
        kept = b""
        while chunk := await reader.read(CHUNK_BYTES):
            if listening:
                kept += chunk
                end = 0
                for found in _SENT.finditer(kept):
                    self.sent.append(base64.b64decode(html.unescape(found[1].decode())))
                    end = found.end()
                kept = kept[end:][-CHUNK_BYTES:]
                if end and self.cuts:
                    return
            writer.write(chunk)
            await writer.drain()
