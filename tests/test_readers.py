"""Many readers of one web process, on real sockets: what grows with them, and what remains of them."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from gateway.store.log import Log
from tests.support.following import Stream, connected
from tests.support.processes import GatewayProcess

READERS = 1000
STREAMS = 10


async def connect(url: str, stream: Stream) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A GET whose first event has come."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    request = f"GET /stream/{stream.id} HTTP/1.1\r\nHost: {where.netloc}\r\nAccept: text/event-stream\r\n\r\n"
    writer.write(request.encode())
    await reader.readuntil(b"event: start\n")
    return reader, writer


async def disconnect(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


async def connections(redis: Redis) -> list[str]:
    """The names of the gateway's connections."""
    names = [client["name"] for client in await redis.client_list()]
    return sorted(name for name in names if name in ("holdfast", "holdfast-queue", "holdfast-hub"))


async def until_nobody_follows(redis: Redis) -> None:
    async with asyncio.timeout(30):
        while await redis.pubsub_channels("live:*"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_fault_15_redis_connections_do_not_grow_with_readers_and_14_nothing_remains_of_them(
    redis_url: str, redis: Redis
) -> None:
    environment = {"REDIS_URL": redis_url, "GATEWAY_STREAM_MAX_AGE_SECONDS": "0"}
    async with connected(redis_url) as connection, GatewayProcess("web", environment) as web:
        log = Log(connection)
        streams = [await Stream.create(log) for _ in range(STREAMS)]
        _, first = await connect(web.url, streams[0])
        with_one = await connections(redis)
        opened = []
        for beginning in range(0, READERS, 100):
            batch = (connect(web.url, streams[n % STREAMS]) for n in range(beginning, beginning + 100))
            opened += await asyncio.gather(*batch)
        assert len(opened) == READERS
        assert await connections(redis) == with_one
        assert len(with_one) <= 3
        counts = await redis.pubsub_numsub(*(f"live:{stream.id}" for stream in streams))
        assert [count for _, count in counts] == [1] * STREAMS

        await streams[1].texts("for all")
        for reader, _ in opened[1::STREAMS]:
            await asyncio.wait_for(reader.readuntil(b'"for all"'), 30)

        await asyncio.gather(disconnect(first), *(disconnect(writer) for _, writer in opened))
        await until_nobody_follows(redis)
        assert await connections(redis) == with_one

        reader, writer = await connect(web.url, streams[2])
        await streams[2].end()
        await asyncio.wait_for(reader.readuntil(b"event: done\n"), 30)
        await disconnect(writer)
        assert "Traceback" not in web.log()
