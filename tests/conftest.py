"""Fixtures: one real Redis for the whole run, empty before each test, no everlasting key after."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from tests import order
from tests.support.redis_server import RedisServer


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Microsoft's runtime exists from Python 3.13 on; below, the other host's tests remain.

    Groups are marked before xdist looks for them, in a hook of its own.
    """
    if sys.version_info < (3, 13):
        left_out = [item for item in items if item.get_closest_marker("functions")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    order.arrange(items)
    yield


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def redis_server() -> AsyncIterator[RedisServer]:
    """The run's redis-server."""
    async with RedisServer() as server:
        yield server


@pytest.fixture
async def redis_url(redis_server: RedisServer) -> AsyncIterator[str]:
    """Its URL; the store is this test's alone. Every key that a test leaves must expire by itself."""
    client = Redis.from_url(redis_server.url)
    await client.flushall()
    yield redis_server.url
    everlasting = [key async for key in client.scan_iter("*") if await client.ttl(key) == -1]
    await client.flushall()
    await client.aclose()
    assert not everlasting


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of the tests' own, to look behind."""
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()
