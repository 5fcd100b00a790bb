"""One run of Schemathesis against one host: its configuration, its process, its report."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.callers import ALICE, BOB, METRICS_KEY
from tests.support.processes import REPOSITORY

ANSWER_SECONDS = 60
WORKERS = 4  # most of the time a case waits for its stream
HOOKS = "tests.contract.narrowed"


SCRAPER = {"Authorization": f"Bearer {METRICS_KEY}"}  # with an X-API-Key, this header is for /metrics only
# No caller may see the streams of another.
OWNERS = {"alice": {"X-API-Key": ALICE, **SCRAPER}, "bob": {"X-API-Key": BOB, **SCRAPER}}


@dataclass(frozen=True, slots=True)
class Report:
    """The output of Schemathesis, and its figures."""

    code: int
    printed: str
    figures: Mapping[str, Any]

    @property
    def cases(self) -> int:
        """Return the number of requests that it generated."""
        return int(self.figures["test_cases"]["generated"])

    @property
    def failures(self) -> int:
        """Return the number of answers that differ from the document."""
        counted = self.figures["test_cases"]
        return int(counted["with_failures"]) + int(counted["errored"])

    @property
    def only_gave_up(self) -> bool:
        """Return whether all answers were right and the only error is that it could not generate some
        request."""
        told = re.search(r"^Errors:\n((?:  \S.*\n)+)", self.printed, re.MULTILINE)
        return (
            not self.failures and told is not None and re.findall(r"(\S+ Error)", told[1]) == ["Schema Error"]
        )


async def schemathesis(
    url: str,
    folder: Path,
    *,
    callers: Mapping[str, Mapping[str, str]],
    examples: int,
    seed: int,
    limit_seconds: float,
    phases: str = "examples,coverage,fuzzing,stateful",
) -> Report:
    """Run all checks. `callers`: the headers of each. With several callers, none may see another's
    streams."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(_configured(folder, callers))),
        *("run", f"{url}/openapi.json", "--no-color", "--checks", "all", "--max-examples", str(examples)),
        *("--seed", str(seed), "--generation-database", "none", "--continue-on-failure"),
        *("--workers", str(WORKERS), "--phases", phases),
        *("--report", "json", "--report-json-path", str(folder / "report.json")),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(limit_seconds):
            printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = printed.decode()
    path = folder / "report.json"
    assert path.exists(), text
    return Report(process.returncode or 0, text, json.loads(path.read_text()))


def _configured(folder: Path, callers: Mapping[str, Mapping[str, str]]) -> Path:
    lines = [f"request-timeout = {ANSWER_SECONDS}", f'hooks = "{HOOKS}"']
    users = [{"name": name, "fixedHeaders": _listed(shown)} for name, shown in callers.items()]
    if users:
        (folder / "auth.json").write_text(json.dumps({"auth": users}))
        lines += ["[auth.wfc]", 'path = "auth.json"']
    if len(users) > 1:
        lines.append(f"peers = {json.dumps(list(callers))}")
    path = folder / "schemathesis.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def _listed(headers: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in headers.items()]
