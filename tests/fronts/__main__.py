"""Run front ends that others wrote against the gateway, and print what each could do.

    make fronts ARGS="[NAME...]"

A cell is `passed`, `FAILED` with what was seen, or why the client cannot. README.md has the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.fronts.cases import CASES, FRONTS, Program, Served, Tested
from tests.fronts.packages import packages
from tests.support.model_server import ModelServer
from tests.support.processes import REPOSITORY, GatewayProcess
from tests.support.redis_server import RedisServer

PASSED, FAILED = "passed", "FAILED"


async def run_programs(fronts: Sequence[Program]) -> dict[str, dict[str, str]]:
    """The cells of these front ends, on one gateway."""
    found: dict[str, dict[str, str]] = {}
    places = packages()
    async with ModelServer() as model, RedisServer() as store:
        chains = {"GATEWAY_CHAINS": "tests.support.agui_chains"}
        async with GatewayProcess(
            "all", {**model.environment(), "REDIS_URL": store.url, **chains}
        ) as process:
            served = Served(process.url.rstrip("/"), model, places)
            for front in fronts:
                found[front.name] = {case: await _cell(served, front, case) for case in CASES}
    return found


async def _cell(served: Served, front: Program, name: str) -> str:
    case = front.cases.get(name, "")
    if isinstance(case, str):
        return case
    try:
        await case(served, front)
    except (AssertionError, TimeoutError) as error:
        return f"{FAILED}: {' '.join(str(error).split())[:300] or type(error).__name__}"
    return PASSED


def run_tests(front: Tested) -> dict[str, str]:
    """The cells of a front end that tests run: a case has passed where all of its tests have."""
    nodes = sorted({node for cell in front.cases.values() if not isinstance(cell, str) for node in cell})
    files = sorted({node.partition("::")[0] for node in nodes})
    wanted = " or ".join(node.partition("::")[2] for node in nodes)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = (
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report}",
            "-k",
            wanted,
        )
        subprocess.run([*command, *files], cwd=REPOSITORY, stdout=subprocess.DEVNULL, check=False)
        seen = _seen(report)
    return {case: _judged(front.cases.get(case, ""), seen) for case in CASES}


def _seen(report: Path) -> Mapping[str, bool]:
    """Each test that ran, and whether it has passed."""
    found: dict[str, bool] = {}
    for one in ElementTree.parse(report).getroot().iter("testcase"):
        name = f"{one.get('classname', '').replace('.', '/')}.py::{one.get('name')}"
        found[name] = one.find("failure") is None and one.find("error") is None
    return found


def _judged(cell: Sequence[str] | str, seen: Mapping[str, bool]) -> str:
    if isinstance(cell, str):
        return cell
    for node in cell:
        passed = [is_right for name, is_right in seen.items() if name.startswith(node)]
        if not passed or not all(passed):
            return f"{FAILED}: {node}"
    return PASSED


def main() -> int:
    """Print the table; 1 where a cell has failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fronts", description=__doc__)
    parser.add_argument("names", nargs="*", help="front ends whose names hold one of these words")
    words = parser.parse_args().names
    fronts = [one for one in FRONTS if not words or any(word in one.name for word in words)]
    cells = asyncio.run(run_programs([one for one in fronts if isinstance(one, Program)]))
    cells |= {one.name: run_tests(one) for one in fronts if isinstance(one, Tested)}
    print(f"| client | version | {' | '.join(CASES)} |\n|{'---|' * (len(CASES) + 2)}")
    for one in fronts:
        print(f"| {one.name} | {one.version} | {' | '.join(cells[one.name].values())} |")
    return any(cell.startswith(FAILED) for row in cells.values() for cell in row.values())


if __name__ == "__main__":
    sys.exit(main())
