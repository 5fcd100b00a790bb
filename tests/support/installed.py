"""The distribution as a user has it: built, and installed where nothing of this checkout can be imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = Path(sysconfig.get_path("purelib"))


def build(into: Path, source: Path = ROOT) -> tuple[Path, Path]:
    """The wheel, made from the sdist, and the sdist. No network: the build's packages are this environment's.

    `-P`: a checkout has a folder `build`, which is no module.
    """
    command = [sys.executable, "-P", "-m", "build", "--no-isolation", "--outdir", str(into), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (wheel,) = into.glob("*.whl")
    (sdist,) = into.glob("*.tar.gz")
    return wheel, sdist


@dataclass(frozen=True, slots=True)
class Installed:
    """A virtual environment of its own, an empty folder to work in, and what runs there."""

    venv: Path
    folder: Path
    others: str = ""  # folders with packages that this environment has beside it

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of the tests' own settings: neither PYTHONPATH nor a name of the product's."""
        ours = re.compile("PYTHON|GATEWAY|REDIS|OPENAI|AZURE|OTEL|HOST$|PORT$")
        kept = {name: value for name, value in os.environ.items() if not ours.match(name)}
        path = f"{self.venv / 'bin'}{os.pathsep}{kept['PATH']}"
        return {**kept, "PATH": path, **({"PYTHONPATH": self.others} if self.others else {})}

    def run(self, *command: str, code: int = 0, cwd: Path | None = None) -> str:
        """What a command has printed, with what it wrote to stderr; it must end with this code."""
        ran = subprocess.run(
            command,
            cwd=cwd or self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert ran.returncode == code, ran.stdout + ran.stderr
        return ran.stdout + ran.stderr

    def say(self, program: str, *, code: int = 0) -> str:
        """The same for a text of Python."""
        return self.run(str(self.python), "-c", program, code=code)

    def with_everything(self) -> Installed:
        """The same environment, with all of the tests' own packages beside it."""
        return Installed(self.venv, self.folder, str(PACKAGES))


def install(wheel: Path, where: Path, *, beside: Iterable[str] = ()) -> Installed:
    """The wheel without its dependencies, and of this environment's packages those that are named."""
    made, folder = where / "venv", where / "empty"
    folder.mkdir(parents=True)
    venv.create(made, symlinks=True)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(made / "bin" / "python"),
        "--disable-pip-version-check",
    ]
    subprocess.run(
        [*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel)], check=True, capture_output=True
    )
    (site,) = made.glob("lib/python*/site-packages")
    for name in beside:
        for place in (PACKAGES / name, PACKAGES / f"{name}.py"):
            if place.exists():
                (site / place.name).symlink_to(place)
    return Installed(made, folder)


def closure(names: Iterable[str]) -> set[str]:
    """These distributions and all that they need without an extra, in this environment."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop().lower().replace("_", "-")
        if name in found:
            continue
        found.add(name)
        for line in requires(name) or ():
            one = Requirement(line)
            if one.marker is None or one.marker.evaluate({"extra": ""}):
                todo.append(one.name)
    return found
