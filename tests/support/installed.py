"""Build the distribution and install it as a user does, where nothing of this checkout can be imported."""

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
    """Build the sdist, and the wheel from the sdist; return wheel and sdist. It needs no network: the build
    uses the packages of this environment.

    `-P` is needed because a checkout has a folder `build`, which is not the module.
    """
    command = [sys.executable, "-P", "-m", "build", "--no-isolation", "--outdir", str(into), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (wheel,) = into.glob("*.whl")
    (sdist,) = into.glob("*.tar.gz")
    return wheel, sdist


@dataclass(frozen=True, slots=True)
class Installed:
    """A separate virtual environment with an empty working folder, and the commands that run there."""

    venv: Path
    folder: Path
    others: str = ""  # folders with additional packages for this environment

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def environment(self) -> dict[str, str]:
        """Return an environment without the tests' own settings: no PYTHONPATH and no variable of the
        product."""
        ours = re.compile("PYTHON|GATEWAY|REDIS|OPENAI|AZURE|OTEL|HOST$|PORT$")
        kept = {name: value for name, value in os.environ.items() if not ours.match(name)}
        path = f"{self.venv / 'bin'}{os.pathsep}{kept['PATH']}"
        return {**kept, "PATH": path, **({"PYTHONPATH": self.others} if self.others else {})}

    def run(self, *command: str, code: int = 0, cwd: Path | None = None) -> str:
        """Run a command and return its stdout and stderr. The command must exit with this code."""
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
        """Run the text of a Python program in the same way."""
        return self.run(str(self.python), "-c", program, code=code)

    def with_everything(self) -> Installed:
        """Return the same environment with all packages of the tests added."""
        return Installed(self.venv, self.folder, str(PACKAGES))


def install(wheel: Path, where: Path, *, beside: Iterable[str] = ()) -> Installed:
    """Install the wheel without its dependencies, and add the named packages from this environment."""
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
    """Return these distributions and all distributions that they require without an extra, in this
    environment."""
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
