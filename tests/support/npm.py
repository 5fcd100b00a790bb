"""Pack the npm package and install it from its tarball, as a user does, together with packages of
tests/node."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.programs import NODE

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "npm"
SOURCES = ("package.json", "README.md", "react.js", "react.d.ts", "follower.js")
README = PACKAGE / "README.md"


def pack(where: Path) -> Path:
    """Make the tarball from a copy, because `npm pack` writes files next to package.json while it runs."""
    for folder, names in (("npm", SOURCES), ("web", ("client.js", "client.d.ts")), (".", ("LICENSE",))):
        (where / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copy(ROOT / folder / name, where / folder / name)
    said = _npm(where / "npm", "pack", "--json", "--pack-destination", str(where))
    (told,) = json.loads(said[said.index("[") :])
    return where / str(told["filename"])


def program(language: str) -> str:
    """Return the program in this language from the package's README."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    return str(found)


@dataclass(frozen=True, slots=True)
class Project:
    """A folder in which the package is installed."""

    folder: Path

    def run(self, *command: str) -> str:
        """Run a command there and return its output. Raises AssertionError with the whole output if it
        fails."""
        return _run(self.folder, *command)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)


def aimed(url: str, content: str) -> str:
    """Return the JavaScript program of the README, changed to this gateway and this question."""
    return program("js").replace("http://127.0.0.1:7071", url).replace('"Who are you?"', json.dumps(content))


def install(tarball: Path, folder: Path, beside: Iterable[str] = (), registry: Sequence[str] = ()) -> Project:
    """Install the package from the tarball in a new project, and add these packages of tests/node.

    `registry`: further packages that npm installs. Without them the network is not used.
    """
    folder.mkdir()
    (folder / "package.json").write_text(json.dumps({"name": "project", "private": True, "type": "module"}))
    network = () if registry else ("--offline",)
    _npm(folder, "install", *network, "--no-audit", "--no-fund", str(tarball), *registry)
    for name in beside:
        link = folder / "node_modules" / name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(NODE / "node_modules" / name)
    for path in (NODE / "npm").iterdir():
        shutil.copy(path, folder / path.name)
    return Project(folder)


def _npm(folder: Path, *arguments: str) -> str:
    return _run(folder, "npm", *arguments)


def _run(folder: Path, *command: str) -> str:
    program = shutil.which(command[0])
    assert program, f"the tests need {command[0]}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NODE_")}
    ran = subprocess.run(
        [program, *command[1:]],
        cwd=folder,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout
