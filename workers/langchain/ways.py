"""Find the nodes on the way to a graph's answer: after each of them, another node may emit text.

This is known from the edges before the graph runs. So it can be sent with the first piece of a node's text. A
node is considered silent in three cases: it is a node of tools; it is a hook after an agent's model; or it is
a function that calls no model and makes no message. For a function, the names that it uses decide, and the
names used by the functions of its own package that it calls. After a silent node, the nodes behind it are
checked too. If the next node is not known (an edge by a function without a list of its ends), the node may be
the last one.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Sequence
from types import CodeType, FunctionType, MethodType
from typing import Any

from workers.langchain.pregel import END, Ends, edges_of, functions_of

# Names in a function that calls a model. And names or texts in a function that makes a message itself, unless
# it only checks messages.
_ASKING = frozenset(("invoke", "ainvoke", "stream", "astream", "batch", "abatch"))
_MAKING = frozenset(("AIMessage", "AIMessageChunk", "assistant"))
_HOOKS = (".after_model", ".after_agent")  # hooks of LangChain's middleware: they check an agent's output
MOST_FUNCTIONS = 50  # most functions that are checked for one node
LARGEST = 100  # most nodes; for a larger graph nothing is known


def on_the_way(graph: Any) -> frozenset[str]:
    """Return the names of such nodes. Empty for a graph that was not made of nodes and edges."""
    edges = edges_of(graph)
    if len(edges) > LARGEST:
        return frozenset()
    silent = {name for name in edges if name.endswith(_HOOKS) or not _speaks(functions_of(graph, name))}
    may_end: set[str] = {END}  # the nodes that may be the last to emit text
    before = 0
    while before < len(may_end):  # each turn adds at least one
        before = len(may_end)
        quiet = may_end & (silent | {END})
        may_end |= {name for name, ends in edges.items() if _may_end(ends, quiet)}
    return frozenset(edges) - may_end


def _may_end(ends: Ends, quiet: set[str]) -> bool:
    """Return whether no other node need emit text after this one: all that follow are silent, or may be."""
    chosen = all(some is None or not quiet.isdisjoint(some) for some in ends.choices)
    return chosen and quiet.issuperset(ends.always)


def _speaks(functions: Sequence[Any] | None) -> bool:
    """Return whether a node may emit text, by its functions and the functions that they call.

    A node that is not a function may emit text.
    """
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
                return True  # the node itself is a callable object
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
    """Yield the functions that a function may call: from its closure, its module and its object."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # this variable of the closure is not set yet
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
    """Yield a function's code, and the code of all functions within it."""
    waiting = [code]
    while waiting:
        one = waiting.pop()
        yield one
        waiting += [inner for inner in one.co_consts if isinstance(inner, CodeType)]
