"""`make bench`: the product's own `web` process and the usual design, side by side in one run.

Live: streams at a steady rate, one reader each, from the append to the reader's receive. Replay: a
finished log, read whole. The producer appends through `gateway.log`, since LangChain would be the bound.
"""

from __future__ import annotations

import asyncio
import platform
import statistics
import subprocess
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from time import perf_counter

from bench import adapter, first_token, flood
from bench.parts import Baseline, Product, Reader, Side, fill

STREAMS, RATE, SECONDS, ROUNDS = 100, 20, 5, 3
REPLAY_EVENTS, REPLAY_READERS = 10_000, (1, 20)


@dataclass
class Row:
    """One line of the table: the product's and the baseline's figures, a pair a round."""

    name: str
    unit: str
    product: list[float] = field(default_factory=list)
    baseline: list[float] = field(default_factory=list)

    def line(self) -> str:
        """The row, with the medians and how much faster the product was."""
        ours, theirs = statistics.median(self.product), statistics.median(self.baseline)
        ratios = [b / a for a, b in zip(self.product, self.baseline, strict=True) if a]
        spread = f"{statistics.median(ratios):.1f} × ({min(ratios):.1f}–{max(ratios):.1f})"
        return f"| {self.name} | {ours:.2f} {self.unit} | {theirs:.2f} {self.unit} | {spread} |"


async def live(side: Side) -> tuple[float, float]:
    """Median and 99th percentile, in milliseconds, of the way from append to receive."""
    ids = [await side.new_stream() for _ in range(STREAMS)]
    readers = [Reader(side.url, stream_id) for stream_id in ids]
    tasks = [asyncio.create_task(reader.run()) for reader in readers]
    await asyncio.gather(*(reader.joined.wait() for reader in readers))

    async def produce(number: int, stream_id: str) -> None:
        await asyncio.sleep(number / STREAMS / RATE)
        for _ in range(RATE * SECONDS):
            began = perf_counter()
            await side.append(stream_id)
            await asyncio.sleep(max(0.0, 1 / RATE - (perf_counter() - began)))
        await side.end(stream_id)

    await asyncio.gather(*(produce(*pair) for pair in enumerate(ids)))
    await asyncio.gather(*tasks)
    taken = sorted(value for reader in readers for value in reader.latencies)
    assert len(taken) == STREAMS * RATE * SECONDS, "an event was lost"
    return taken[len(taken) // 2] * 1000, taken[int(len(taken) * 0.99)] * 1000


async def replay(side: Side, readers: int) -> float:
    """Milliseconds until all readers have the whole of a finished log."""
    stream_id = await side.new_stream()
    await fill(side, stream_id, REPLAY_EVENTS)
    await side.end(stream_id)
    began = perf_counter()
    crowd = [Reader(side.url, stream_id) for _ in range(readers)]
    await asyncio.gather(*(reader.run() for reader in crowd))
    assert all(reader.events >= REPLAY_EVENTS for reader in crowd), "an event was lost"
    return (perf_counter() - began) * 1000


async def measure(product: Side, baseline: Side) -> list[Row]:
    """All rows, the two sides in turn."""
    p50, p99 = Row(f"live, {STREAMS} streams × {RATE}/s: p50", "ms"), Row("the same: p99", "ms")
    replays = [Row(f"replay of {REPLAY_EVENTS:,} events, {n} reader(s)", "ms") for n in REPLAY_READERS]
    for number in range(ROUNDS):
        for side, name in ((product, "product"), (baseline, "baseline")):
            print(f"round {number + 1} of {ROUNDS}: {name}", file=sys.stderr, flush=True)
            middle, high = await live(side)
            getattr(p50, name).append(middle)
            getattr(p99, name).append(high)
            for row, count in zip(replays, REPLAY_READERS, strict=True):
                getattr(row, name).append(await replay(side, count))
    return [p50, p99, *replays]


async def main() -> None:
    async with AsyncExitStack() as stack:
        product = await stack.enter_async_context(Product())
        baseline = await stack.enter_async_context(Baseline())
        rows = await measure(product, baseline)
    print(f"\nPython {platform.python_version()}, {platform.machine()}, commit {commit()}\n")
    print("| | Holdfast | one XREAD loop per reader | ratio (spread) |\n|---|---|---|---|")
    for row in rows:
        print(row.line())
    print("\n" + "\n".join(await first_token.measure()))
    print("\n" + "\n".join(await adapter.measure()))
    print("\n" + "\n".join(await flood.measure()))


def commit() -> str:
    """What was measured."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "none"


if __name__ == "__main__":
    asyncio.run(main())
