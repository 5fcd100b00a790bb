"""npm's package as a user has it: packed, and installed from its tarball, beside packages of tests/node."""

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
    """The tarball, made of a copy: `npm pack` puts files beside package.json while it runs."""
    for folder, names in (("npm", SOURCES), ("web", ("client.js", "client.d.ts")), (".", ("LICENSE",))):
        (where / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copy(ROOT / folder / name, where / folder / name)
    said = _npm(where / "npm", "pack", "--json", "--pack-destination", str(where))
    (told,) = json.loads(said[said.index("[") :])
    return where / str(told["filename"])


def program(language: str) -> str:
    """The program in this language in the package's README."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    return str(found)


@dataclass(frozen=True, slots=True)
class Project:
    """A folder in which the package is installed."""

    folder: Path

    def run(self, *command: str) -> str:
        """What a command prints there. Raises AssertionError with all that it has said."""
        return _run(self.folder, *command)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)


def aimed(url: str, content: str) -> str:
    """The README's program in JavaScript, at this gateway and with this question."""
    return program("js").replace("http://127.0.0.1:7071", url).replace('"Who are you?"', json.dumps(content))


def install(tarball: Path, folder: Path, beside: Iterable[str] = (), registry: Sequence[str] = ()) -> Project:
    """A project with the package, from the tarball, and beside it these packages of tests/node.

    `registry`: what npm installs too; without any the network is not used.
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
