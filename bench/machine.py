"""Describe the measured system: the machine, the versions, the commit."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.support.processes import REPOSITORY

RESULTS = REPOSITORY / "bench" / "results"
PACKAGES = ("uvicorn", "uvloop", "starlette", "redis", "hiredis", "langchain-openai", "sse-starlette")


@dataclass(frozen=True, slots=True)
class About:
    """Data stored together with the figures, so that they can be interpreted later."""

    when: str
    commit: str
    processor: str
    cores: int
    memory_gb: float
    system: str
    python: str
    redis_server: str
    packages: dict[str, str]

    def lines(self) -> list[str]:
        """Return the description as lines of text."""
        packages = ", ".join(f"{name} {number}" for name, number in self.packages.items())
        return [
            f"{self.when}, commit {self.commit}: {self.cores} cores of {self.processor}, "
            f"{self.memory_gb:.0f} GB, {self.system}; Python {self.python}, {self.redis_server}; {packages}."
        ]

    def plain(self) -> dict[str, Any]:
        """Return the description as JSON values for the file."""
        return asdict(self)


def about() -> About:
    """Return the description of this machine at this moment."""
    return About(
        when=datetime.now(UTC).strftime("%Y-%m-%d"),
        commit=_said("git", "describe", "--always", "--dirty"),
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_gb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        redis_server=" ".join(_said("redis-server", "--version").split()[:3]).replace(" server v=", " "),
        packages={name: version(name) for name in PACKAGES},
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    return done.stdout.strip() or "unknown"
