"""Graphs that stop to ask a question and then say the answer that they got. No graph has a checkpointer."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from tests.support.adapted import Scripted, calls
from workers.chains.registry import chain


def merged(left: dict[str, Any] | None, right: dict[str, Any]) -> dict[str, Any]:
    """Merge two states. It is the reducer for nodes that run in parallel."""
    return {**(left or {}), **right}


class Answers(TypedDict, total=False):
    text: str
    said: Annotated[dict[str, Any], merged]


def _graph(*nodes: tuple[str, Any], last: Any = None, side_by_side: bool = False) -> Any:
    builder: Any = StateGraph(Answers)
    before = START
    for name, node in nodes:
        builder.add_node(name, node)
        builder.add_edge(START if side_by_side else before, name)
        before = name
    if last is not None:
        builder.add_node("last", last)
        builder.add_edge([name for name, _ in nodes], "last")
    return builder.compile()


def _asks(name: str, question: Any = None, **options: Any) -> Any:
    async def node(state: Answers) -> Any:
        return {"said": {name: interrupt(question or f"{name}?", **options)}}

    return node


async def begins(state: Answers) -> Any:
    """Say something. This node runs before the question."""
    said = await Scripted(answers=[AIMessage("well then")]).ainvoke("q")
    return {"text": str(said.text)}


async def ends(state: Answers) -> Any:
    """Say the answer to the question. This node runs after the question."""
    said = " ".join(f"{name}={value}" for name, value in sorted(state["said"].items()))
    await Scripted(answers=[AIMessage(said)]).ainvoke("q")
    return {"text": said}


def asks_once() -> Any:
    """Make a graph with a raw `interrupt()` between two nodes that speak."""
    return _graph(("begins", begins), ("ask", _asks("ask", {"question": "Send it?"})), last=ends)


def asks_by_schema() -> Any:
    """Make a graph whose question has a JSON schema for the answer."""
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    return _graph(("ask", _asks("ask", "ok?", response_schema=schema)), last=ends)


def asks_thrice() -> Any:
    """Make a graph of three parallel nodes. Each node asks a question."""
    return _graph(*((name, _asks(name)) for name in "abc"), last=ends, side_by_side=True)


def asks_within() -> Any:
    """Make a graph whose subgraph says something, asks, and says something more."""
    inner = _graph(("begins", begins), ("ask", _asks("ask")), last=ends)
    return _graph(("within", inner), last=ends)


def asks_twice() -> Any:
    """Make a graph whose one node asks two questions, one after the other."""

    async def node(state: Answers) -> Any:
        return {"said": {"first": interrupt("first?"), "second": interrupt("second?")}}

    return _graph(("ask", node), last=ends)


@tool
def look_up(word: str) -> str:
    """Look up a word, after a person has said where to look."""
    return f"{word} in {interrupt({'where': word})}"


def asks_in_a_tool() -> Any:
    """Make an agent whose tool stops to ask a question."""
    return create_agent(Scripted(answers=[calls("look_up", word="cat"), AIMessage("it is there")]), [look_up])


@tool
def send(to: str) -> str:
    """Send a letter."""
    return f"sent to {to}"


def approves() -> Any:
    """Make an agent with LangChain's own middleware, which asks before a tool is called."""
    asks: Any = HumanInTheLoopMiddleware(interrupt_on={"send": True})
    model = Scripted(answers=[calls("send", to="Ann"), AIMessage("it is sent")])
    return create_agent(model, [send], middleware=[asks])


def jumps() -> Any:
    """Make a graph with a node that can be skipped."""

    async def skipped(state: Answers) -> Any:
        return {"said": {"skipped": False}}

    return _graph(("ask", _asks("ask")), ("skipped", skipped), last=ends)


def register() -> None:
    """Register each graph as a chain with its own name, and a chain whose second of three stages asks."""
    for make in (
        asks_once,
        asks_by_schema,
        asks_thrice,
        asks_within,
        asks_twice,
        asks_in_a_tool,
        approves,
        jumps,
    ):
        chain(make.__name__)(lambda _, make=make: make())  # type: ignore[misc]


__all__ = ["Answers", "Command", "ToolMessage", "register"]
