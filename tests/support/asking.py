"""Graphs that stop to ask, none of which brings a checkpointer; each says what it was answered."""

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
    """A reducer, for nodes that run side by side."""
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
    """A node before the question, which says something."""
    said = await Scripted(answers=[AIMessage("well then")]).ainvoke("q")
    return {"text": str(said.text)}


async def ends(state: Answers) -> Any:
    """A node behind the question, which says what it was answered."""
    said = " ".join(f"{name}={value}" for name, value in sorted(state["said"].items()))
    await Scripted(answers=[AIMessage(said)]).ainvoke("q")
    return {"text": said}


def asks_once() -> Any:
    """A raw `interrupt()` between two nodes that speak."""
    return _graph(("begins", begins), ("ask", _asks("ask", {"question": "Send it?"})), last=ends)


def asks_by_schema() -> Any:
    """One that says what its answer has to be."""
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    return _graph(("ask", _asks("ask", "ok?", response_schema=schema)), last=ends)


def asks_thrice() -> Any:
    """Three nodes side by side, each with its question."""
    return _graph(*((name, _asks(name)) for name in "abc"), last=ends, side_by_side=True)


def asks_within() -> Any:
    """A subgraph that says something, asks, and says something more."""
    inner = _graph(("begins", begins), ("ask", _asks("ask")), last=ends)
    return _graph(("within", inner), last=ends)


def asks_twice() -> Any:
    """One node with two questions, one after the other."""

    async def node(state: Answers) -> Any:
        return {"said": {"first": interrupt("first?"), "second": interrupt("second?")}}

    return _graph(("ask", node), last=ends)


@tool
def look_up(word: str) -> str:
    """Look a word up, once somebody has said where."""
    return f"{word} in {interrupt({'where': word})}"


def asks_in_a_tool() -> Any:
    """An agent whose tool stops to ask."""
    return create_agent(Scripted(answers=[calls("look_up", word="cat"), AIMessage("it is there")]), [look_up])


@tool
def send(to: str) -> str:
    """Send a letter."""
    return f"sent to {to}"


def approves() -> Any:
    """LangChain's own middleware, which asks before a tool is called."""
    asks: Any = HumanInTheLoopMiddleware(interrupt_on={"send": True})
    model = Scripted(answers=[calls("send", to="Ann"), AIMessage("it is sent")])
    return create_agent(model, [send], middleware=[asks])


def jumps() -> Any:
    """A node that may be jumped over."""

    async def skipped(state: Answers) -> Any:
        return {"said": {"skipped": False}}

    return _graph(("ask", _asks("ask")), ("skipped", skipped), last=ends)


def register() -> None:
    """Each as a chain of its name, and one that asks in the second of three stages."""
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
