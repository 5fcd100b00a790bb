"""Which tests run together, and in which order: for `make test`, which runs several workers side by side.

A file's tests stay together, and so do files that share hosts: these hosts are started in a few workers of a
run instead of in each. Hosts cost CPU while nobody asks them. So they are closed after the last test of a
group that asks for them (`Closing`), and files that ask for the same hosts follow each other. What takes
longest begins first, so that no worker is left alone with it at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest

SESSION_HOSTS = frozenset({"hosts", "keyed", "signed"})  # fixtures of tests/hosts.py and tests/callers.py
CLOSED = SESSION_HOSTS | {"mortals", "store"}  # closed when no later test of the group uses it
# The files of foreign formats share hosts of their own (tests/mortals.py). They run as two groups. A file's
# group is that of the first of these beginnings that the file's name has.
FORMATS = {
    "tests/test_format_agui": "formats: AI SDK and Durable Streams",
    "tests/test_format_ai_sdk": "formats: AI SDK and Durable Streams",
    "tests/test_format_durable": "formats: AI SDK and Durable Streams",
    "tests/test_format_": "formats: LangGraph and OpenAI",
}
# The files of these groups that use hosts with authentication. They run last in their group.
FORMATS_KEYED = (
    "tests/test_format_langgraph_protocol.py",
    "tests/test_format_openai_requests.py",
    "tests/test_format_openai_unstored.py",
    "tests/test_format_durable_client.py",
    "tests/test_format_durable_refusals.py",
    "tests/test_format_ai_sdk_http.py",
    "tests/test_format_ai_sdk_workflow.py",
)
KEYED = "those that share hosts which ask who is there"
PLAIN = "those that share hosts which ask nobody"
SHARING = {  # in this order; a test compares it with each file's fixtures
    f"tests/{name}.py": group
    for group, names in {
        KEYED: (
            "contract/test_contract",
            "guess/test_guess",
            "test_auth_keys",
            "test_auth_owners",
            "test_auth_jwt",  # uses `signed`
            "test_canary",  # uses `signed`, too; reads the logs of all earlier tests
            "test_foreign_owners",
            "test_operations",
            "test_quota_http",
            "test_joint",
            "test_purge",
            "test_feed",
            "test_stream_list",
            "test_usage",
            "test_webhooks_hosts",
            "test_webhooks_clients",
            "test_stream_tokens",
            "test_producer_hosts",  # from here on the files use `hosts`, too
            "test_cors",
            "test_openapi",
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
            "test_threads_http",
            "test_wire_clients",
        ),
    }.items()
    for name in names
}
GROUPS = frozenset({*FORMATS.values(), *SHARING.values()})
# Sorted by duration, the longest first.
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
    """Return the group that must run in one worker: a file, or the files that share hosts."""
    file = nodeid.partition("::")[0]
    found = (name for beginning, name in FORMATS.items() if file.startswith(beginning))
    return SHARING.get(file) or next(found, file)


def arrange(items: list[pytest.Item]) -> None:
    """Sort the groups, and those files of a group that are named here. The other files keep their order."""
    place = {name: number for number, name in enumerate(FIRST)}
    within = {name: number for number, name in enumerate((*SHARING, *FORMATS_KEYED), 1)}

    def key(item: pytest.Item) -> tuple[int, int]:
        file = item.nodeid.partition("::")[0]
        return place.get(group(file), len(place)), within.get(file, 0)

    items.sort(key=key)


class Closing:
    """Close hosts that no later test of the group uses. The next group that uses them starts them again."""

    def __init__(self) -> None:
        self._last: dict[str, list[str]] = {}  # names of fixtures for each test that is the last to use them
        self._started: dict[str, Callable[[], None]] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._last = closing(session.items)

    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any], request: Any) -> None:
        if fixturedef.argname in CLOSED:
            self._started[fixturedef.argname] = partial(fixturedef.finish, request)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        yield
        for name in self._last.get(item.nodeid, ()):
            if close := self._started.pop(name, None):
                close()


def closing(items: Iterable[pytest.Item]) -> dict[str, list[str]]:
    """Return for each test the fixtures of `CLOSED` that no later test of its group uses."""
    last = {
        (group(item.nodeid), name): item.nodeid
        for item in items
        if isinstance(item, pytest.Function)
        for name in CLOSED.intersection(item.fixturenames)
    }
    found: dict[str, list[str]] = {}
    for (_, name), nodeid in last.items():
        found.setdefault(nodeid, []).append(name)
    return found
