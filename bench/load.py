"""The load client `sseload`: a C program that reads thousands of event streams and checks each event. It
prints figures.

Its source is in `tools/sseload`. It is built at the first use.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import REPOSITORY

SOURCE = REPOSITORY / "tools" / "sseload"
BUILT = REPOSITORY / "build" / "sseload"
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Load:
    """The result of one run of sseload. Times are in milliseconds, from the timestamp in an event to its
    receipt."""

    events: int
    p50: float
    p99: float
    raw: dict[str, Any]

    @property
    def exact(self) -> bool:
        """Return whether each event came exactly once and no connection failed."""
        wrong = [self.raw["seq_dup"], self.raw["seq_missing"], *self.raw["errors"].values()]
        return not any(wrong)


def tool(name: str) -> str:
    """Return the path of one of the C programs; build it if necessary. Raises FileNotFoundError if there is
    no source."""
    if not (BUILT / name).exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        shutil.copytree(SOURCE, BUILT, dirs_exist_ok=True)
        if os.system(f"make -s -C '{BUILT}'"):
            raise RuntimeError("sseload could not be built")
    return str(BUILT / name)


async def sseload(port: int, paths: Path, streams: int, readers: int, seconds: float, *options: str) -> Load:
    """Run sseload with `options`. It ends some seconds after the last event. Raises AssertionError."""
    command: Sequence[str] = (
        *(tool("sseload"), "-p", str(port), "-f", str(paths), "-n", str(readers)),
        *("-m", str(streams), "-d", str(seconds), "-t", "60", *options),
    )
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        out, _ = await asyncio.wait_for(process.communicate(), seconds + 120)
    except BaseException:
        process.kill()
        await process.wait()
        raise
    told = json.loads(out)
    times = told["lat_ms"]
    return Load(told["events"], times.get("p50", 0.0), times.get("p99", 0.0), told)


def cpu_seconds(pid: int) -> float:
    """Return the processor time that all threads of a process have used, in user and system mode."""
    used = [Path(task, "schedstat").read_text().split()[0] for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(map(int, used)) / 1e9


def resident_kb(pid: int) -> int:
    """Return the resident memory of a process, in kB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(pid)
