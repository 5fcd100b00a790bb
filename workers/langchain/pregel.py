"""All uses of undocumented parts of LangGraph. This module is imported only when a graph is run.

* `StreamMessagesHandler` decides what `stream_mode="messages"` shows. With it, exactly that is emitted, and
  the writer is awaited. The mode itself has an unbounded queue, which does not wait. * A graph uses the
  `StreamWriter` of the run around it if its configuration has a stream, as that of a subgraph
  has. With the writer of this product there, the output of a node comes in its place among tokens and tools,
  at every depth. The
  mode `custom` shows it later, in an order that the next attempt need not repeat. * A compiled graph knows
  its `builder`: its edges, and the functions of its nodes. From these, `ways`
  finds the nodes that are not the last to emit text.

`tests/test_adapter_shapes.py` fails if LangGraph changes these parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import langgraph.runtime
from langgraph._internal._constants import CONFIG_KEY_CHECKPOINT_NS, CONFIG_KEY_RUNTIME, CONFIG_KEY_STREAM
from langgraph._internal._runnable import RunnableCallable
from langgraph.config import get_config
from langgraph.graph import END, StateGraph
from langgraph.pregel import Pregel
from langgraph.pregel._messages import StreamMessagesHandler
from langgraph.pregel.protocol import StreamProtocol
from langgraph.runtime import Runtime

__all__ = [
    "END",
    "Ends",
    "StreamMessagesHandler",
    "control",
    "edges_of",
    "functions_of",
    "is_drained",
    "writing_to",
    "written_at",
]


@dataclass(frozen=True, slots=True)
class Ends:
    """The nodes after a node: those that `always` follow, and those of each choice (None: unknown)."""

    always: frozenset[str]
    choices: Sequence[frozenset[str] | None]


def edges_of(graph: Any) -> dict[str, Ends]:
    """Return, by node, the nodes after it.

    The result is empty for a graph that was not made of nodes and edges.
    """
    builder = getattr(graph, "builder", None)
    if not isinstance(builder, StateGraph):
        return {}
    edges = [*builder.edges, *((one, end) for starts, end in builder.waiting_edges for one in starts)]
    found = {}
    for name, node in builder.nodes.items():
        choices = [
            None if branch.ends is None else frozenset(branch.ends.values())
            for branch in builder.branches.get(name, {}).values()
        ]
        if node.ends and not isinstance(node.runnable, Pregel):  # a subgraph may end without handing over
            choices.append(frozenset(node.ends))
        found[name] = Ends(frozenset(end for start, end in edges if start == name), choices)
    return found


def functions_of(graph: Any, name: str) -> list[Any] | None:
    """Return a node's functions: an empty list for a node of tools, None if the node is no function."""
    runnable = graph.builder.nodes[name].runnable
    if any(kind.__name__ == "ToolNode" for kind in type(runnable).__mro__):
        return []
    if not isinstance(runnable, RunnableCallable):
        return None
    return [one for one in (runnable.func, runnable.afunc) if one is not None]


def control() -> Any:
    """Return the object that stops a graph at the end of a step (`request_drain`).

    Return None for a LangGraph version without it.
    """
    made = getattr(langgraph.runtime, "RunControl", None)
    return made() if made else None


def is_drained(error: BaseException) -> bool:
    """Return whether this error says that the graph was stopped in this way."""
    return any(kind.__name__ == "GraphDrained" for kind in type(error).__mro__)


def writing_to(write: Callable[[Any], None], graph: Any, steps: Any = None) -> dict[str, Any]:
    """Return entries for a run's `configurable` that send everything that the graph's nodes write to `write`.

    `steps` receives LangGraph's reports about its steps, at every depth.
    """
    told = StreamProtocol(lambda chunk: None, set())
    if steps is not None:
        told = StreamProtocol(steps.take, steps.modes())
    return {
        CONFIG_KEY_RUNTIME: Runtime(stream_writer=write, store=graph.store),
        CONFIG_KEY_STREAM: told,
    }


def written_at() -> tuple[str, Any]:
    """Return where the calling code runs: the path of its task, and the id of LangChain's run."""
    try:
        config = get_config()
    except RuntimeError:  # the chain has started this thread itself
        return "", None
    path = str((config.get("configurable") or {}).get(CONFIG_KEY_CHECKPOINT_NS, ""))
    return path, getattr(config.get("callbacks"), "parent_run_id", None)
