"""The gateway answers as LangGraph's own server did in the recorded cases (`make langgraph`).

The same clients call both. `tests/formats/langgraph/README.md` says how cases are written. To record the
answers of LangGraph's server again:
`make langgraph ARGS="--record tests/formats/langgraph/official.json NAME..."`.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.processes import GatewayProcess

FOLDER = Path(__file__).parent / "formats" / "langgraph"
OFFICIAL: dict[str, Any] = json.loads((FOLDER / "official.json").read_text())
SETTINGS = {
    "PYTHONPATH": str(FOLDER),
    "LANGGRAPH_CASES_GRAPHS": "public.graphs",
    "GATEWAY_CHAINS": "conformance.as_chains",
    "GATEWAY_WORKER_CONCURRENCY": "32",
    "GATEWAY_MAX_OWNER_STREAMS": "1000",
    "GATEWAY_MAX_OWNER_STARTS_PER_MINUTE": "100000",
    "OPENAI_API_KEY": "x",
}
# Number of tries of a case, as in the runner. LangGraph's own server does not answer the same each time.
TRIES = 3

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def runner() -> Iterator[Any]:
    """Import the runner's module. Its packages are in a folder that is not on the import path otherwise."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    os.environ["LANGSMITH_TRACING"] = "false"
    try:
        found = importlib.import_module("conformance.runner")
        found.load(["public"])
        yield found
    finally:
        sys.path.remove(str(FOLDER))
        del os.environ["LANGSMITH_TRACING"]
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in ("conformance", "public"):
                del sys.modules[name]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(redis_url_of_module: str) -> AsyncIterator[str]:
    async with GatewayProcess("all", {**SETTINGS, "REDIS_URL": redis_url_of_module}, anew=True) as process:
        yield process.url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def redis_url_of_module() -> AsyncIterator[str]:
    from tests.support.redis_server import RedisServer

    async with RedisServer() as server:
        yield server.url


async def test_some_are_recorded() -> None:
    assert len(OFFICIAL) > 20
    assert not [name for name, saw in OFFICIAL.items() if "raised" in saw]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", sorted(OFFICIAL))
async def test_the_gateway_says_what_langgraphs_own_server_says(name: str, runner: Any, url: str) -> None:
    case = runner.CASES[name]
    async with asyncio.timeout(150):
        for _ in range(TRIES):
            saw = await runner._one(case, url)
            differing = runner._verdict(case, OFFICIAL[name], saw)
            if not differing:
                break
    assert differing == []
