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
_NEXT = """Made {name}/. Now, in this environment:

  cd {name}
  pytest
  holdfast run

In another environment, run pip install -r requirements-dev.txt first. Until holdfast-gateway is published,
copy its wheel into {name}/wheels/ before that, and before a deployment.
"""


def make(name: str, version: str, where: Path) -> Path:
    """Create a project folder in `where`, and return its path.

    Raises ValueError for an invalid or used name.
    """
    if not NAME.fullmatch(name):
        raise ValueError("NAME begins with a letter and has up to 40 lower-case letters, digits and dashes")
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
    return folder


def command(given: Sequence[str], version: str) -> str:
    """Run `new` from the command line. Return the text to print. Raises ValueError as `make`."""
    parser = argparse.ArgumentParser(prog="holdfast new", description="make a small project in a new folder")
    parser.add_argument("name", metavar="NAME")
    name = parser.parse_args(given).name
    make(name, version, Path.cwd())
    return _NEXT.format(name=name)


def _named(source: Path) -> Path:
    path = source.relative_to(TEMPLATE).with_suffix("")
    name = path.name
    return path.with_name(f".{name.removeprefix('dot-')}" if name.startswith("dot-") else name)


def made(given: Sequence[str]) -> int:
    """Run `holdfast new`. Return the exit code."""
    try:
        print(command(given, __version__), end="")
    except ValueError as error:
        print(f"holdfast new: {error}", file=sys.stderr)
        return 2
    return 0
