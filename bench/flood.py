"""Other callers' first token, quiet and while one caller sends fifty times its quota; in one run, in turn.

`python -m bench.flood` prints the table, and so does `make bench`. The flood is a process of its own: as many
POSTs at once as fifty times the streams that a caller may have, then fifty times its starts a minute.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle
from pathlib import Path
from time import perf_counter

import httpx

from gateway.auth import new_key
from gateway.settings import Settings
from tests.support.model_server import ModelServer, script
from tests.support.processes import GatewayProcess
from tests.support.redis_server import RedisServer

TIMES, ROUNDS, SAMPLES = 50, 4, 25
OTHERS = 8  # callers that take turns, each well within its quota
LONGEST_SECONDS = 60.0  # of one flood, whatever happens
QUESTION = {"user": script(["first", *["more "] * 100], pace=0.02)}
AT_ONCE = Settings().max_owner_streams * TIMES
PAUSE_SECONDS = 60 / (Settings().max_owner_starts * TIMES)
FLOODS = "flooding"


def headers_of(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", "accept": "text/event-stream"}


async def first_token_ms(http: httpx.AsyncClient, key: str) -> float:
    """From the POST to the first text event; then the stream is cancelled, so that none gathers."""
    began, seen = perf_counter(), b""
    async with http.stream("POST", "/stream", json=QUESTION, headers=headers_of(key)) as answer:
        async for chunk in answer.aiter_bytes():
            seen += chunk
            if b"first" in seen:
                break
        taken = (perf_counter() - began) * 1000
    answer.raise_for_status()
    (await http.delete(answer.headers["location"], headers=headers_of(key))).raise_for_status()
    return taken


async def flood(url: str, key: str) -> None:
    """Send until the parent closes our stdin, or the time is over; prints how many had which answer."""
    counts: Counter[int] = Counter()
    limits = httpx.Limits(max_connections=AT_ONCE)
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits) as http:

        async def post() -> None:
            answer = await http.post("/stream", json=QUESTION, headers={"authorization": f"Bearer {key}"})
            counts[answer.status_code] += 1

        await asyncio.gather(*(post() for _ in range(AT_ONCE)))
        print(FLOODS, flush=True)
        parent_gone = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        under_way: set[asyncio.Task[None]] = set()
        until = perf_counter() + LONGEST_SECONDS
        while not parent_gone.done() and perf_counter() < until:
            task = asyncio.create_task(post())
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            await asyncio.sleep(PAUSE_SECONDS)
        await asyncio.gather(*under_way)
        print(dict(counts), flush=True)


@asynccontextmanager
async def flooding(url: str, key: str, counts: list[str]) -> AsyncIterator[None]:
    """A flood, under way."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.flood", url, key),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
        assert line.decode().strip() == FLOODS, line
        yield
    finally:
        process.stdin.close()
        counts.append((await process.stdout.read()).decode().strip())
        await process.wait()


async def measure() -> list[str]:
    """The table's lines."""
    made = [new_key(name) for name in ("flood", *(f"other-{number}" for number in range(OTHERS)))]
    (flooder, _), *others = made
    turn = cycle([key for key, _ in others])
    quiet: list[float] = []
    flooded: list[float] = []
    ratios, counts = [], list[str]()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        model, store = await enter(ModelServer()), await enter(RedisServer())
        keys = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "keys"
        keys.write_text("\n".join(line for _, line in made))
        shared = {
            **model.environment(),
            "REDIS_URL": store.url,
            "GATEWAY_AUTH": "keys",
            "GATEWAY_KEYS_FILE": str(keys),
            "GATEWAY_TOKEN_KEYS": "k" * 32,
            "GATEWAY_LOG_LEVEL": "error",
        }
        web = await enter(GatewayProcess("web", shared, anew=True))
        await enter(GatewayProcess("worker", shared, anew=True))
        http = await enter(httpx.AsyncClient(base_url=web.url, timeout=30))
        await first_token_ms(http, next(turn))  # imports, connections
        for _ in range(ROUNDS):
            before = [await first_token_ms(http, next(turn)) for _ in range(SAMPLES)]
            async with flooding(web.url, flooder, counts):
                during = [await first_token_ms(http, next(turn)) for _ in range(SAMPLES)]
            quiet += before
            flooded += during
            ratios.append(statistics.median(during) / statistics.median(before))
    name = f"while one caller sends {TIMES} times its quota"
    return [
        "| other callers' first token | median | worst |",
        "|---|---|---|",
        f"| quiet | {statistics.median(quiet):.1f} ms | {max(quiet):.1f} ms |",
        f"| {name} | {statistics.median(flooded):.1f} ms | {max(flooded):.1f} ms |",
        "",
        f"Ratio of the medians, by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}. "
        f"The flood's answers: {'; '.join(counts)}.",
    ]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(flood(*sys.argv[1:]))
    else:
        print("\n".join(asyncio.run(measure())))
