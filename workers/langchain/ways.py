"""Which nodes of a graph are on the way to its answer: behind each another one comes that may speak.

It is known before the graph runs, from its edges, so it can be told with the first piece of a node's text.
A node is taken to be silent, and is looked through, where it is a node of tools, a hook behind an agent's
model, or a function that asks no model and makes no message, by what it names, and by what functions of its
own package name that it calls. A node whose next one is not known (an edge by a function without a list of
its ends) may be the last one.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Sequence
from types import CodeType, FunctionType, MethodType
from typing import Any

from workers.langchain.pregel import END, Ends, edges_of, functions_of

# What a function names that asks a model; and what one names or says that makes a message itself, unless it
# only looks at messages.
_ASKING = frozenset(("invoke", "ainvoke", "stream", "astream", "batch", "abatch"))
_MAKING = frozenset(("AIMessage", "AIMessageChunk", "assistant"))
_HOOKS = (".after_model", ".after_agent")  # of LangChain's middleware: they look at what an agent has said
MOST_FUNCTIONS = 50  # that are looked at for one node
LARGEST = 100  # nodes; of a larger graph nothing is known


def on_the_way(graph: Any) -> frozenset[str]:
    """The names of such nodes; none for a graph that was not made of nodes and edges."""
    edges = edges_of(graph)
    if len(edges) > LARGEST:
        return frozenset()
    silent = {name for name in edges if name.endswith(_HOOKS) or not _speaks(functions_of(graph, name))}
    may_end: set[str] = {END}  # what may be the last that is said
    before = 0
    while before < len(may_end):  # one more at least in each turn
        before = len(may_end)
        quiet = may_end & (silent | {END})
        may_end |= {name for name, ends in edges.items() if _may_end(ends, quiet)}
    return frozenset(edges) - may_end


def _may_end(ends: Ends, quiet: set[str]) -> bool:
    """Whether nothing need be said behind a node: all that comes is quiet, or may be."""
    chosen = all(some is None or not quiet.isdisjoint(some) for some in ends.choices)
    return chosen and quiet.issuperset(ends.always)


def _speaks(functions: Sequence[Any] | None) -> bool:
    """Whether a node may speak, by its functions and those that they call; one that is something else may."""
    if functions is None:
        return True
    reached, waiting = 0, [(one, "") for one in functions]
    seen: set[int] = set()
    while waiting and reached < MOST_FUNCTIONS:
        one, package = waiting.pop()
        while isinstance(one, functools.partial):
            one = one.func
        owner = type(one.__self__) if isinstance(one, MethodType) else None
        plain = inspect.unwrap(one.__func__ if isinstance(one, MethodType) else one)
        if not isinstance(plain, FunctionType):
            if not package:
                return True  # a node's own object that can be called
            continue
        own = plain.__module__.partition(".")[0]
        if id(plain) in seen or package not in ("", own):
            continue
        seen.add(id(plain))
        reached += 1
        codes = list(_with_inner(plain.__code__))
        if any(map(_asks_or_makes, codes)):
            return True
        waiting += [(each, own) for each in _called(plain, owner, codes)]
    return False


def _called(function: FunctionType, owner: type | None, codes: Sequence[CodeType]) -> Iterator[Any]:
    """Functions that a function may call: what it closes over, its module's, its object's."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not set yet
            continue
    for name in {name for code in codes for name in code.co_names}:
        yield function.__globals__.get(name)
        yield getattr(owner, name, None)


def _asks_or_makes(code: CodeType) -> bool:
    if not _ASKING.isdisjoint(code.co_names):
        return True
    said = {*code.co_names, *(one for one in code.co_consts if isinstance(one, str))}
    return "isinstance" not in said and not _MAKING.isdisjoint(said)


def _with_inner(code: CodeType) -> Iterator[CodeType]:
    """A function's code, and that of all functions within it."""
    waiting = [code]
    while waiting:
        one = waiting.pop()
        yield one
        waiting += [inner for inner in one.co_consts if isinstance(inner, CodeType)]
