"""Measure the CPU time of the worker process for each chunk of the model, against LangChain's own `astream`.

One side is `python -m gateway worker` with 16 concurrent jobs, each with lease, log and publishing. The other
side is a process that only iterates `ChatOpenAI.astream` over the same answers. The first load is a model
that pauses between chunks, so that each chunk is a separate append. The second load is a model without
pauses.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack

from bench.load import cpu_seconds
from bench.model import model
from bench.report import Figure
from bench.sides import BARE, PRODUCT, WIDE_OPEN
from gateway.protocol import ANONYMOUS, ENDED
from gateway.settings import Settings
from gateway.streams.service import Gateway
from gateway.streams.start import Start
from tests.support.model_server import script
from tests.support.processes import REPOSITORY, GatewayProcess
from tests.support.redis_server import RedisServer

JOBS = 16
MOST = 1.1
# chunks in an answer; pause in seconds
LOADS = {"50 chunks a second each": (200, 0.02), "a model without pauses": (400, 0.0)}


async def measure(rounds: int) -> list[Figure]:
    """Measure microseconds for each chunk, for each load."""
    figures = []
    async with AsyncExitStack() as stack:
        environment = await stack.enter_async_context(model())
        store = await stack.enter_async_context(RedisServer())
        settings = {**environment, **WIDE_OPEN, "REDIS_URL": store.url}
        worker = await stack.enter_async_context(GatewayProcess("worker", settings, anew=True))
        bare = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.bare"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=REPOSITORY,
            env=environment,
        )
        stack.push_async_callback(bare.wait)
        stack.callback(bare.kill)
        gateway = Gateway(Settings(redis_url=store.url), {"chat": ("chat",)})
        stack.push_async_callback(gateway.close)
        for number, (name, (chunks, pause)) in enumerate(LOADS.items()):
            figure = Figure(f"worker, {JOBS} jobs, {name}: CPU a chunk", "µs", f"≤ {MOST} × LangChain alone")
            figure.holds = lambda m: m[PRODUCT] <= MOST * m[BARE]
            question = script(["word "] * chunks, pace=pause)
            for turn in range(rounds + (number == 0)):
                alone, ours = await _alone(bare, question), await _ours(worker, gateway, question)
                if turn or number:  # the first run includes imports and connections
                    figure.note(BARE, alone)
                    figure.note(PRODUCT, ours)
            figures.append(figure)
    return figures


async def _alone(bare: asyncio.subprocess.Process, question: str) -> float:
    assert bare.stdin is not None
    assert bare.stdout is not None
    bare.stdin.write(json.dumps([question] * JOBS).encode() + b"\n")
    told = json.loads(await bare.stdout.readline())
    return float(told["cpu_seconds"] / told["chunks"] * 1e6)


async def _ours(worker: GatewayProcess, gateway: Gateway, question: str) -> float:
    began = cpu_seconds(worker.pid)
    start = Start("chat", {"messages": [{"role": "user", "content": question}]}, {})
    records = [await gateway.create(start, owner=ANONYMOUS) for _ in range(JOBS)]
    chunks = await asyncio.gather(*(_ended(gateway, record.id) for record in records))
    return (cpu_seconds(worker.pid) - began) / sum(chunks) * 1e6


async def _ended(gateway: Gateway, stream_id: str) -> int:
    """Poll until the stream has ended, because a reader would use the processor; return its number of text
    pieces."""
    log = gateway.parts.log
    while (await log.look(stream_id, ANONYMOUS)).record.status not in ENDED:  # type: ignore[union-attr]
        await asyncio.sleep(0.05)
    pieces, after, at_end = 0, None, False
    while not at_end:
        piece = await log.read(stream_id, after)
        pieces += piece.frames.count(b"delta_content")
        after, at_end = piece.last, piece.at_end
    return pieces


async def main() -> None:
    """Print only the lines of this measurement."""
    for figure in await measure(3):
        print(figure.row(), figure.sides)


if __name__ == "__main__":
    asyncio.run(main())
