"""`python -m tests.chaos --seconds N [--seed S]`: the run, its table; exit code 1 for a broken promise."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import signal
import sys
from dataclasses import dataclass

from tests.chaos.evidence import keep
from tests.chaos.plan import Stores, kinds, plan, shown
from tests.chaos.report import markdown, table
from tests.chaos.run import run


@dataclass(frozen=True, slots=True)
class Given:
    """The arguments of the command."""

    seed: int
    seconds: float
    stores: Stores
    planned: bool

    @property
    def command(self) -> str:
        """Return the command that starts the same run."""
        words = ["make chaos", f"SECONDS={self.seconds:.0f}", f"SEED={self.seed}", f"STORE={self.stores}"]
        return " ".join([*words, "PLANNED=yes"] if self.planned else words)


async def main(given: Given) -> int:
    """Run and print the result. SIGTERM ends the run as Ctrl-C does: all started processes are stopped."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    logging.getLogger("uvicorn.error").disabled = True  # it would log each connection that the model cuts
    moments = plan(given.seed, given.seconds, kinds(given.stores, planned=given.planned))
    print(f"{given.command}:\n{shown(moments)}\n", flush=True)
    outcome = await run(given.seed, given.seconds, given.stores, planned=given.planned)
    tally = outcome.tally
    for finding in tally.findings:
        print(f"FOUND: {finding}\n", flush=True)
    if tally.findings:
        print(f"{outcome.tails}\n--- what was done\n{outcome.story}", file=sys.stderr)
        print(f"kept in {keep(outcome, given.seed, given.command)}\n")
    print(f"{table(tally, outcome.mangled)}\n\nFor docs/reliability.md:\n\n{markdown(given.seed, tally)}")
    return 1 if tally.findings else 0


def arguments() -> Given:
    """Parse the command line; without a seed use a new one."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="The chaos driver")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults fall")
    parser.add_argument("--seed", type=int, default=None, help="a number; without it a new one")
    parser.add_argument(
        "--store", type=Stores, choices=list(Stores), default=Stores.BOTH, help="how Redis comes back"
    )
    parser.add_argument(
        "--planned", action="store_true", help="also failovers in which the old primary lives on"
    )
    given = parser.parse_args()
    seed = random.randrange(1_000_000) if given.seed is None else given.seed
    return Given(seed, given.seconds, given.store, given.planned)


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(arguments())))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
