"""`python -m tests.chaos --seconds N [--seed S]`: the run, its table; exit code 1 for a broken promise."""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys

from tests.chaos.plan import plan, shown
from tests.chaos.report import table
from tests.chaos.run import run


async def main(seed: int, seconds: float) -> int:
    """Run, and say what was seen. SIGTERM ends it as Ctrl-C does: everything started is stopped."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    print(f"seed {seed}, {seconds:.0f} s of faults:\n{shown(plan(seed, seconds))}\n", flush=True)
    outcome = await run(seed, seconds)
    if outcome.tails:
        print(outcome.tails, file=sys.stderr)
    for finding in outcome.tally.findings:
        print(f"FOUND: {finding}\n", flush=True)
    print(table(outcome.tally, outcome.mangled))
    return 1 if outcome.tally.findings else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="The chaos driver")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults fall")
    parser.add_argument("--seed", type=int, default=None, help="a number; without it a new one")
    given = parser.parse_args()
    chosen = random.randrange(1_000_000) if given.seed is None else given.seed
    try:
        sys.exit(asyncio.run(main(chosen, given.seconds)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
