"""`python -m tests.attackers --seconds 120`, or `--connects 20`: the run, what was seen; 1 if it is bad."""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.attackers import connects
from tests.attackers.run import run

MOST_GROWTH = 64 * 1024 * 1024
P50_TIMES, P99_MORE_MS = 2.0, 50.0


async def attacked(seconds: float) -> int:
    """Run ordinary clients, first alone and then next to attackers."""
    outcome = await run(seconds)
    print(outcome.table())
    quiet, beside = outcome.quiet, outcome.attacked
    for wrong in (quiet.wrong + beside.wrong)[:5]:
        print(f"FAILED: {wrong}")
    good = (
        not (quiet.wrong or beside.wrong or outcome.taken_over)
        and beside.quantile(0.5) <= P50_TIMES * quiet.quantile(0.5)
        and beside.quantile(0.99) <= P99_MORE_MS + quiet.quantile(0.99)
        and all(most - before <= MOST_GROWTH for before, most in outcome.memory.values())
    )
    print("held" if good else "NOT HELD")
    return 0 if good else 1


async def connected(rounds: int) -> int:
    """Open connections to a process that is stopped for seconds at a time."""
    seen = await connects.run(rounds)
    return 0 if set(seen) == {"HTTP/1.1 200 OK"} else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.attackers", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="beside attackers; half of it quiet before"
    )
    parser.add_argument("--connects", type=int, default=0, help="instead: rounds of 5,000 connections")
    given = parser.parse_args()
    sys.exit(asyncio.run(connected(given.connects) if given.connects else attacked(given.seconds)))
