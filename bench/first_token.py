"""From POST to the first text event: by the Redis queue, by Storage Queue on Functions, and without us.

The baseline asks the model itself. Each sample comes after an idle pause of up to 3 s, because the
platform's polling of a Storage Queue backs off while nothing comes (`host.json`, maxPollingInterval).
"""

from __future__ import annotations

import asyncio
import random
import statistics
from contextlib import AsyncExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import httpx

from tests.functions_host.client import FunctionsHost
from tests.hosts import functions_environment
from tests.support.azurite import Azurite
from tests.support.model_server import ModelServer, script
from tests.support.processes import REPOSITORY, GatewayProcess
from tests.support.redis_server import RedisServer

SAMPLES, LONGEST_IDLE_SECONDS = 15, 3.0
TIMEOUT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Way:
    """A way to the first token."""

    name: str
    url: str
    body: dict[str, Any]
    mark: bytes  # what the first token's bytes contain

    async def seconds(self, http: httpx.AsyncClient) -> float:
        """From the request until the first token is here."""
        began, seen = perf_counter(), b""
        headers = {"accept": "text/event-stream"}
        async with http.stream("POST", self.url, json=self.body, headers=headers) as answer:
            async for chunk in answer.aiter_bytes():
                seen += chunk
                if self.mark in seen:
                    return perf_counter() - began
        raise AssertionError("the answer ended without a token")


async def measure() -> list[str]:
    """The table's lines: median and worst in milliseconds, and the median's ratio to the baseline's."""
    async with AsyncExitStack() as stack:
        ways, http = await _ways(stack)
        taken: dict[str, list[float]] = {way.name: [] for way in ways}
        for way in ways:
            await way.seconds(http)  # imports, connections
        for _ in range(SAMPLES):
            await asyncio.sleep(random.uniform(0, LONGEST_IDLE_SECONDS))
            for way in random.sample(ways, len(ways)):
                taken[way.name].append(await way.seconds(http) * 1000)
    base = statistics.median(taken[ways[0].name])
    lines = ["| first token after an idle pause | median | worst | × the model alone |", "|---|---|---|---|"]
    for name, all_ms in taken.items():
        middle = statistics.median(all_ms)
        lines.append(f"| {name} | {middle:.1f} ms | {max(all_ms):.1f} ms | {middle / base:.1f} |")
    return lines


async def _ways(stack: AsyncExitStack) -> tuple[list[Way], httpx.AsyncClient]:
    model = await stack.enter_async_context(ModelServer())
    store = await stack.enter_async_context(RedisServer())
    azurite = await stack.enter_async_context(Azurite())
    shared = {**model.environment(), "REDIS_URL": store.url}
    web = await stack.enter_async_context(GatewayProcess("web", shared, anew=True))
    await stack.enter_async_context(GatewayProcess("worker", shared, anew=True))
    environment = functions_environment(store.url, model, azurite.connection)
    host = await stack.enter_async_context(FunctionsHost(REPOSITORY, environment, listen=True))
    http = await stack.enter_async_context(httpx.AsyncClient(timeout=TIMEOUT_SECONDS))
    said = script(["first", "second"])
    direct = {"model": "scripted", "stream": True, "messages": [{"role": "user", "content": said}]}
    ours = {"user": said}
    return [
        Way("the model itself", f"{model.url}/v1/chat/completions", direct, b"first"),
        Way("Redis queue, web and worker apart", f"{web.url}/stream", ours, b"first"),
        Way("Storage Queue, Functions host", f"{host.url}/stream", ours, b"first"),
    ], http
