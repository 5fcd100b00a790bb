"""Measure the time from POST to the first token for 50 concurrent callers, against the one-function design in
the same place.

Each caller asks, reads the answer to its end (20 tokens, one each 100 ms), and asks again on a new
connection. At twice this pace LangChain alone would use most of a core, and the measurement would show
LangChain's queue. Both sides use the same model server, so the difference is the product's: `python -m
gateway all` against `bench.one_function`. The product's queue is in Redis, or in Storage Queue (Azurite, on
the same cores) with a direct start. `on_functions` measures the same in the tests' Functions host, against a
function app with the one-function design.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from urllib.parse import urlsplit

import orjson
import uvloop

from bench.model import model
from bench.report import Figure
from bench.sides import ONE, PRODUCT, WIDE_OPEN, one_function, product
from tests.functions_host.client import FunctionsHost
from tests.support.azurite import Azurite
from tests.support.model_server import script
from tests.support.processes import REPOSITORY
from tests.support.redis_server import RedisServer

CALLERS, SECONDS, WARM_SECONDS = 50, 6.0, 1.5
TOKENS, PACE_SECONDS = 20, 0.1
MARK = b"first"
QUESTION = orjson.dumps({"user": script([MARK.decode(), *["more "] * (TOKENS - 1)], pace=PACE_SECONDS)})


async def ask(port: int) -> float:
    """Read one answer to its end; return the seconds until its first token."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST /stream HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(QUESTION)}\r\n\r\n"
    )
    began, first, seen = perf_counter(), 0.0, b""
    writer.write(head.encode() + QUESTION)
    while piece := await reader.read(65536):
        seen += piece
        if not first and MARK in seen:
            first = perf_counter() - began
    writer.close()
    await writer.wait_closed()
    assert first, f"an answer without a token: {seen[:300]!r}"
    assert seen.count(b"more ") == TOKENS - 1, "a token was lost"
    return first


async def load(port: int) -> list[float]:
    """Run all callers for some seconds. Return the sorted times in milliseconds, without requests that began
    in the first WARM_SECONDS."""
    taken: list[float] = []
    began = perf_counter()

    async def caller() -> None:
        await asyncio.sleep(random.uniform(0, TOKENS * PACE_SECONDS))
        while (now := perf_counter() - began) < SECONDS:
            first = await ask(port)
            if now > WARM_SECONDS:
                taken.append(first * 1000)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return sorted(taken)


def figures(where: str, bars: tuple[float | None, float | None]) -> list[Figure]:
    """Make the figures for median and 99th percentile. `bars` limits the ratio of each to the one-function
    design."""
    made = []
    for name, most in zip(("median", "p99"), bars, strict=True):
        bar = f"≤ {most:.0f} ms more" if most is not None else ""
        judge = (lambda m, most=most: m[PRODUCT] - m[ONE] <= most) if most is not None else None
        made.append(Figure(f"POST → first token, {CALLERS} callers, {where}: {name}", "ms", bar, judge))
    return made


async def measure(rounds: int) -> list[Figure]:
    """Measure both sides under uvicorn, in turn."""
    embedded, storage = figures("embedded", (5, 15)), figures("Storage Queue, direct start", (15, None))
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        environment, azurite = await enter(model()), await enter(Azurite())
        queue = {
            "GATEWAY_QUEUE": "azure-storage",
            "AzureWebJobsStorage": azurite.connection,
            "GATEWAY_DIRECT_START": "stream",
        }
        theirs = (await enter(one_function(environment))).port
        ours = (await enter(product("all", **environment))).port
        direct = (await enter(product("all", **environment, **queue))).port
        await _rounds(rounds, {PRODUCT: ours, ONE: theirs}, embedded)
        await _rounds(rounds, {PRODUCT: direct, ONE: theirs}, storage)
    return [*embedded, *storage]


async def on_functions(rounds: int) -> list[Figure]:
    """Measure in the Functions host. Every event passes the host's front, and the Storage emulator uses the
    same cores."""
    made = figures("Functions, Storage Queue, direct start", (None, None))
    async with model() as environment, _functions(environment) as ports:
        await _rounds(rounds, ports, made)
    return made


async def _rounds(rounds: int, ports: dict[str, int], into: list[Figure]) -> None:
    for port in ports.values():
        await asyncio.gather(*(ask(port) for _ in range(4)))  # warm up imports and connections
    for _ in range(rounds):
        for side, port in ports.items():
            taken = await load(port)
            into[0].note(side, taken[len(taken) // 2])
            into[1].note(side, taken[int(len(taken) * 0.99)])


@asynccontextmanager
async def _functions(environment: dict[str, str]) -> AsyncIterator[dict[str, int]]:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        store, azurite = await enter(RedisServer()), await enter(Azurite())
        ours = (
            environment
            | WIDE_OPEN
            | {
                "REDIS_URL": store.url,
                "GATEWAY_QUEUE": "azure-storage",
                "GATEWAY_QUEUE_NAME": "holdfast-jobs",
                "GATEWAY_SWEEP_SCHEDULE": "*/15 * * * * *",
                "AzureWebJobsStorage": azurite.connection,
            }
        )
        app = Path(stack.enter_context(TemporaryDirectory()))
        (app / "host.json").write_text((REPOSITORY / "host.json").read_text())
        (app / "function_app.py").write_text(ONE_FUNCTION_APP)
        hosts = {
            PRODUCT: await enter(FunctionsHost(REPOSITORY, ours, listen=True, anew=True)),
            ONE: await enter(FunctionsHost(app, environment, anew=True)),
        }
        yield {side: urlsplit(host.url).port or 0 for side, host in hosts.items()}


# The sample endpoint as a function app.
ONE_FUNCTION_APP = """
import json
from collections.abc import AsyncIterator

import azure.functions as func
from azurefunctions.extensions.http.fastapi import Request, StreamingResponse
from langchain_openai import ChatOpenAI

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
model = ChatOpenAI(model="scripted", stream_usage=True, max_retries=0)


async def tokens(question: str) -> AsyncIterator[str]:
    async for chunk in model.astream([("user", question)]):
        if chunk.content:
            yield f"data: {json.dumps({'deployment': 'm', 'delta_content': chunk.content})}\\n\\n"


@app.route(route="stream", methods=["POST"])
async def stream(req: Request) -> StreamingResponse:
    return StreamingResponse(tokens((await req.json())["user"]), media_type="text/event-stream")
"""


async def main() -> None:
    """Print only the lines of this measurement."""
    for figure in await measure(3):
        print(figure.row())


if __name__ == "__main__":
    uvloop.run(main())
