"""`holdfast new NAME`: create a small project that can be run, tested and deployed, and that has a version.

The files of `template/` end with `.in`, so that other tools do not use them as their own files. The prefix
`dot-` of a file name becomes a dot. `infra/` is copied from the wheel unchanged.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.runtime.files import shipped
from holdfast_gateway import __version__

TEMPLATE = Path(__file__).parent / "template"
NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_NEXT = """Made {name}/. Now, in this environment or in a new one:

  cd {name}
{copy}  pip install -r requirements-dev.txt
  pytest
  holdfast run
"""
# Both requirements files of a project look into its folder wheels/.
_COPY = "  mkdir wheels && cp /path/to/{wheel} wheels/    # until it is published\n"


def make(name: str, version: str, where: Path, wheels: Path | None = None) -> Path:
    """Make the folder of a new project in `where`, and return it.

    `wheels`: a folder whose wheel of this version is copied into the project.
    Raises ValueError for a name that is malformed or taken, and for a folder without that wheel.
    """
    if not NAME.fullmatch(name):
        raise ValueError("NAME begins with a letter and has up to 40 lower-case letters, digits and dashes")
    found = sorted(wheels.glob(_wheel(version))) if wheels is not None else []
    if wheels is not None and not found:
        raise ValueError(
            f"there is no {_wheel(version)} in {wheels}: `make dist` in a checkout of Holdfast makes it there"
        )
    folder = where / name
    try:
        folder.mkdir()
    except FileExistsError:
        raise ValueError(f"there is {folder} already") from None
    for source in sorted(TEMPLATE.rglob("*.in")):
        target = folder / _named(source)
        target.parent.mkdir(exist_ok=True)
        text = source.read_text("utf-8").replace("{{NAME}}", name).replace("{{VERSION}}", version)
        target.write_text(text, "utf-8")
    shutil.copytree(shipped("infra"), folder / "infra", ignore=shutil.ignore_patterns(".*", "__pycache__"))
    for wheel in found:
        (folder / "wheels").mkdir(exist_ok=True)
        shutil.copy(wheel, folder / "wheels")
    return folder


def command(name: str, wheels: str, version: str) -> str:
    """Run the command line's `new`, and return what is to be printed then. Raises ValueError as `make`."""
    make(name, version, Path.cwd(), Path(wheels) if wheels else None)
    copy = "" if wheels else _COPY.format(wheel=_wheel(version))
    return _NEXT.format(name=name, copy=copy)


def _wheel(version: str) -> str:
    return f"holdfast_gateway-{version}-*.whl"


def _named(source: Path) -> Path:
    path = source.relative_to(TEMPLATE).with_suffix("")
    name = path.name
    return path.with_name(f".{name.removeprefix('dot-')}" if name.startswith("dot-") else name)


def made(given: Sequence[str]) -> int:
    """Run `holdfast new` with the words that follow it; answers the exit code."""
    parser = argparse.ArgumentParser(prog="holdfast new", description="make a small project in a new folder")
    parser.add_argument("name", metavar="NAME")
    told = "the folder dist/ of a checkout: its wheel is copied into the project, until it is published"
    parser.add_argument("--wheels", metavar="DIR", default="", help=told)
    asked = parser.parse_args(given)
    return made_as(asked.name, asked.wheels)


def made_as(name: str, wheels: str) -> int:
    """Run `holdfast new` for a name. `wheels`: a folder, or empty. Answers the exit code."""
    try:
        print(command(name, wheels, __version__), end="")
    except ValueError as error:
        print(f"holdfast new: {error}", file=sys.stderr)
        return 2
    return 0
