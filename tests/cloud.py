"""Instances of the app on Azure's own components: the Functions runtime, Storage's emulator, Redis, and a
model.

A module that uses `cloud` names this module in `pytest_plugins`, together with `tests.hosts`.
PYTEST_DONT_REWRITE: this module is imported before pytest sees it as a plugin.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.queue import QueueMessage
from azure.storage.queue.aio import QueueClient
from redis.asyncio import Redis

from gateway.queue.azure_queue import HELD
from tests.functions_host.client import FunctionsHost
from tests.hosts import JOBS, JSON, LIMIT_SECONDS, functions_environment, quick_app, until
from tests.support.azurite import Azurite
from tests.support.model_server import ModelServer, script
from tests.support.redis_server import RedisServer

LEASE_SECONDS = 2
HELD_JOBS = JOBS + HELD
# A chain that kills its process, as a crash in a C library does.
DEADLY = """
import os
from langchain_core.runnables import RunnableLambda
from workers.chains.registry import chain

@chain("deadly")
def deadly(settings):
    return RunnableLambda(lambda given: os._exit(9))
"""


@dataclass
class Cloud:
    """The environment of the app: Storage, Redis, a model, and the deployed folder."""

    azurite: Azurite
    store: RedisServer
    model: ModelServer
    app: Path
    redis: Redis

    @asynccontextmanager
    async def running(self, *, listen: bool = True, **settings: str) -> AsyncIterator[Instance]:
        """Start one instance of the app."""
        environment = {
            **functions_environment(self.store.url, self.model, self.azurite.connection),
            "GATEWAY_LEASE_SECONDS": str(LEASE_SECONDS),
            "GATEWAY_QUEUE_GRACE_SECONDS": "2",
            "GATEWAY_CHAINS": "deadly",
            **settings,
        }
        async with (
            FunctionsHost(self.app, environment, listen=listen) as host,
            httpx.AsyncClient(base_url=host.url, timeout=LIMIT_SECONDS) as http,
        ):
            yield Instance(host, http)

    @asynccontextmanager
    async def queue(self, name: str = JOBS) -> AsyncIterator[QueueClient]:
        """Open a queue client for the test."""
        async with QueueClient.from_connection_string(self.azurite.connection, name) as client:
            yield client

    async def visible(self, name: str = JOBS) -> list[bytes]:
        """Return the messages that any receiver could get now."""
        async with self.queue(name) as client:
            try:
                found = await client.peek_messages(max_messages=32)
            except ResourceNotFoundError:
                return []
            return [decoded(message) for message in found]

    async def gone(self) -> None:
        """Wait until no message is left, including hidden messages."""
        try:
            await until(self.depth, lambda depth: depth == 0)
        except TimeoutError:
            left = {name: (await self.count(name), await self.visible(name)) for name in (JOBS, HELD_JOBS)}
            raise AssertionError(
                f"messages are left, (how many, those that are not hidden): {left}"
            ) from None

    async def depth(self) -> int:
        """Return the number of messages in the queue of held messages and in the jobs' queue, including
        hidden messages.

        The queues are counted in this order: a message moves from the first to the second, and is in both for
        a moment.
        """
        return await self.count(HELD_JOBS) + await self.count(JOBS)

    async def count(self, name: str) -> int:
        """Return how many messages the service counts in a queue, including hidden ones. The platform scales
        by this number."""
        async with self.queue(name) as client:
            try:
                return (await client.get_queue_properties()).approximate_message_count or 0
            except ResourceNotFoundError:
                return 0  # the queue was not created yet

    async def clear(self) -> None:
        """Delete every message."""
        for name in (JOBS, HELD_JOBS):
            async with self.queue(name) as client:
                with suppress(ResourceNotFoundError):
                    await client.clear_messages()


@dataclass(frozen=True, slots=True)
class Instance:
    """A running host and its HTTP client."""

    host: FunctionsHost
    http: httpx.AsyncClient

    async def start(self, chunks: list[str], **options: Any) -> str:
        answer = await self.http.post("/stream", json={"user": script(chunks, **options)})
        assert answer.status_code == 202, answer.text
        return answer.headers["location"]

    async def status(self, where: str) -> dict[str, Any]:
        document: dict[str, Any] = (await self.http.get(where, headers=JSON)).json()
        return document

    async def until(self, where: str, right: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        ask: Callable[[], Awaitable[dict[str, Any]]] = lambda: self.status(where)  # noqa: E731
        return await until(ask, right)


def decoded(message: QueueMessage) -> bytes:
    """Return the body of a job's message."""
    return b64decode(message.content)


def ended(document: dict[str, Any]) -> bool:
    return document["status"] not in ("queued", "running")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cloud(model: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cloud]:
    app = quick_app(tmp_path_factory.mktemp("app"))
    (app / "deadly.py").write_text(DEADLY)
    async with (
        Azurite() as azurite,
        RedisServer(aof=True) as store,
        Redis.from_url(store.url) as redis,
    ):
        yield Cloud(azurite, store, model, app, redis)
