"""Fixtures: one real Redis for the whole run. It is empty before each test, and every key left by a test must
expire."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from xdist.scheduler import LoadFileScheduling

from tests import order, stores
from tests.support.processes import AUTHORITY
from tests.support.redis_server import RedisServer

# Each HTTP client loads the certificate authorities that it trusts, even if it uses only plain HTTP on
# loopback. The hundred and more authorities of a machine cost 20 ms of processor time; this single one costs
# half a millisecond.
os.environ["SSL_CERT_FILE"] = str(AUTHORITY)

# Importing the tests creates millions of objects that are never freed. The garbage collector would scan them
# again and again, which takes a third of the collection time of the tests.
gc.disable()


def pytest_configure(config: pytest.Config) -> None:
    """Register `Closing` as a plugin: the fixture hooks of a conftest are not called for session fixtures."""
    config.pluginmanager.register(order.Closing())


def pytest_collection_finish() -> None:
    """Turn the garbage collector on again, for the objects that the tests create."""
    gc.freeze()
    gc.enable()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for `make stores`."""
    parser.addoption(
        "--stores", action="store_true", help="every store test on every server, and nothing else"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the store tests on each server."""
    stores.parametrize(metafunc, metafunc.config.getoption("stores"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests of Microsoft's runtime below Python 3.13, where only the other host exists; then sort
    the tests."""
    if sys.version_info < (3, 13):
        left_out = [item for item in items if item.get_closest_marker("functions")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    if stores.IS_STAND_IN:
        left_out = [item for item in items if item.get_closest_marker("tls")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    items[:] = [item for item in items if not stores.repeats(item)]
    if config.getoption("stores"):
        config.hook.pytest_deselected(items=[item for item in items if not stores.is_store_test(item)])
        items[:] = [item for item in items if stores.is_store_test(item)]
    order.arrange(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Schedule as `--dist loadfile` does, but keep files that share hosts together, in the order of the
    collection."""
    if config.getvalue("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    scheduler = LoadFileScheduling(config, log)
    scheduler._split_scope = order.group
    return scheduler


@pytest.fixture(scope="session", autouse=True)
def redis_program(request: pytest.FixtureRequest) -> Iterator[str]:
    """Put the server of this parameter (a name in tests/stores.py) first on PATH, where a `redis-server` is
    started."""
    name = getattr(request, "param", stores.ON_PATH)
    with stores.first_on_path(name):
        yield name


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def redis_server(redis_program: str) -> AsyncIterator[RedisServer]:
    """Start the redis-server of the run."""
    async with RedisServer() as server:
        yield server


@pytest.fixture
async def redis_url(redis_server: RedisServer) -> AsyncIterator[str]:
    """Return the URL of the store, which is empty at the start of the test. Every key that a test leaves must
    expire."""
    client = Redis.from_url(redis_server.url)
    await client.flushall()
    yield redis_server.url
    everlasting = [key async for key in client.scan_iter("*") if await client.ttl(key) == -1]
    await client.flushall()
    await client.aclose()
    assert not everlasting


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """Open a Redis client for the test, to inspect the store."""
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()
