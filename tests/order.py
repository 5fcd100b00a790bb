"""Which tests run together, and in which order: for `make test`, which runs several workers side by side.

A file's tests stay together, and so do files that share the session's hosts: these hosts are started in a few
workers of a run instead of in each, where they would cost CPU until its end. What takes longest begins first,
so that no worker is left alone with it at the end.
"""

from __future__ import annotations

import pytest

SESSION_HOSTS = frozenset({"hosts", "keyed", "signed"})  # fixtures of tests/hosts.py and tests/callers.py
# The files of foreign formats share hosts of their own (tests/mortals.py). They run as two groups. A file's
# group is that of the first of these beginnings that the file's name has.
FORMATS = {
    "tests/test_format_ai_sdk": "formats: AI SDK and Durable Streams",
    "tests/test_format_durable": "formats: AI SDK and Durable Streams",
    "tests/test_format_": "formats: LangGraph and OpenAI",
}
KEYED = "those that share hosts which ask who is there"
PLAIN = "those that share hosts which ask nobody"
SHARING = {  # a test holds this against the fixtures that each file asks for
    f"tests/{name}.py": group
    for group, names in {
        KEYED: (
            "contract/test_contract",
            "guess/test_guess",
            "test_auth_jwt",
            "test_auth_keys",
            "test_auth_owners",
            "test_canary",
            "test_cors",
            "test_foreign_owners",
            "test_openapi",
            "test_operations",
            "test_quota_http",
            "test_joint",
            "test_producer_hosts",
            "test_purge",
            "test_stream_list",
            "test_stream_tokens",
            "test_threads_http",
        ),
        PLAIN: (
            "test_ask",
            "test_bad_input",
            "test_cancel",
            "test_client",
            "test_client_js",
            "test_create",
            "test_follow",
            "test_inputs",
            "test_pages",
            "test_routes",
            "test_sample_endpoint",
            "test_wire_clients",
        ),
    }.items()
    for name in names
}
GROUPS = frozenset({*FORMATS.values(), *SHARING.values()})
# By what they take, the longest first.
FIRST = (
    KEYED,
    PLAIN,
    *dict.fromkeys(reversed(FORMATS.values())),
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
    "tests/test_errors_told.py",
    "tests/test_demo.py",
    "tests/test_readme.py",
    "tests/test_first_run.py",
    "tests/test_faults_storm.py",
    "tests/test_main.py",
    "tests/test_progress.py",
    "tests/test_npm.py",
    "tests/test_faults_store.py",
    "tests/test_identity.py",
    "tests/test_cluster.py",
    "tests/test_relay_random.py",
    "tests/test_identity_model.py",
    "tests/test_cluster_faults.py",
    "tests/test_sweeper.py",
)


def group(nodeid: str) -> str:
    """What runs in one worker: a file, or the files that share hosts."""
    file = nodeid.partition("::")[0]
    found = (name for beginning, name in FORMATS.items() if file.startswith(beginning))
    return SHARING.get(file) or next(found, file)


def arrange(items: list[pytest.Item]) -> None:
    """Sort the groups; within one the order stays."""
    place = {name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(group(item.nodeid), len(place)))
