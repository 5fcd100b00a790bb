"""Measure the first token of other callers in three cases: quiet, one caller uses its quota, one caller sends
fifty times its quota.

`python -m bench.flood` and `make bench` print the table. All three cases are in one run, in turn. The flood
runs in a separate process. It first sends many POSTs at once: the multiple of the number of streams that a
caller may have. Then it sends the same multiple of the starts that a caller may have in a minute. The model's
server (`bench.model`) runs in a separate process too.
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

from bench.model import model
from gateway.callers.auth import new_key
from gateway.settings import Settings
from tests.support.model_server import script
from tests.support.processes import GatewayProcess
from tests.support.redis_server import RedisServer

TIMES, ROUNDS, SAMPLES = 50, 4, 25
OTHERS = 8  # callers that take turns; each stays well below its quota
LONGEST_SECONDS = 60.0  # limit for one flood
QUESTION = {"user": script(["first", *["more "] * 100], pace=0.02)}
FLOODS = "flooding"


def headers_of(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", "accept": "text/event-stream"}


async def first_token_ms(http: httpx.AsyncClient, key: str) -> float:
    """Return the time from the POST to the first text event. Then cancel the stream, so that streams do not
    pile up."""
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


async def flood(url: str, key: str, times: int) -> None:
    """Send requests until the parent closes stdin or the time limit is reached; print the count of each
    answer status."""
    counts: Counter[int] = Counter()
    at_once = Settings().max_owner_streams * times
    limits = httpx.Limits(max_connections=at_once)
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits) as http:

        async def post() -> None:
            answer = await http.post("/stream", json=QUESTION, headers={"authorization": f"Bearer {key}"})
            counts[answer.status_code] += 1

        await asyncio.gather(*(post() for _ in range(at_once)))
        print(FLOODS, flush=True)
        parent_gone = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        under_way: set[asyncio.Task[None]] = set()
        until = perf_counter() + LONGEST_SECONDS
        while not parent_gone.done() and perf_counter() < until:
            task = asyncio.create_task(post())
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            await asyncio.sleep(60 / (Settings().max_owner_starts * times))
        await asyncio.gather(*under_way)
        print(dict(counts), flush=True)


@asynccontextmanager
async def apart(*arguments: str, rest: list[str]) -> AsyncIterator[str]:
    """Run this module in a separate process. Yield its first line of output; store the other lines in `rest`
    at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.flood", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        first = (await process.stdout.readline()).decode().strip()
        assert first, "it ended before it began"
        yield first
    finally:
        process.stdin.close()
        rest.append((await process.stdout.read()).decode().strip())
        await process.wait()


async def measure() -> list[str]:
    """Return the lines of the table."""
    made = [new_key(name) for name in ("flood", *(f"other-{number}" for number in range(OTHERS)))]
    (flooder, _), *others = made
    turn = cycle([key for key, _ in others])
    # key: the multiple of its quota that one caller sends
    taken: dict[int, list[float]] = {0: [], 1: [], TIMES: []}
    answers: list[str] = []
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        environment, store = await enter(model()), await enter(RedisServer())
        keys = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "keys"
        keys.write_text("\n".join(line for _, line in made))
        shared = {
            **environment,
            "REDIS_URL": store.url,
            "GATEWAY_AUTH": "keys",
            "GATEWAY_KEYS_FILE": str(keys),
            "GATEWAY_TOKEN_KEYS": "k" * 32,
            "GATEWAY_LOG_LEVEL": "error",
        }
        web = await enter(GatewayProcess("web", shared, anew=True))
        await enter(GatewayProcess("worker", shared, anew=True))
        http = await enter(httpx.AsyncClient(base_url=web.url, timeout=30))
        await first_token_ms(http, next(turn))  # warm up imports and connections
        for _ in range(ROUNDS):
            for times, all_ms in taken.items():
                async with AsyncExitStack() as sent:
                    if times:
                        sending = apart("flood", web.url, flooder, str(times), rest=answers)
                        await sent.enter_async_context(sending)
                    all_ms += [await first_token_ms(http, next(turn)) for _ in range(SAMPLES)]
    names = ("quiet", "while one caller sends its quota", f"while it sends {TIMES} times its quota")
    lines = ["| other callers' first token | median | × quiet | worst |", "|---|---|---|---|"]
    for name, all_ms in zip(names, taken.values(), strict=True):
        median = statistics.median(all_ms)
        ratio = median / statistics.median(taken[0])
        lines.append(f"| {name} | {median:.1f} ms | {ratio:.2f} | {max(all_ms):.1f} ms |")
    return [*lines, "", f"What it was answered, round by round: {'; '.join(answers)}."]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["flood", url, key, times]:
            asyncio.run(flood(url, key, int(times)))
        case _:
            print("\n".join(asyncio.run(measure())))
