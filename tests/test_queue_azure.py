"""The Storage queue of workers that are not the platform's, on Azurite."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from azure.storage.queue.aio import QueueClient

from gateway.azure.storage import client_of
from gateway.protocol.errors import QueueUnavailable, StoreUnavailable
from gateway.queue import azure_queue
from gateway.queue.azure_queue import HELD, AzureQueue
from gateway.queue.job_queue import Message
from gateway.settings import Settings
from tests.hosts import JSON, LIMIT_SECONDS, until
from tests.support.azurite import Azurite
from tests.support.certificates import certify
from tests.support.identity_server import HEADER, IdentityServer
from tests.support.model_server import ModelServer, script
from tests.support.processes import GatewayProcess
from tests.support.queued import StorageTap
from tests.support.redis_server import RedisServer
from workers.delivery.consumer import Loop
from workers.delivery.runner import Runner, Settled

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).resolve().parents[1]
LEASE_SECONDS = 1.5
JOB = Message("00" + "A" * 22, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def azurite() -> AsyncIterator[Azurite]:
    async with Azurite() as running:
        yield running


def queue_of(request: pytest.FixtureRequest) -> str:
    """The name of this test's queue."""
    return "q-" + str(request.node.name).replace("_", "-").lower()[:50].strip("-")


def opened(settings: Settings, name: str) -> AzureQueue:
    """One process's view of a queue."""
    clients = client_of(settings, name), client_of(settings, name + HELD)
    return AzureQueue(*clients, poll=0.2, keep=600, lease=LEASE_SECONDS)


@pytest_asyncio.fixture(loop_scope="module")
async def queues(
    azurite: Azurite, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[AzureQueue, AzureQueue]]:
    """Two processes' views of one queue that nobody has made yet."""
    settings = Settings(queue="azure-storage", storage=azurite.connection)
    two = [opened(settings, queue_of(request)) for _ in range(2)]
    yield two[0], two[1]
    for queue in two:
        await queue.close()


async def test_a_message_comes_as_it_was_sent_and_once(queues: tuple[AzureQueue, AzureQueue]) -> None:
    one, other = queues
    await one.enqueue(JOB)
    [delivery] = await other.receive(8)
    assert Message.decode(delivery.body) == JOB
    assert await one.receive(8) == []
    assert await one.depth() == 1
    await other.done(delivery)
    assert await one.depth() == 0


async def test_places_are_those_that_the_service_counts_and_what_this_process_added_since(
    queues: tuple[AzureQueue, AzureQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = queues
    for _ in range(3):
        await other.enqueue(JOB)
    asked = await asyncio.gather(*(one.reserve(str(n), 10, 0) for n in range(20)))
    assert sum(asked) == 7
    monkeypatch.setattr(azure_queue, "COUNT_SECONDS", 0.0)
    assert await one.reserve("x", 10, 6)  # three are there, after all
    assert not await one.reserve("x", 10, 7)


async def test_a_queue_is_made_by_whoever_comes_first(queues: tuple[AzureQueue, AzureQueue]) -> None:
    one, other = queues
    assert await one.depth() == 0
    assert list(await asyncio.gather(one.receive(1), other.receive(1))) == [[], []]
    await asyncio.gather(one.enqueue(JOB), other.enqueue(JOB))
    assert await one.depth() == 2


async def test_later_hides_it_from_all_until_then(queues: tuple[AzureQueue, AzureQueue]) -> None:
    one, other = queues
    await one.enqueue(JOB)
    [delivery] = await one.receive(1)
    await one.later(delivery, 1500)
    began = time.monotonic()
    async with asyncio.timeout(LIMIT_SECONDS):
        while not (found := await other.receive(1)):
            pass
    assert time.monotonic() - began > 1
    await other.done(found[0])


async def test_a_delay_hides_a_new_message(queues: tuple[AzureQueue, AzureQueue]) -> None:
    one, other = queues
    await one.enqueue(JOB, 60_000)
    assert await other.receive(1) == []
    assert await other.depth() == 1


async def test_what_is_held_stays_hidden_beyond_its_time(
    queues: tuple[AzureQueue, AzureQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = queues
    monkeypatch.setattr(azure_queue, "VISIBILITY_SECONDS", 2)
    monkeypatch.setattr(azure_queue, "RENEW_SECONDS", 0.5)
    await one.enqueue(JOB)
    [delivery] = await one.receive(1)
    until_s = time.monotonic() + 5
    while time.monotonic() < until_s:
        assert await other.receive(1) == []
    await one.done(delivery)  # with the receipt of the last renewal
    assert await one.depth() == 0


async def test_what_was_handed_to_another_meanwhile_is_the_others(
    queues: tuple[AzureQueue, AzureQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = queues
    monkeypatch.setattr(azure_queue, "VISIBILITY_SECONDS", 1)
    await one.enqueue(JOB)
    [late] = await one.receive(1)  # and is never renewed: that would be after twenty seconds
    async with asyncio.timeout(LIMIT_SECONDS):
        while not (found := await other.receive(1)):
            pass
    await one.done(late)
    assert await one.depth() == 1
    await other.done(found[0])
    assert await one.depth() == 0


def votes(count: int) -> int:
    """How many instances the platform wants for the trigger (QueueTargetScaler), by the service's count."""
    options = json.loads((ROOT / "host.json").read_text())["extensions"]["queues"]
    at_once = int(options["batchSize"]) + int(options["newBatchThreshold"])
    return math.ceil(count / at_once)


async def test_hidden_messages_do_not_vote_for_instances(
    queues: tuple[AzureQueue, AzureQueue], azurite: Azurite, request: pytest.FixtureRequest
) -> None:
    """The scaler counts all messages of the trigger's queue, as soon as it sees one that is visible."""
    one, other = queues
    deliveries = await asyncio.gather(*(one.enqueue_held(JOB) for _ in range(30)))
    await asyncio.gather(*(one.enqueue(JOB, 60_000) for _ in range(10)))
    await one.enqueue(JOB)
    name = queue_of(request)
    async with (
        QueueClient.from_connection_string(azurite.connection, name) as jobs,
        QueueClient.from_connection_string(azurite.connection, name + HELD) as held,
    ):
        assert len(await jobs.peek_messages(max_messages=32)) == 1
        count = (await jobs.get_queue_properties()).approximate_message_count or 0
        assert (count, votes(count)) == (1, 1)
        assert (await held.get_queue_properties()).approximate_message_count == 40
    assert votes(41) == 4  # what one queue for all would have asked for
    assert await other.depth() == 41  # each is a job of the bound on the queue
    await asyncio.gather(*map(one.done, deliveries))
    assert await other.depth() == 11


async def test_a_held_message_that_nobody_renews_comes_to_another(
    queues: tuple[AzureQueue, AzureQueue],
) -> None:
    one, other = queues
    one.leave(await one.enqueue_held(JOB))
    assert await other.receive(1) == []
    async with asyncio.timeout(LIMIT_SECONDS):
        while not (found := await other.receive(1)):
            pass
    assert Message.decode(found[0].body) == JOB
    await other.done(found[0])
    assert await one.depth() == 0


async def test_a_held_message_that_is_given_back_is_there_at_once(
    queues: tuple[AzureQueue, AzureQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = queues
    monkeypatch.setattr(other, "_look", math.inf)  # nobody releases: it is in the jobs' queue already
    other._looked_at = math.inf
    await one.later(await one.enqueue_held(JOB), 0)
    [delivery] = await other.receive(1)
    await other.done(delivery)
    assert await one.depth() == 0


async def test_a_release_takes_all_that_is_visible_and_leaves_what_is_not(
    queues: tuple[AzureQueue, AzureQueue],
) -> None:
    one, other = queues
    await asyncio.gather(*(one.enqueue(JOB, 1000) for _ in range(40)))  # more than one receive may have
    await one.enqueue(JOB, 60_000)
    released = 0
    async with asyncio.timeout(LIMIT_SECONDS):
        while released < 40:
            released += await other.release()
    assert (released, await other.release()) == (40, 0)
    assert await one.depth() == 41


class Helpless(Runner):
    """With its store out of reach; `twice` is set when it has been asked so often."""

    def __init__(self) -> None:
        self.asked, self.twice = 0, asyncio.Event()

    async def run(self, body: bytes) -> Settled:
        self.asked += 1
        if self.asked == 2:
            self.twice.set()
        raise StoreUnavailable


async def test_what_a_worker_could_not_settle_is_another_ones_though_it_lives(
    queues: tuple[AzureQueue, AzureQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = queues
    monkeypatch.setattr(azure_queue, "VISIBILITY_SECONDS", 1)
    monkeypatch.setattr(azure_queue, "RENEW_SECONDS", 0.3)
    await one.enqueue(JOB)
    helpless = Helpless()
    loop = asyncio.create_task(Loop(one, helpless, concurrency=1).run())
    async with asyncio.timeout(LIMIT_SECONDS):
        await helpless.twice.wait()  # it came again: nobody hid it any more
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    async with asyncio.timeout(LIMIT_SECONDS):
        while not (found := await other.receive(1)):
            pass
    await other.done(found[0])


async def test_without_the_service_it_says_so_in_bounded_time(
    queues: tuple[AzureQueue, AzureQueue], azurite: Azurite
) -> None:
    one, _ = queues
    await one.enqueue(JOB)
    [delivery] = await one.receive(1)
    await azurite.stop()
    began = time.monotonic()
    try:
        calls = (one.enqueue(JOB), one.receive(1), one.depth(), one.done(delivery))
        answers = await asyncio.gather(*calls, return_exceptions=True)
    finally:
        await azurite.start()
    assert [type(answer) for answer in answers] == [QueueUnavailable] * 4
    assert time.monotonic() - began < 3 * azure_queue.SEND_SECONDS
    await one.enqueue(JOB)
    assert len(await one.receive(8)) == 1  # the other is still hidden


async def test_a_worker_that_is_not_the_platforms_runs_jobs_from_it(azurite: Azurite) -> None:
    async with ModelServer() as model, RedisServer() as store:
        environment = {
            **model.environment(),
            "REDIS_URL": store.url,
            "GATEWAY_QUEUE": "azure-storage",
            "AzureWebJobsStorage": azurite.connection,
        }
        async with (
            GatewayProcess("web", environment) as web,
            GatewayProcess("worker", environment),
            httpx.AsyncClient(base_url=web.url, timeout=LIMIT_SECONDS) as http,
        ):
            where = (await http.post("/stream", json={"user": script(["a", "b"])})).headers["location"]

            async def text() -> str:
                return str((await http.get(where, headers=JSON)).json()["text"])

            assert await until(text, lambda seen: seen == "ab") == "ab"


async def test_an_identity_is_let_in_without_a_key(tmp_path: Path) -> None:
    """Azurite with OAuth: over TLS, and with a token of Storage's audience or not at all."""
    authority = certify(tmp_path, "127.0.0.1")
    oauth = (
        "--oauth",
        "basic",
        "--cert",
        str(tmp_path / "server.pem"),
        "--key",
        str(tmp_path / "server.key"),
    )
    async with (
        Azurite(*oauth) as storage,
        IdentityServer() as identity,
        ModelServer() as model,
        RedisServer() as store,
    ):
        environment = {
            **model.environment(),
            **identity.environment(),
            "SSL_CERT_FILE": authority,
            "REDIS_URL": store.url,
            "GATEWAY_QUEUE": "azure-storage",
            "AzureWebJobsStorage__queueServiceUri": storage.endpoint,
            "AzureWebJobsStorage__clientId": "the-storage-identity",
        }
        async with (
            GatewayProcess("web", environment) as web,
            GatewayProcess("worker", environment),
            httpx.AsyncClient(base_url=web.url, timeout=LIMIT_SECONDS) as http,
        ):

            async def start() -> httpx.Response:
                key = {"idempotency-key": "k"}  # a first token and TLS may take a busy machine too long
                return await http.post("/stream", json={"user": script(["a"])}, headers=key)

            where = (await until(start, lambda answer: answer.status_code == 202)).headers["location"]

            async def text() -> str:
                return str((await http.get(where, headers=JSON)).json()["text"])

            assert await until(text, lambda seen: seen == "a") == "a"
        assert {(asked["resource"], asked["client_id"]) for asked in identity.requests} == {
            ("https://storage.azure.com", "the-storage-identity")
        }
        assert HEADER not in web.log()


async def test_a_request_takes_no_thread(
    queues: tuple[AzureQueue, AzureQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread waits for the interpreter for as long as the event loop is busy."""
    one, _ = queues
    await one.enqueue(JOB)  # makes the queue, and connects
    submitted: list[object] = []
    submit = ThreadPoolExecutor.submit

    def noted(pool: ThreadPoolExecutor, work: Callable[..., Any], *args: Any, **more: Any) -> Future[Any]:
        submitted.append(work)
        return submit(pool, work, *args, **more)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", noted)
    delivery = await one.enqueue_held(JOB)
    await one.done(delivery)
    assert submitted == []
    await asyncio.to_thread(int)
    assert len(submitted) == 1


async def test_a_proxy_of_the_operators_is_used(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    async with StorageTap(azurite) as tap:
        monkeypatch.setenv("HTTP_PROXY", tap.url)
        for name in ("http_proxy", "NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        queue = opened(Settings(queue="azure-storage", storage=azurite.connection), "q-proxied")
        try:
            await queue.enqueue(JOB)
        finally:
            await queue.close()
        assert await tap.ever() > 0


async def test_the_emulators_short_name_is_known() -> None:
    client = client_of(Settings(queue="azure-storage", storage="UseDevelopmentStorage=true"), "jobs")
    assert client.url.startswith("http://127.0.0.1:10001/devstoreaccount1/jobs")
    await client.close()
