"""A deployment closes every reader's connection.

All readers reconnect, spread over time, and get exactly the rest.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from time import monotonic

import httpx
import pytest
from redis.asyncio import Redis

from gateway.protocol import sse
from gateway.relay.follow import RETRY_MS
from gateway.store.log import PIECE_BYTES, Log
from tests.support.following import Stream, connected
from tests.support.processes import GatewayProcess

pytestmark = pytest.mark.slow
READERS = 200
BOUND_SECONDS = 90
MAX_AGE_SECONDS = 4.0
YOUNGEST_SECONDS = 3.0
SPREAD_SECONDS = 0.5
LINES = ["x" * 2000] * 100  # About 200 KB of log, so several pieces.


@dataclass(frozen=True, slots=True)
class Visit:
    """One connection, from its request to its clean close."""

    status: int
    retry_ms: int
    frames: bytes
    since_request: float
    since_first_bytes: float


class Crowd:
    """Readers of one stream, each on its own connection."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.received = 0  # Bytes received by all readers.

    async def visit(self, url: str, last_id: str = "") -> Visit:
        """Read one connection to its close.

        Raise httpx.RemoteProtocolError if the connection is cut, not closed.
        """
        headers = {"accept": "text/event-stream"} | ({"last-event-id": last_id} if last_id else {})
        asked, first, received = monotonic(), 0.0, b""
        async with self._client.stream("GET", url, headers=headers) as answer:
            async for chunk in answer.aiter_raw():
                first = first or monotonic()
                received += chunk
                self.received += len(chunk)
        now = monotonic()
        return Visit(answer.status_code, *without_retry(received), now - asked, now - first)

    def visits(self, url: str) -> list[asyncio.Task[Visit]]:
        return [asyncio.create_task(self.visit(url)) for _ in range(READERS)]

    async def has(self, size: int) -> None:
        """Wait until the readers have received this many bytes in total."""
        async with asyncio.timeout(BOUND_SECONDS):
            while self.received < size:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


def without_retry(received: bytes) -> tuple[int, bytes]:
    """Return the value of `retry:` in milliseconds, which comes before the first frame, and the frames."""
    found = re.match(rb"retry: ([0-9]+)\n(?=id: )", received)
    assert found, received[:100]
    return int(found[1]), received[found.end() :].replace(b"\n\n:\n", b"\n\n")


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=BOUND_SECONDS, limits=limits) as client:
        yield Crowd(client)


async def test_fault_16_connections_end_at_ages_that_are_spread_out(redis_url: str, crowd: Crowd) -> None:
    environment = {"REDIS_URL": redis_url, "GATEWAY_STREAM_MAX_AGE_SECONDS": str(MAX_AGE_SECONDS)}
    async with connected(redis_url) as connection, GatewayProcess("web", environment) as web:
        stream = await Stream.create(Log(connection))
        visits = await asyncio.gather(*crowd.visits(f"{web.url}/stream/{stream.id}"))
    assert {visit.status for visit in visits} == {200}
    assert min(visit.since_request for visit in visits) >= YOUNGEST_SECONDS
    ages = [visit.since_first_bytes for visit in visits]
    assert max(ages) <= 3 * MAX_AGE_SECONDS
    assert max(ages) - min(ages) > SPREAD_SECONDS
    retries = {visit.retry_ms for visit in visits}
    assert RETRY_MS[0] <= min(retries) < max(retries) <= RETRY_MS[1]
    assert len(retries) > READERS / 4


async def test_fault_16_all_who_come_back_at_once_get_exactly_the_rest(
    redis_url: str, redis: Redis, crowd: Crowd
) -> None:
    environment = {"REDIS_URL": redis_url}
    async with connected(redis_url) as connection:
        stream = await Stream.create(Log(connection))
        await stream.texts(*LINES)
        before = await stream.log_bytes(redis)
        async with GatewayProcess("web", environment) as old:
            visits = crowd.visits(f"{old.url}/stream/{stream.id}")
            await crowd.has(READERS * len(before))
            assert await old.stop() == 0
            assert [visit.frames for visit in await asyncio.gather(*visits)] == [before] * READERS
        await stream.texts(*LINES)
        await stream.end()
        async with GatewayProcess("web", environment) as new:
            await come_back(crowd, f"{new.url}/stream/{stream.id}", before, await stream.log_bytes(redis))
            assert "Traceback" not in new.log()


async def come_back(crowd: Crowd, url: str, before: bytes, whole: bytes) -> None:
    """Reconnect all readers at once.

    One reader kept all frames it received; the others kept fewer and fewer.
    """
    assert len(whole) - len(before) > 2 * PIECE_BYTES
    kept, frames = [], sse.split_frames(before)
    for number in range(READERS):
        most = max(1, len(frames) * (number + 1) // READERS)
        kept.append(b"".join(frames[:most]))
    last_ids = [sse.split_frames(mine)[-1].split(b"\n")[0].decode().removeprefix("id: ") for mine in kept]
    visits = await asyncio.gather(*(crowd.visit(url, last_id) for last_id in last_ids))
    for mine, visit in zip(kept, visits, strict=True):
        assert visit.status == 200
        assert mine + visit.frames == whole
    assert len({visit.retry_ms for visit in visits}) > READERS / 4
