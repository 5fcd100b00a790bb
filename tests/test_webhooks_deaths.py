"""Who sends a webhook is killed at each step of it: it is delivered all the same, with one id and one body.

Each kind of process is killed: a worker under the Redis queue, and an instance of Azure Functions, whose
timer sends what no live process does.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import httpx
import pytest

from gateway.settings import Settings
from gateway.store.outbox import Outbox
from gateway.streams.service import Gateway
from gateway.streams.start import Start
from gateway.webhooks.asked import Webhook
from tests.functions_host.client import FunctionsHost
from tests.hosts import functions_environment, quick_app, until
from tests.support.azurite import Azurite
from tests.support.dying import POINTS
from tests.support.model_server import ModelServer
from tests.support.processes import GatewayProcess
from tests.support.receiver import Received, Receiver
from tests.support.redis_server import RedisServer

KEYS = "k" * 40
SETTINGS = {
    "GATEWAY_WEBHOOK_KEYS": KEYS,
    "GATEWAY_WEBHOOK_LOOPBACK": "yes",
    "GATEWAY_WEBHOOK_RETRY_SECONDS": "1 1 1",
    "GATEWAY_LEASE_SECONDS": "0.5",
    "GATEWAY_CHAINS": "tests.support.dying",
}
pytest_plugins = ("tests.hosts",)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="session")]


async def ended(store: RedisServer, url: str) -> str:
    """A stream that nobody runs and that was cancelled; the name of its webhook."""
    settings = Settings(redis_url=store.url, webhook_keys=KEYS, webhook_loopback="yes")
    gateway = Gateway(settings, {"chat": ("chat",)})
    try:
        start = Start("chat", {"messages": []}, {}, webhook=Webhook(url))
        record = await gateway.create(start, owner="key:alice")
        await gateway.end(record.id, "key:alice")
    finally:
        await gateway.close()
    return f"{record.id}_cancelled"


async def is_gone(store: RedisServer, name: str) -> None:
    """Nothing is left to be sent."""
    gateway = Gateway(Settings(redis_url=store.url), {})
    try:
        redis = gateway.parts.redis
        entry, outbox, undelivered, *_ = Outbox.keys(name)
        await until(lambda: redis.call("EXISTS", entry, outbox, undelivered), lambda count: count == 0)
    finally:
        await gateway.close()


def holds(received: list[Received]) -> None:
    """One process has died before the answer, one behind it, and the others before or after."""
    assert 1 <= len(received) <= 3
    assert len({(one.id, one.body) for one in received}) == 1
    assert {one.document["type"] for one in received} == {"stream.cancelled"}


async def test_a_worker_that_is_killed_at_each_step_loses_no_webhook(
    tmp_path: Path, model: ModelServer
) -> None:
    async with RedisServer() as store, Receiver() as receiver:
        name = await ended(store, receiver.url())
        environment = {**model.environment(), "REDIS_URL": store.url, "KILLED": str(tmp_path), **SETTINGS}
        for died in range(1, len(POINTS) + 1):
            async with GatewayProcess("worker", environment) as worker:
                assert await worker.ended() == -signal.SIGKILL
            assert len(os.listdir(tmp_path)) == died
        assert sorted(os.listdir(tmp_path)) == sorted(POINTS)
        async with GatewayProcess("worker", environment):
            await is_gone(store, name)
        holds(receiver.received)


async def sweeps(host: FunctionsHost, killed: Path, died: int) -> None:
    """Run its timer until so many have died: what the last one had taken is its own until its lease ends."""
    with contextlib.suppress(httpx.HTTPError):  # the host ends with its worker, maybe before it answers
        await until(lambda: host.timer("holdfast_sweep"), lambda _: len(os.listdir(killed)) >= died)


@pytest.mark.functions
async def test_an_instance_that_is_killed_at_each_step_loses_no_webhook(
    tmp_path: Path, model: ModelServer
) -> None:
    killed, folder = tmp_path / "killed", tmp_path / "app"
    killed.mkdir()
    folder.mkdir()
    async with RedisServer() as store, Receiver() as receiver, Azurite() as azurite:
        name = await ended(store, receiver.url())
        environment = functions_environment(store.url, model, azurite.connection)
        environment |= {"KILLED": str(killed), "PYTHONPATH": str(Path(__file__).parents[1]), **SETTINGS}
        app = quick_app(folder)
        for died in range(1, len(POINTS) + 1):
            async with FunctionsHost(app, environment) as host:
                await sweeps(host, killed, died)
                assert len(os.listdir(killed)) == died
                await host.wait()
        async with FunctionsHost(app, environment) as host:
            await until(lambda: host.timer("holdfast_sweep"), lambda _: bool(receiver.received))
            await is_gone(store, name)
        holds(receiver.received)
