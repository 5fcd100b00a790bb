"""Measure saturation: the highest rate of events in 500 streams with one reader each, at a p99 below 250 ms.

Each side tries increasing rates, one run for each rate, until a rate fails twice (events are missing or
late).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from bench.live import Asked, Run, on_the_floor, over_redis, sides
from bench.report import Figure
from bench.sides import FLOOR, PRODUCT, USUAL

STREAMS, SECONDS = 500, 3.0
P99_MS = 250.0
LADDERS = {  # rates to try, in events a second for each stream
    PRODUCT: (160, 200, 320, 400, 500, 640, 800),
    USUAL: (2, 4, 6, 8, 12, 20),
    FLOOR: (40, 80, 120, 160, 200),
}
Climb = Callable[[Asked], Awaitable[Run]]


async def measure(rounds: int) -> list[Figure]:
    """Return events a second, Redis round trips for each event, and the server's CPU, all at the highest
    rate."""
    most = Figure(
        f"most events a second, {STREAMS} streams, a reader each, p99 < {P99_MS:.0f} ms",
        "/s",
        "≥ 30 × the usual design's; aim: 100,000",
        lambda m: m[PRODUCT] >= 30 * m[USUAL],
        digits=0,
    )
    trips = Figure("round trips to Redis an event, there", "", "≤ 0.3", lambda m: m[PRODUCT] <= 0.3, digits=3)
    cpu = Figure("CPU of the server a million events, there", "s")
    begin = dict.fromkeys(LADDERS, 0)
    async with sides() as (ours, theirs):
        runs: dict[str, Climb] = {
            PRODUCT: partial(over_redis, ours),
            USUAL: partial(over_redis, theirs),
            FLOOR: on_the_floor,
        }
        for _ in range(rounds):
            for side, run in runs.items():
                rung, best = await climb(side, run, begin[side])
                begin[side] = max(0, rung - 1)  # the next round starts at the rate where this one ended
                most.note(side, best.delivered)
                cpu.note(side, best.cpu_per_million)
                if side != FLOOR:
                    trips.note(side, best.round_trips)
    return [most, trips, cpu]


async def climb(side: str, run: Climb, first: int) -> tuple[int, Run]:
    """Return the highest rate that passes and its run. Start at rate `first`; go down if that rate fails."""
    ladder, best, rung = LADDERS[side], None, first
    while rung < len(ladder):
        for _ in range(2):  # a shared machine may pause for a moment
            made = await run(Asked(STREAMS, STREAMS, ladder[rung], SECONDS))
            if held := made.load.p99 < P99_MS and made.delivered >= STREAMS * ladder[rung]:
                break
        if held:
            best, rung = (rung, made), rung + 1
        elif best is not None or rung == 0:
            break
        else:
            rung -= 1
    if best is None:  # even the lowest rate fails: report what was delivered
        return 0, made
    return best


async def main() -> None:
    """Print only the lines of this measurement."""
    for figure in await measure(2):
        print(figure.row())


if __name__ == "__main__":
    asyncio.run(main())
