"""Which nodes of a graph are on the way to its answer: behind each another one comes that may speak.

It is known before the graph runs, from its edges, so it can be told with the first piece of a node's text.
A node is taken to be silent, and is looked through, where it is a node of tools or a function that asks no
model and makes no message. A node whose next one is not known (an edge by a function without a list of its
ends) may be the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import CodeType
from typing import Any

from workers.adapter.pregel import END, Ends, codes_of, edges_of

# What a function names or says that asks a model, or makes a message itself.
_SPEAKING = frozenset(
    ("invoke", "ainvoke", "stream", "astream", "batch", "abatch", "AIMessage", "AIMessageChunk", "assistant")
)
LARGEST = 100  # nodes; of a larger graph nothing is known


def on_the_way(graph: Any) -> frozenset[str]:
    """The names of such nodes; none for a graph that was not made of nodes and edges."""
    edges = edges_of(graph)
    if len(edges) > LARGEST:
        return frozenset()
    silent = {name for name in edges if not _speaks(codes_of(graph, name))}
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


def _speaks(codes: Iterable[CodeType] | None) -> bool:
    """Whether a node may speak, by the code of its functions; one that is something else may."""
    return codes is None or not _SPEAKING.isdisjoint(_names_in(codes))


def _names_in(codes: Iterable[CodeType]) -> Iterator[str]:
    """All that these functions, and functions within them, name or say."""
    waiting = list(codes)
    while waiting:
        code = waiting.pop()
        yield from code.co_names
        yield from (one for one in code.co_consts if isinstance(one, str))
        waiting += [one for one in code.co_consts if isinstance(one, CodeType)]
