"""What we take of LangGraph's that it does not document, all of it here; imported only where a graph is run.

* `StreamMessagesHandler` decides what `stream_mode="messages"` shows. By it we show exactly that, and yet
  await the writer, which the mode's queue without a bound does not.
* A graph takes the `StreamWriter` of the run around it where its configuration has a stream, as a subgraph's
  has. With ours there, what a node writes comes in its place among tokens and tools, at every depth; the mode
  `custom` tells it later, in an order that the next attempt need not repeat.
* A compiled graph knows what it was made of (`builder`): its edges, and its nodes' functions. By them `ways`
  knows which nodes are not the last to speak.

`tests/test_adapter_pregel.py` fails where LangGraph changes these.
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
    """What comes behind a node: `always`, and some of each choice, which is None where it is not known."""

    always: frozenset[str]
    choices: Sequence[frozenset[str] | None]


def edges_of(graph: Any) -> dict[str, Ends]:
    """By node, what comes behind it; nothing of a graph that was not made of nodes and edges."""
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
        if node.ends and not isinstance(node.runnable, Pregel):  # a subgraph need not hand over
            choices.append(frozenset(node.ends))
        found[name] = Ends(frozenset(end for start, end in edges if start == name), choices)
    return found


def functions_of(graph: Any, name: str) -> list[Any] | None:
    """A node's functions; nothing for a node of tools, None for what is no function."""
    runnable = graph.builder.nodes[name].runnable
    if any(kind.__name__ == "ToolNode" for kind in type(runnable).__mro__):
        return []
    if not isinstance(runnable, RunnableCallable):
        return None
    return [one for one in (runnable.func, runnable.afunc) if one is not None]


def control() -> Any:
    """What stops a graph at the end of a step (`request_drain`); None in a LangGraph without such a thing."""
    made = getattr(langgraph.runtime, "RunControl", None)
    return made() if made else None


def is_drained(error: BaseException) -> bool:
    """Whether a graph has stopped for that."""
    return any(kind.__name__ == "GraphDrained" for kind in type(error).__mro__)


def writing_to(write: Callable[[Any], None], graph: Any, steps: Any = None) -> dict[str, Any]:
    """What a run's `configurable` says so that all that the graph's nodes write goes to `write`.

    `steps` takes what LangGraph tells of its steps, at every depth.
    """
    told = StreamProtocol(lambda chunk: None, set())
    if steps is not None:
        told = StreamProtocol(steps.take, steps.modes())
    return {
        CONFIG_KEY_RUNTIME: Runtime(stream_writer=write, store=graph.store),
        CONFIG_KEY_STREAM: told,
    }


def written_at() -> tuple[str, Any]:
    """Where the code that calls this runs: the path of its task, and the id of LangChain's run."""
    try:
        config = get_config()
    except RuntimeError:  # a thread of the chain's own
        return "", None
    path = str((config.get("configurable") or {}).get(CONFIG_KEY_CHECKPOINT_NS, ""))
    return path, getattr(config.get("callbacks"), "parent_run_id", None)
