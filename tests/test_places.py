"""The places of one process, taken by direct starts: a real store, and Storage's emulator for the queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from gateway.azure.storage import client_of
from gateway.protocol.errors import QueueUnavailable
from gateway.queue.azure_queue import HELD, AzureQueue
from gateway.queue.job_queue import Message
from gateway.settings import Settings
from tests.support.azurite import Azurite
from tests.support.jobs import BOUND_SECONDS, Jobs, eventually
from tests.support.redis_server import RedisServer
from workers.delivery.capacity import Places

pytestmark = pytest.mark.asyncio(loop_scope="module")
LEASE_SECONDS = 60.0


class Slow(AzureQueue):
    """Its acknowledgement is on its way until `arrives` is set; `sent` tells that it is."""

    def __init__(self, settings: Settings, name: str) -> None:
        clients = client_of(settings, name), client_of(settings, name + HELD)
        super().__init__(*clients, poll=0.2, keep=600, lease=LEASE_SECONDS)
        self.sent, self.arrives = asyncio.Event(), asyncio.Event()
        self.refuses = False

    async def enqueue_held(self, message: Message) -> Any:
        delivery = await super().enqueue_held(message)
        self.sent.set()
        await self.arrives.wait()
        if self.refuses:
            raise QueueUnavailable
        return delivery


class Gated:
    """A chain that says a word when the gate is open."""

    def __init__(self) -> None:
        self.calls, self.gate = 0, asyncio.Event()

    async def __call__(self, given: Any) -> AsyncIterator[str]:
        self.calls += 1
        await self.gate.wait()
        yield "word"


class Desk:
    """What a test has: a queue, places for one job, and streams that wait to be started."""

    def __init__(self, queue: Slow, jobs: Jobs, gated: Gated) -> None:
        self.queue, self.jobs, self.gated = queue, jobs, gated
        self.places = Places(queue, jobs.runner, count=1)

    async def start(self) -> tuple[str, asyncio.Task[bool]]:
        """A stream, and its direct start."""
        stream_id = await self.jobs.stream()
        return stream_id, asyncio.create_task(self.places.start(Message(stream_id)))

    async def visible(self) -> list[str]:
        """The jobs that another worker is handed now."""
        found = await self.queue.receive(8)
        for delivery in found:
            await self.queue.done(delivery)
        return [Message.decode(delivery.body).id for delivery in found]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def azurite() -> AsyncIterator[Azurite]:
    async with Azurite() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store() -> AsyncIterator[RedisServer]:
    async with RedisServer() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def desk(azurite: Azurite, store: RedisServer, request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    """On a queue of the test's own."""
    settings = Settings(queue="azure-storage", storage=azurite.connection)
    name = "q-" + request.node.name.replace("_", "-").lower()[:50].strip("-")
    gated = Gated()
    async with Jobs(store.url, gated, lease=LEASE_SECONDS) as jobs, closing(Slow(settings, name)) as queue:
        yield Desk(queue, jobs, gated)


@asynccontextmanager
async def closing(queue: Slow) -> AsyncIterator[Slow]:
    yield queue
    await queue.close()


async def test_nothing_runs_before_the_queue_has_acknowledged_it(desk: Desk) -> None:
    stream_id, starting = await desk.start()
    await desk.queue.sent.wait()
    assert (await desk.jobs.record(stream_id)).attempt == desk.gated.calls == 0
    desk.queue.arrives.set()
    assert await starting is True
    desk.gated.gate.set()
    assert (await desk.jobs.ended(stream_id)).text == "word"
    await eventually(lambda: empty(desk.queue))


async def test_a_place_is_taken_while_the_message_is_on_its_way_and_while_the_job_runs(desk: Desk) -> None:
    first, starting = await desk.start()
    await desk.queue.sent.wait()
    for _ in range(2):
        _, refused = await desk.start()
        assert await refused is False
        assert desk.places.free == 0
        desk.queue.arrives.set()
        await starting
    assert await desk.queue.depth() == 1  # of those that were refused nothing was sent
    desk.gated.gate.set()
    async with asyncio.timeout(BOUND_SECONDS):
        await desk.places.room()
    assert (await desk.jobs.fold(first)).ended == "done"
    third, starting = await desk.start()
    assert await starting is True
    assert (await desk.jobs.ended(third)).text == "word"


async def test_what_the_queue_does_not_take_is_not_run_and_its_place_is_free(desk: Desk) -> None:
    stream_id, starting = await desk.start()
    await desk.queue.sent.wait()
    room = asyncio.create_task(desk.places.room())
    desk.queue.refuses = True
    desk.queue.arrives.set()
    with pytest.raises(QueueUnavailable):
        await starting
    async with asyncio.timeout(BOUND_SECONDS):
        await room
    assert (desk.places.free, (await desk.jobs.record(stream_id)).attempt) == (1, 0)


async def test_a_start_that_meets_the_stop_is_another_workers_at_once(desk: Desk) -> None:
    stream_id, starting = await desk.start()
    await desk.queue.sent.wait()
    await desk.places.hand_over()
    desk.queue.arrives.set()
    assert await starting is True  # the queue has it
    assert await desk.visible() == [stream_id]
    assert (await desk.jobs.record(stream_id)).attempt == 0
    _, late = await desk.start()
    assert await late is False


async def test_what_runs_at_the_stop_is_another_workers_at_once(desk: Desk) -> None:
    desk.queue.arrives.set()
    stream_id, starting = await desk.start()
    assert await starting is True
    await eventually(lambda: called(desk.gated))
    await desk.places.hand_over()
    assert await desk.visible() == [stream_id]
    assert (await desk.jobs.record(stream_id)).status == "queued"


async def test_a_job_that_somebody_else_holds_is_left_to_come_again(desk: Desk) -> None:
    desk.queue.arrives.set()
    stream_id = await desk.jobs.stream()
    await desk.jobs.claim(stream_id)
    assert await desk.places.start(Message(stream_id)) is True
    async with asyncio.timeout(BOUND_SECONDS):
        await desk.places.room()
    assert (await desk.queue.depth(), await desk.visible(), desk.gated.calls) == (1, [], 0)


async def test_a_queue_that_wakes_its_workers_is_left_as_it_is(desk: Desk) -> None:
    places = Places(desk.jobs.queue, desk.jobs.runner, count=1)
    stream_id = await desk.jobs.stream()
    before = await desk.jobs.queue.depth()
    assert await places.start(Message(stream_id)) is False
    assert await desk.jobs.queue.depth() == before


async def empty(queue: AzureQueue) -> bool:
    return await queue.depth() == 0


async def called(gated: Gated) -> bool:
    return gated.calls == 1
