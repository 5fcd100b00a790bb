"""`make bench`: the product's own processes beside the baselines, in turn, in one run.

Every line has a median over the rounds and its spread. The table, the figures and the plots are written to
`bench/results`. `python -m bench NAME ...` measures only what is named; `make bench-full` measures how cost
grows, and what no bar is set for.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Awaitable, Callable
from time import perf_counter

import uvloop

from bench import (
    adapter,
    first_token,
    flood,
    growth,
    idle,
    live,
    machine,
    memory,
    plots,
    replay,
    saturation,
    worker,
)
from bench.machine import RESULTS
from bench.report import Figure, table

Measure = Callable[[int], Awaitable[list[Figure]]]
PARTS: dict[str, tuple[Measure, int]] = {  # each with its number of rounds
    "live": (live.measure, 3),
    "saturation": (saturation.measure, 2),
    "idle": (idle.measure, 1),
    "replay": (replay.measure, 2),
    "first-token": (first_token.measure, 3),
    "worker": (worker.measure, 3),
    "memory": (memory.measure, 1),
}


async def measured(names: list[str]) -> list[Figure]:
    """Run the measurements with these names, one after the other; return all figures."""
    figures: list[Figure] = []
    for name in names:
        measure, rounds = PARTS[name]
        began = perf_counter()
        print(f"{name}, {rounds} rounds", file=sys.stderr, flush=True)
        made = await measure(rounds)
        print(*(figure.row() for figure in made), sep="\n", file=sys.stderr, flush=True)
        print(f"{name} took {perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        figures += made
    return figures


async def main(names: list[str], *, full: bool) -> None:
    """Measure, print the results and write them to files."""
    about = machine.about()
    figures = await measured(names or list(PARTS))
    text = [*about.lines(), "", *table(figures)]
    if full:
        figures += await first_token.on_functions(2)
        text = [*about.lines(), "", *table(figures)]
        curves = await growth.measure()
        text += ["", *growth.tables(curves)]
        text += ["", *await adapter.measure(), "", *await flood.measure()]
        plots.curves(curves)
        (RESULTS / "growth.json").write_text(json.dumps(growth.plain(curves), indent=1) + "\n")
    print("\n".join(text))
    if not names:
        RESULTS.mkdir(exist_ok=True)
        whole = {"about": about.plain(), "figures": [figure.plain() for figure in figures]}
        (RESULTS / "bench.json").write_text(json.dumps(whole, indent=1) + "\n")
        (RESULTS / "bench.md").write_text("\n".join(text) + "\n")
        plots.bars(figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *PARTS], metavar="NAME", help=", ".join(PARTS))
    parser.add_argument("--full", action="store_true", help="also how cost grows")
    given = parser.parse_args()
    uvloop.run(main(given.names, full=given.full))
