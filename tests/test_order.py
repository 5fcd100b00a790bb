"""Hosts that tests share are closed after the last test of the group that uses them (tests/order.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests import order
from tests.support.processes import REPOSITORY

CONFTEST = """
import pytest
from tests import order

def pytest_configure(config):
    config.pluginmanager.register(order.Closing())

def tell(what):
    with open("told", "a") as file:
        print(what, file=file)

@pytest.fixture(scope="session")
def store():
    tell("store opens")
    yield
    tell("store closes")

@pytest.fixture(scope="session")
def hosts(store):
    tell("hosts open")
    yield
    tell("hosts close")

@pytest.fixture
def told(request):
    tell(request.node.name)
"""
FILES = {
    "test_format_one.py": "def test_asks(hosts, told): pass\ndef test_asks_again(hosts, told): pass",
    "test_format_two.py": "def test_asks_nobody(told): pass\ndef test_looks_into(store, told): pass",
    "test_other.py": "def test_asks_elsewhere(hosts, told): pass\ndef test_ends(told): pass",
}
TOLD = """store opens
hosts open
test_asks
test_asks_again
hosts close
test_asks_nobody
test_looks_into
store closes
store opens
hosts open
test_asks_elsewhere
hosts close
store closes
test_ends
"""


def test_hosts_are_closed_after_the_last_test_of_a_group_that_asks(tmp_path: Path) -> None:
    folder = tmp_path / "tests"
    folder.mkdir()
    (tmp_path / "conftest.py").write_text(CONFTEST)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "tests")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stdout.decode()
    assert (tmp_path / "told").read_text() == TOLD


def test_files_that_ask_for_the_same_hosts_follow_each_other(request: pytest.FixtureRequest) -> None:
    asked: dict[str, set[str]] = {}
    for item in request.session.items:
        if isinstance(item, pytest.Function):
            asked.setdefault(item.nodeid.partition("::")[0], set()).update(item.fixturenames)
    for name, group in (("signed", order.KEYED), *(("keyed", group) for group in order.FORMATS.values())):
        does = [name in fixtures for file, fixtures in asked.items() if order.group(file) == group]
        begins = [at for at, (before, now) in enumerate(pairwise([False, *does])) if now and not before]
        assert len(begins) <= 1, (name, group)
