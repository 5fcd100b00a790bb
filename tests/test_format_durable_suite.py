"""The reading tests of the official conformance suite, on both hosts.

Our own shim does the suite's writing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.store.log import Log
from tests.functions_host.client import FunctionsHost
from tests.hosts import quick_app
from tests.mortals import Mortal
from tests.support.durable_shim import Shim
from tests.support.following import connected
from tests.support.processes import GatewayProcess
from tests.support.programs import NODE, node

pytest_plugins = ("tests.hosts", "tests.mortals")
pytestmark = pytest.mark.asyncio(loop_scope="session")

NAMES, LONG = "durable_conformance.txt", "durable_conformance_long.txt"
REGISTERED = 338  # Number of tests in the suite, in the version that package.json names.
# A long-poll ends at the maximum age of its connection, and the suite waits for some. The suite sends
# requests as a page of this origin.
SETTINGS = {"GATEWAY_STREAM_MAX_AGE_SECONDS": "1.5", "GATEWAY_CORS_ORIGINS": "https://example.com"}

# On Functions the platform answers preflights itself, with its own list.
PREFLIGHT = "Caching and ETag should allow If-None-Match in CORS preflight responses"


def names(*files: str) -> list[str]:
    """Return the names of the tests to run."""
    lines = [line for file in files for line in (NODE / file).read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


@asynccontextmanager
async def serving(mortal: Mortal, folder: Path) -> AsyncIterator[str]:
    """Run another host next to the mortal host, with settings for the suite. Yield its URL."""
    environment = {**mortal.environment, **SETTINGS}
    if mortal.name == "uvicorn":
        async with GatewayProcess("web", environment) as process:
            yield process.url
    else:
        async with FunctionsHost(quick_app(folder), environment) as host:
            yield host.url


async def test_the_reading_tests_of_the_official_suite_pass(mortal: Mortal, tmp_path: Path) -> None:
    files = [NAMES, LONG] if mortal.name == "uvicorn" else [NAMES]
    wanted = names(*files)
    assert len(wanted) == len(set(wanted)) == (114 if LONG in files else 104)
    async with (
        serving(mortal, tmp_path) as url,
        connected(mortal.environment["REDIS_URL"]) as connection,
        Shim(url, Log(connection)) as shim,
    ):
        [told] = await node("durable_conformance.mjs", shim.url, *files)
    platforms = {PREFLIGHT} if mortal.name == "functions" else set()
    assert set(told["failed"]) == platforms, told["failed"]
    assert sorted(told["passed"]) == sorted(set(wanted) - platforms)
    assert told["others"] == REGISTERED - len(wanted)
