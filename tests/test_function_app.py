"""function_app.py in Azure Functions' own runtime: it is indexed, gets requests, and gets queue messages."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from gateway import formats
from gateway.hosts.asgi import ROUTES
from gateway.protocol import new_token
from gateway.queue.job_queue import Message
from gateway.redis.connection import Connection
from gateway.store.log import Log
from tests.functions_host.client import FunctionsHost, HostStartError
from tests.hosts import JOBS, LIMIT_SECONDS, NO_DIRECT_START, NOBODY, Host, functions_environment, until
from tests.support.azurite import Azurite
from tests.support.model_server import ModelServer, script
from tests.support.processes import REPOSITORY
from tests.support.queued import StorageTap
from tests.support.redis_server import RedisServer

pytest_plugins = ("tests.hosts",)
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.functions]

SETTLED = {"ok": True}


@dataclass(frozen=True, slots=True)
class Platform:
    """The Functions host, as client and as platform. Only a test delivers jobs."""

    process: FunctionsHost
    host: Host
    server: RedisServer

    async def deliver(self, body: bytes) -> dict[str, object]:
        """Deliver a message and return the platform's result.

        The platform repeats a delivery that is not ok.
        """
        return await self.process.queue(JOBS, body)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def platform(model: ModelServer) -> AsyncIterator[Platform]:
    async with (
        RedisServer() as server,
        Azurite() as azurite,
        StorageTap(azurite) as tap,
        FunctionsHost(
            REPOSITORY,
            functions_environment(server.url, model, tap.connection) | NO_DIRECT_START,
            anew=True,
        ) as process,
        httpx.AsyncClient(base_url=process.url, timeout=LIMIT_SECONDS) as http,
        Redis.from_url(server.url) as redis,
    ):
        yield Platform(process, Host("functions", http, redis, model, tap), server)


async def test_it_indexes_with_its_queues_and_its_timer(platform: Platform) -> None:
    queues = {f["name"]: f["queueName"] for f in platform.process.functions if f["type"] == "queueTrigger"}
    assert queues == {"holdfast_work": JOBS, "holdfast_give_up": f"{JOBS}-poison"}
    assert [f["name"] for f in platform.process.functions if f["type"] == "timerTrigger"] == [
        "holdfast_sweep"
    ]
    # The function for GET also answers HEAD, except where HEAD has its own function.
    own = sum("HEAD" in route.methods and "GET" not in route.methods for route in formats.ROUTES)
    assert len(platform.process.functions) == sum(method != "HEAD" for method, *_ in ROUTES) + own + 3


async def test_a_stream_goes_through_post_message_and_get(platform: Platform) -> None:
    where = await platform.host.start(["a", "b"])
    assert (await platform.host.status(where))["status"] == "queued"
    assert await platform.deliver(await platform.host.last_message()) == SETTLED
    wire = await platform.host.read(where)
    assert wire.events == ["start", "stage", "message", "message", "stage", "done"]
    assert wire.frames == await platform.host.log(where)


async def test_a_reader_attached_before_the_job_runs_sees_it_live(platform: Platform) -> None:
    where = await platform.host.start(["a"])
    reading = asyncio.create_task(platform.host.read(where))
    await until(lambda: platform.host.redis.pubsub_numsub(f"live:{where[8:]}"), lambda seen: seen[0][1] == 1)
    assert await platform.deliver(await platform.host.last_message()) == SETTLED
    assert (await reading).events[-1] == "done"


async def test_fault_04_the_same_message_at_once_runs_once_and_is_sent_again(platform: Platform) -> None:
    model = platform.host.model
    where = await platform.host.start(["a", "b"], gate="doubled", gate_at=1)
    message, asked = await platform.host.last_message(), len(model.requests)
    first = asyncio.create_task(platform.deliver(message))
    await until(lambda: platform.host.status(where), lambda seen: seen["text"] == "a")
    assert await platform.deliver(message) == SETTLED  # From here on, the queue of held messages exists.
    sent = await platform.host.queued.ever()
    assert await platform.deliver(message) == SETTLED
    # This message is for the case that the job's holder dies.
    assert await platform.host.queued.ever() == sent + 1
    assert await platform.host.last_message() == message
    model.open_gate("doubled")
    assert await first == SETTLED
    assert await platform.deliver(message) == SETTLED  # After the end there is nothing to do.
    assert len(model.requests) == asked + 1
    assert (await platform.host.status(where))["attempt"] == 1


async def test_a_job_that_somebody_else_holds_is_sent_again_until_it_is_free(platform: Platform) -> None:
    where = await platform.host.start(["a"])
    message = await platform.host.last_message()
    stream_id = Message.decode(message).id
    connection = Connection(platform.server.url, name="somebody-else")
    token = new_token()
    assert (await Log(connection).claim(stream_id, token, lease_ms=600_000)).word == "claimed"
    await connection.close()
    sent = await platform.host.queued.ever()
    assert await platform.deliver(message) == SETTLED
    assert await platform.host.queued.ever() == sent + 1
    assert (await platform.host.status(where))["text"] == ""
    await platform.host.redis.hset(Log.keys(stream_id)[0], "lease_end_ms", 0)  # The lease is over now.
    assert await platform.deliver(message) == SETTLED
    document = await platform.host.status(where)
    assert (document["status"], document["text"], document["attempt"]) == ("done", "a", 2)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"v": 1}', b'{"v": 1, "id": "../../x"}', b'{"v": "1", "id": 7}']
)
async def test_fault_05_a_message_that_is_no_job_is_dropped(platform: Platform, body: bytes) -> None:
    assert await platform.deliver(body) == SETTLED


async def test_fault_05_a_message_whose_stream_is_unknown_is_dropped(platform: Platform) -> None:
    assert await platform.deliver(Message(NOBODY).encode()) == SETTLED
    assert not await platform.host.redis.exists(*Log.keys(NOBODY))


async def test_a_failure_of_the_chain_is_told_and_its_message_is_settled(platform: Platform) -> None:
    where = await platform.host.start([], status=400)
    assert await platform.deliver(await platform.host.last_message()) == SETTLED
    assert (await platform.host.status(where))["status"] == "failed"


async def test_a_stream_that_was_cancelled_is_not_run(platform: Platform) -> None:
    asked = len(platform.host.model.requests)
    where = await platform.host.start(["never"])
    assert (await platform.host.http.delete(where)).json()["status"] == "cancelled"
    assert await platform.deliver(await platform.host.last_message()) == SETTLED
    assert len(platform.host.model.requests) == asked


async def test_the_samples_endpoint_is_served(platform: Platform) -> None:
    body = {"user": script(["a"])}
    _, queued = await platform.host.stored()
    posting = asyncio.create_task(platform.host.http.post("/api/http_trigger", json=body))
    await until(platform.host.stored, lambda seen: seen[1] > queued)
    assert await platform.deliver(await platform.host.last_message()) == SETTLED
    assert b'"delta_content":"a"' in (await posting).content


async def test_with_the_store_away_a_message_is_delivered_again(platform: Platform) -> None:
    await platform.host.start(["a"])
    message = await platform.host.last_message()
    await platform.server.kill()
    try:
        assert await platform.deliver(message) == {"ok": False, "error_type": "StoreUnavailable"}
    finally:
        await platform.server.start()
    # The store restarted empty, so there is nothing to run.
    assert await platform.deliver(message) == SETTLED


async def test_metrics_without_a_key_are_refused_there_by_name() -> None:
    settings = {"GATEWAY_QUEUE": "azure-storage", "AzureWebJobsStorage": "UseDevelopmentStorage=true"}
    host = FunctionsHost(REPOSITORY, {**settings, "GATEWAY_METRICS": "prometheus"})
    with pytest.raises(HostStartError, match="GATEWAY_METRICS needs GATEWAY_METRICS_KEY on Azure Functions"):
        await host.__aenter__()
