"""The servers that the store tests run on: the redis-server on PATH, and those in build/stores.

`scripts/setup test` fills build/stores from tests/stores.txt. A server's folder holds its program under the
name `redis-server`. While the folder is first on PATH, its program is the one that a test starts.

Where no `redis-server` is on PATH, Valkey 9 of build/stores is put at its end: nobody has to be root to
install one. The tests that need TLS are left out then, since that wheel's server has none.

`make test` runs the quick tests of `QUICK` on every server. `make stores` (`pytest --stores`) runs all tests
of `QUICK` and `SLOW` on every server, and nothing else.
"""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build/stores"
ON_PATH = "installed"
QUICK = frozenset(
    f"tests.test_{name}"
    for name in (
        "append",
        "appender",
        "cluster",
        "cluster_map",
        "connection",
        "connection_refusals",
        "conversations",
        "handshake",
        "log",
        "producer_scripts",
        "queue",
        "quota",
        "scripts",
        "stores",
        "subscriber",
        "webhooks_outbox",
    )
)
SLOW = frozenset(
    f"tests.test_{name}"
    for name in (
        "architecture",
        "checkpoints",
        "checkpoints_bounds",
        "checkpoints_graphs",
        "checkpoints_random",
        "clock",
        "cluster_faults",
        "commands",
        "direct",
        "draft",
        "embedded",
        "embedded_folder",
        "faults_store",
        "feed_failover",
        "hub",
        "identity",
        "identity_cluster",
        "log_embedded",
        "log_model",
        "orphans",
        "producer",
        "projector",
        "protocol",
        "readiness",
        "relay",
        "resume",
        "retention",
        "stages",
        "sweeper",
        "threads",
        "threads_graphs",
        "unstored_deaths",
        "writer",
    )
)
WITHOUT_TLS = frozenset({"redis-6.2", "valkey-9"})  # these wheels are built without TLS
STAND_IN = FOLDER / "valkey-9"
if shutil.which("redis-server") is None:
    os.environ["PATH"] += f"{os.pathsep}{STAND_IN}"
IS_STAND_IN = Path(shutil.which("redis-server") or "").parent == STAND_IN


def present() -> list[str]:
    """Return the servers on this machine. A server that replaces the one on PATH is named once."""
    others = {path.parent.name for path in FOLDER.glob("*/redis-server")}
    return [ON_PATH, *sorted(others - {STAND_IN.name} if IS_STAND_IN else others)]


@contextmanager
def first_on_path(name: str) -> Iterator[None]:
    """Put this server first on PATH within the block: a `redis-server` that is started there is this
    server."""
    path = os.environ["PATH"]
    if name != ON_PATH:
        os.environ["PATH"] = f"{FOLDER / name}{os.pathsep}{path}"
    try:
        yield
    finally:
        os.environ["PATH"] = path


def parametrize(metafunc: pytest.Metafunc, everything: bool) -> None:
    """Let a store test run once on each server; any other test runs on the one that is on PATH.

    A test in a store test's file that is no coroutine speaks to no server, except for the model of the log.
    """
    module, definition = metafunc.module.__name__, metafunc.definition
    slow = definition.get_closest_marker("slow") is not None
    if not (module in QUICK | SLOW if everything else module in QUICK and not slow):
        return
    if not inspect.iscoroutinefunction(metafunc.function) and "redis_url" not in metafunc.fixturenames:
        return
    without_tls = WITHOUT_TLS if definition.get_closest_marker("tls") else frozenset()
    names = [name for name in present() if name not in without_tls]
    metafunc.parametrize("redis_program", names, indirect=True, scope="session")


def repeats(item: pytest.Item) -> bool:
    """Return whether this test would be the same on every server, because it uses fakeredis."""
    if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
        return False
    given = item.callspec.params
    return "fakeredis" in given.values() and given.get("redis_program", ON_PATH) != ON_PATH


def is_store_test(item: pytest.Item) -> bool:
    """Return whether `make stores` runs this test."""
    return isinstance(item, pytest.Function) and item.module.__name__ in QUICK | SLOW
