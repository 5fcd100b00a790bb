"""Nobody reaches for what another module keeps to itself, but for what stands here with a reason."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_layout import PRODUCT, ROOT

DOCUMENTED = {  # named with an underscore, and yet described in Python's own documentation
    "os._exit",
    "sys._current_frames",
    "_replace",  # of a named tuple
}
ALLOWED = {
    ("workers/langchain/calls.py", "_get_ls_params"): "LangChain's only name for a model's provider",
    ("workers/langchain/keys.py", "_run"): "which arguments a tool's own method takes",
    ("workers/langchain/keys.py", "_arun"): "the same, where the tool is asynchronous",
    (
        "workers/langchain/pregel.py",
        "langgraph._internal._constants",
    ): "all of LangGraph that is not documented",
    ("workers/langchain/pregel.py", "langgraph._internal._runnable"): "the same",
    ("workers/langchain/pregel.py", "langgraph.pregel._messages"): "the same",
}
# Public classes of the product that share a name. A name may leave this list, and none may come.
SHARED = {
    *(
        "Answer",
        "Asked",
        "Bounds",
        "Call",
        "Draft",
        "Event",
        "Exchange",
        "Gateway",
        "Line",
        "Message",
        "Outcome",
    ),
    *("Parts", "Piece", "Place", "Process", "Result", "Run", "Said", "Server", "Stage", "Text"),
}


def is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.endswith("__") for part in name.split("."))


def reached(tree: ast.Module) -> Iterator[str]:
    """Private names that a module takes of others. What a class has of its own base is its own."""
    own = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_set(node)}
    own |= {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    own |= {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                yield from (one.name for one in names if is_private(one.name))
            case ast.ImportFrom(module, names):
                if is_private(module or ""):
                    yield module or ""
                yield from (one.name for one in names if is_private(one.name))
            case ast.Attribute(value, name) if is_private(name) and name not in own and not _is_self(value):
                whole = ast.unparse(node)
                yield whole if whole in DOCUMENTED else name


def _is_self(value: ast.expr) -> bool:
    return ast.unparse(value) in ("self", "cls", "super()")


def _is_set(node: ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Store) and _is_self(node.value)


def test_nobody_reaches_for_what_another_module_keeps_to_itself() -> None:
    found = {
        (str(path.relative_to(ROOT)), name)
        for path in PRODUCT
        for name in reached(ast.parse(path.read_text()))
        if name not in DOCUMENTED
    }
    assert found == set(ALLOWED)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import redis._parsers", ["redis._parsers"]),
        ("from redis._parsers import Base", ["redis._parsers"]),
        ("from gateway.store.log import _head", ["_head"]),
        ("def f(link):\n    return link._writer.transport", ["_writer"]),
        ("class A(B):\n    def f(self):\n        return self._of_the_base, super()._too", []),
        ("class A:\n    def __init__(self, other):\n        self._x = other._x", []),  # another of its kind
        ("import os\nos._exit(1)", ["os._exit"]),
        ("x.__class__.__name__", []),
    ],
)
def test_what_counts_as_reaching(source: str, names: list[str]) -> None:
    assert list(reached(ast.parse(source))) == names


def test_no_more_public_classes_share_a_name() -> None:
    places: dict[str, list[Path]] = defaultdict(list)
    for path in PRODUCT:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not is_private(node.name):
                places[node.name].append(path)
    assert {name for name, paths in places.items() if len(paths) > 1} == SHARED
