"""Which tests run together, and in which order: for `make test`, which runs several workers side by side.

A file's tests stay together, and so do all files that share the session's hosts: they are started once in a
run instead of once in each worker, where they would cost CPU until its end. What takes longest begins first,
so that no worker is left alone with it at the end.
"""

from __future__ import annotations

import pytest

SESSION_HOSTS = frozenset({"hosts", "keyed", "signed"})  # fixtures of tests/hosts.py and tests/callers.py
FORMATS = (
    "tests/test_format_"  # the files of foreign formats, which share hosts of their own (tests/mortals.py)
)
SHARING = frozenset(  # a test holds this against the fixtures that each file asks for
    f"tests/{name}.py"
    for name in (
        "contract/test_contract",
        "guess/test_guess",
        "test_ask",
        "test_auth_jwt",
        "test_auth_keys",
        "test_auth_owners",
        "test_bad_input",
        "test_canary",
        "test_cancel",
        "test_client",
        "test_client_js",
        "test_cors",
        "test_create",
        "test_follow",
        "test_foreign_owners",
        "test_openapi",
        "test_inputs",
        "test_operations",
        "test_pages",
        "test_quota_http",
        "test_routes",
        "test_sample_endpoint",
        "test_stream_tokens",
        "test_threads_http",
        "test_wire_clients",
    )
)
TOGETHER = "those that share hosts"
# By what they take: the group that shares hosts is the longest.
FIRST = (
    TOGETHER,
    FORMATS,
    "tests/chains/test_chains.py",
    "tests/test_function_queue.py",
    "tests/test_direct_start.py",
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
)


def group(nodeid: str) -> str:
    """What runs in one worker: a file, or all that share hosts, or all of foreign formats."""
    file = nodeid.partition("::")[0]
    if file.startswith(FORMATS):
        return FORMATS
    return TOGETHER if file in SHARING else file


def arrange(items: list[pytest.Item]) -> None:
    """Sort the groups; within one the order stays."""
    place = {name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(group(item.nodeid), len(place)))
