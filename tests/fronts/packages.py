"""The front ends' own packages, below build/fronts: beside the project's, never among them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PLACE = HERE.parents[1] / "build" / "fronts"


@dataclass(frozen=True, slots=True)
class Places:
    """A Python with the Python clients, and a folder with the JavaScript ones and their program."""

    python: Path
    node: Path


def packages() -> Places:
    """Install what is not there yet; what is there is what the pins say."""
    wanted, lock = HERE / "requirements.txt", HERE / "package-lock.json"
    place = PLACE / f"python{sys.version_info.major}.{sys.version_info.minor}-{_digest(wanted)}"
    python = place / "bin" / "python"
    if not (place / "installed").exists():
        print("installing the Python clients (first time only)", file=sys.stderr)
        venv.create(place, with_pip=True, clear=True)
        _made(
            str(python),
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "--no-deps",
            "-r",
            str(wanted),
        )
        (place / "installed").touch()
    node = PLACE / f"node-{_digest(lock)}"
    if not (node / "installed").exists():
        print("installing the JavaScript clients (first time only)", file=sys.stderr)
        node.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, node)
        _made("npm", "ci", "--silent", "--ignore-scripts", "--prefix", str(node))
        (node / "installed").touch()
    shutil.copy(HERE / "clients.mjs", node)
    return Places(python, node)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def _made(*command: str) -> None:
    subprocess.run(command, check=True)
