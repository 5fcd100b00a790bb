"""Fixtures: one real Redis for the whole run, empty before each test, no everlasting key after."""

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

# Each HTTP client reads the authorities that it would trust, though it will only speak plain HTTP to
# loopback. A machine's hundred and more take 20 ms of processor time; this one, half a millisecond.
os.environ["SSL_CERT_FILE"] = str(AUTHORITY)

# Importing the tests makes millions of objects that stay. The garbage collector would look at them again and
# again: a third of the time that collecting the tests takes.
gc.disable()


def pytest_configure(config: pytest.Config) -> None:
    """As a plugin: what a conftest says of fixtures is not asked for the session's."""
    config.pluginmanager.register(order.Closing())


def pytest_collection_finish() -> None:
    """From here on garbage is collected, of what the tests themselves make."""
    gc.freeze()
    gc.enable()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make stores`."""
    parser.addoption(
        "--stores", action="store_true", help="every store test on every server, and nothing else"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Store tests run on each server."""
    stores.parametrize(metafunc, metafunc.config.getoption("stores"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Microsoft's runtime exists from Python 3.13 on; below, the other host's tests remain. Then: order."""
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
    """`--dist loadfile`, but for the files that share hosts, and in the order of the collection."""
    if config.getvalue("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    scheduler = LoadFileScheduling(config, log)
    scheduler._split_scope = order.group
    return scheduler


@pytest.fixture(scope="session", autouse=True)
def redis_program(request: pytest.FixtureRequest) -> Iterator[str]:
    """The server that is started where a `redis-server` is: its name in tests/stores.py."""
    name = getattr(request, "param", stores.ON_PATH)
    with stores.first_on_path(name):
        yield name


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def redis_server(redis_program: str) -> AsyncIterator[RedisServer]:
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
