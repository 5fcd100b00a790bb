"""Both hosts without workers, and workers that a test starts and kills: for the clients of other formats.

    async with mortal.worker() as first:
        ...  # start a stream whose script has a gate, until its client has seen what comes before
        await first.kill()
    mortal.model.open_gate(gate)
    async with mortal.worker():
        ...  # until the client has seen the end

A stream whose worker has died is taken over by the next one, by the same process on either host: what
differs is who serves HTTP, and which queue carries the job. Other hosts beside them, on the same queues, end
each connection after a fraction of a second.
PYTEST_DONT_REWRITE: it is imported before pytest meets it as a plugin.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.functions_host.client import FunctionsHost
from tests.hosts import HOST_NAMES, NO_DIRECT_START, functions_environment, quick_app
from tests.support.azurite import Azurite
from tests.support.model_server import ModelServer
from tests.support.processes import GatewayProcess
from tests.support.redis_server import RedisServer

LEASE_SECONDS = "1"
AGE_SECONDS = "0.6"


@dataclass(frozen=True, slots=True)
class Mortal:
    """A host without workers. `url` and `rotating_url` serve the same streams; the hosts at both run no
    jobs."""

    name: str
    url: str
    rotating_url: str
    model: ModelServer
    environment: Mapping[str, str]

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[GatewayProcess]:
        """Start a separate worker. The test can `kill` it; else it stops at the end of the block."""
        async with GatewayProcess("worker", self.environment) as process:
            yield process


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mortals(
    model: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, Mortal]]:
    """Start both hosts, by name."""
    lease = {"GATEWAY_LEASE_SECONDS": LEASE_SECONDS}
    age = {"GATEWAY_STREAM_MAX_AGE_SECONDS": AGE_SECONDS}
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(RedisServer())
        environment = {**model.environment(), "REDIS_URL": store.url, **lease}
        served = [GatewayProcess("web", environment), GatewayProcess("web", environment | age)]
        url, rotating = [(await stack.enter_async_context(process)).url for process in served]
        mortals = {"uvicorn": Mortal("uvicorn", url, rotating, model, environment)}
        if "functions" in HOST_NAMES:
            azurite = await stack.enter_async_context(Azurite())
            other = await stack.enter_async_context(RedisServer())
            environment = (
                functions_environment(other.url, model, azurite.connection) | NO_DIRECT_START | lease
            )
            app = quick_app(tmp_path_factory.mktemp("mortal"))
            hosts = [FunctionsHost(app, environment), FunctionsHost(app, environment | age)]
            url, rotating = [(await stack.enter_async_context(host)).url for host in hosts]
            mortals["functions"] = Mortal("functions", url, rotating, model, environment)
        yield mortals


@pytest.fixture(params=HOST_NAMES)
def mortal(request: pytest.FixtureRequest, mortals: dict[str, Mortal]) -> Mortal:
    """Run the test on each host."""
    name: str = request.param
    return mortals[name]
