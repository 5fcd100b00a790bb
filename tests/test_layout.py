"""The layout is a promise: who may import whom, how long a file may be, what the README says."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from gateway.settings import Settings
from tests import order

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = [
    ROOT / "function_app.py",
    *sorted((ROOT / "gateway").rglob("*.py")),
    *sorted((ROOT / "holdfast_gateway").rglob("*.py")),
    *sorted((ROOT / "workers").rglob("*.py")),
]
HOSTS = {"function_app", "gateway.__main__", "gateway.hosts.asgi"}
MOST_LINES = 400  # from 250 on, look whether a file holds two ideas
MOST_FUNCTION_LINES = 60

FORMAT = "gateway.formats.*"  # each of them; they know nothing of one another
# From a layer, only what stands to the right of it, in its own row or below, may be imported.
LAYERS = [
    {"gateway.__main__", "function_app"},
    {
        "gateway.hosts.asgi",
        "gateway.cli.commands",
        "gateway.hosts.functions_extension",
        "gateway.hosts.uvicorn_protocol",
    },
    {"gateway.hosts.door", "gateway.hosts.given", "gateway.web.hostnames", "gateway.hosts.http10"},
    {"gateway.formats"},
    {FORMAT},
    {"gateway.formats.openai.output", "gateway.formats.openai.spoken"},
    {"gateway.formats.openai.fields", "gateway.formats.openai.items"},
    {"gateway.formats.openai.common"},
    {"gateway.cli.ask"},
    {"gateway.client"},
    {"gateway.client.stream"},
    {"gateway.client.events"},
    {
        "gateway.web.streams",
        "gateway.web.probes",
        "gateway.web.pages",
        "gateway.web.kill_worker",
        "gateway.web.openapi_document",
        "gateway.web.catalogue",
    },
    {"gateway.formats.base.serving"},
    {"gateway.web.request_head"},
    {"gateway.web.answers"},
    {"gateway.web.event_stream", "gateway.streams.service"},
    {
        "gateway.web.direct_reader",
        "gateway.streams.resuming",
        "gateway.web.openapi.document",
        "gateway.web.openapi.page",
    },
    {"gateway.streams.create"},
    {"gateway.streams.input_schemas", "gateway.streams.retrying"},
    {"gateway.streams.forms"},
    {"gateway.web.openapi.responses", "gateway.web.openapi.parameters"},
    {"gateway.web.openapi.schemas"},
    {"gateway.formats.base.projection"},
    {"gateway.formats.base.calls", "gateway.formats.base.answer_text"},
    {
        "gateway.streams.start",
        "gateway.streams.resume",
        "gateway.relay.follow",
        "gateway.callers.auth",
        "gateway.callers.auth_jwt",
        "gateway.store.quota",
    },
    {"gateway.callers.claims"},
    {"gateway.ops.readiness", "gateway.ops.timeline", "gateway.ops.listing"},
    {
        "gateway.relay.hub",
        "gateway.queue.redeliver",
        "gateway.queue.open",
        "gateway.streams.status",
        "gateway.store.own_connection",
    },
    {"gateway.queue.overdue"},
    {"gateway.queue.azure_queue", "gateway.queue.redis_queue", "gateway.azure.storage"},
    {"gateway.relay.feed"},
    {
        "gateway.store.log",
        "gateway.queue.job_queue",
        "gateway.store.conversations",
        "gateway.store.threads",
        "gateway.redis.pubsub",
        "gateway.relay.reader",
        "gateway.redis.embedded",
    },
    {"gateway.store.appender", "gateway.streams.again"},
    {"gateway.redis.cluster", "gateway.redis.script"},
    {
        "gateway.redis.connection",
        "gateway.azure.credentials",
        "gateway.observe.telemetry",
        "gateway.observe.export",
        "gateway.observe.export_later",
        "gateway.azure.function_timeout",
        "gateway.observe.loglines",
        "gateway.store.record",
        "gateway.protocol.fold",
    },
    {
        "gateway.redis.connect",
        "gateway.redis.resp",
        "gateway.redis.replies",
        "gateway.redis.slots",
        "gateway.redis.refusals",
    },
    {
        "gateway.protocol.sse",
        "gateway.settings",
        "gateway.runtime.settled",
        "gateway.runtime.tasks",
        "gateway.streams.params",
        "gateway.doubt",
        "gateway.rules",
        "gateway.streams.stream_tokens",
        "gateway.runtime.off_loop",
        "gateway.streams.room",
        "gateway.runtime.json_pieces",
        "gateway.web.headers",
        "gateway.streams.strict_json",
        "gateway.streams.images",
        "gateway.streams.messages",
        "gateway.runtime.backoff",
    },
    {"gateway.protocol", "gateway.web.negotiate"},
    {"gateway.protocol.errors"},
]
WORKERS_MAY_IMPORT = {
    f"gateway.{name}"
    for name in (
        "backoff",
        "cluster",
        "connection",
        "link",
        "log_apart",
        "script",
        "errors",
        "forms",
        "protocol",
        "sse",
        "log",
        "record",
        "overdue",
        "queue",
        "revive",
        "settings",
        "identity",
        "journal",
        "params",
        "doubt",
        "tasks",
        "telemetry",
        "threads",
    )
}
FOREIGN = {
    "azure": {
        "function_app",
        "gateway.queue.azure_queue",
        "gateway.azure.storage",
        "gateway.azure.credentials",
        "gateway.observe.export",
        "gateway.observe.export_later",
    },
    "azurefunctions": {"function_app", "gateway.hosts.functions_extension"},
    "redis": {
        f"gateway.{name}"
        for name in (
            "cluster",
            "connection",
            "embedded",
            "link",
            "pen",
            "pending",
            "queue_redis",
            "refusals",
            "script",
            "slots",
            "subscriber",
            "wire",
        )
    },
    "hiredis": {"gateway.redis.resp"},
    "redis_entraid": {"gateway.azure.credentials"},
    "prometheus_client": {"gateway.observe.export"},
    "fakeredis": {"gateway.redis.embedded"},
    "langchain_core": {"workers", "holdfast_gateway.testing.scripted", "holdfast_gateway.testing.running"},
    "langchain_openai": {"workers"},
    "langchain": {"workers"},
    "langchain_text_splitters": {"workers"},
    "langgraph": {"workers"},
    "jsonschema": {"gateway.streams.input_schemas"},
    "regex": {"gateway.streams.input_schemas"},
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions and for types only."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(module: str) -> int | None:
    found = next((number for number, names in enumerate(LAYERS) if module in names), None)
    if found is None and module.startswith("gateway.formats.") and module.count(".") == 2:
        return layer(FORMAT)
    return found


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    name = name_of(path)
    for other in imports(path):
        own, theirs = layer(name), layer(other)
        if name.startswith("gateway.") and name not in HOSTS:
            assert own is not None, f"{name} has no layer"
            assert not other.startswith(("workers", "holdfast_gateway")), f"{name} imports {other}"
            assert theirs is None or theirs >= own, f"{name} imports {other}"
        if name.startswith("workers"):
            assert not other.startswith("holdfast_gateway"), f"{name} imports {other}"
        if name.startswith("workers") and theirs is not None and name != "workers.delivery.functions":
            assert other in WORKERS_MAY_IMPORT, f"{name} imports {other}"


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_foreign_packages_stay_where_they_belong(path: Path) -> None:
    name = name_of(path)
    for other in imports(path):
        allowed = FOREIGN.get(other.partition(".")[0])
        if allowed is not None:
            assert name in allowed or name.partition(".")[0] in allowed, f"{name} imports {other}"
        if other in ("os.environ", "os.getenv"):
            pytest.fail(f"{name} reads the environment")
    if name not in ("gateway.settings",):
        assert not re.search(r"os\.(environ|getenv)", path.read_text()), f"{name} reads the environment"


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_a_file_has_one_idea_and_a_function_one_page(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < MOST_FUNCTION_LINES, node.name


def test_the_documented_settings_are_the_settings() -> None:
    text = (ROOT / "docs/settings.md").read_text()
    rows = re.findall(r"^\| `([A-Za-z_]+)` \| (?:`([^`]*)`|) \|", text, re.MULTILINE)
    documented = dict(rows)
    expected = {}
    for item in fields(Settings):
        default = item.default
        expected[item.metadata["env"]] = f"{default:.10g}" if isinstance(default, float) else str(default)
    assert documented == expected


def test_what_begins_first_exists() -> None:
    groups = {order.TOGETHER, order.FORMATS}
    assert [name for name in order.FIRST if name not in groups and not (ROOT / name).exists()] == []


def test_those_that_share_hosts_run_together(request: pytest.FixtureRequest) -> None:
    for item in request.session.items:
        if isinstance(item, pytest.Function) and set(item.fixturenames) & order.SESSION_HOSTS:
            together = order.TOGETHER, order.FORMATS
            assert order.group(item.nodeid) in together, f"{item.nodeid} is not in tests/order.py"
    assert all((ROOT / name).exists() for name in order.SHARING)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_every_dependency_has_its_job_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for file in (
        "requirements.txt",
        "requirements-core.txt",
        "requirements-server.txt",
        "requirements-dev.txt",
        "requirements-local.txt",
        "requirements-tools.txt",
    ):
        for line in (ROOT / file).read_text().splitlines():
            if match := re.match(r"([a-z][a-z0-9-]*)==", line):
                assert f"`{match[1]}`" in readme, f"{match[1]} has no job in the README"
