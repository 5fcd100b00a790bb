"""Which tests run together, and in which order: for `make test`, which runs several workers side by side.

A file's tests stay together, and so do all files that share the session's hosts: they are started once in a
run instead of once in each worker, where they would cost CPU until its end. What takes longest begins first,
so that no worker is left alone with it at the end.
"""

from __future__ import annotations

import pytest

SESSION_HOSTS = frozenset({"hosts", "keyed", "signed"})  # fixtures of tests/hosts.py and tests/callers.py
TOGETHER = "hosts"
# By what they take; TOGETHER comes late, because its hosts stay until the end of its worker.
FIRST = (
    "tests/test_function_queue.py",
    "tests/test_faults.py",
    "tests/test_processes.py",
    "tests/chaos/test_chaos.py",
    "tests/test_log_model.py",
    "tests/test_stalled.py",
    "tests/test_telemetry.py",
    "tests/test_local_model.py",
    "tests/functions_host/test_harness.py",
    "tests/test_queue_azure.py",
    "tests/test_first_run.py",
    "tests/test_faults_storm.py",
    "tests/test_main.py",
    "tests/test_progress.py",
    "tests/test_faults_store.py",
    "tests/test_identity.py",
    "tests/test_cluster.py",
    "tests/test_relay_random.py",
    "tests/test_identity_model.py",
    "tests/test_cluster_faults.py",
    "tests/test_sweeper.py",
    TOGETHER,
)


def arrange(items: list[pytest.Item]) -> None:
    """Mark each test with its group, and sort the groups; within one the order stays."""
    files: dict[str, set[str]] = {}
    for item in items:
        needs = getattr(item, "fixturenames", ())
        files.setdefault(_file(item), set()).update(needs)
    shared = {file for file, needs in files.items() if needs & SESSION_HOSTS}
    groups = {file: TOGETHER if file in shared else file for file in files}
    place = {group: number for number, group in enumerate(FIRST)}
    for item in items:
        item.add_marker(pytest.mark.xdist_group(groups[_file(item)]))
    items.sort(key=lambda item: place.get(groups[_file(item)], len(place)))


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]
