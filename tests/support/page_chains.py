"""Chains that stop to ask a person, one for each kind of question, and a chain whose second stage fails once.

GATEWAY_CHAINS names this module in the gateway process of the page's tests.
"""

from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langgraph.graph import START, StateGraph

from tests.support.adapted import Scripted
from tests.support.asking import Answers, _asks, _graph, begins, ends, send
from workers.chains.registry import chain

ASKED: dict[str, Any] = {"type": "object", "required": ["text"]}
HOSTILE = '<img src="x" onerror="alert(1)"> <b>Which</b> word?'
AMOUNT = {
    "type": "object",
    "properties": {
        "count": {"type": "integer", "minimum": 1, "title": "How many"},
        "size": {"enum": ["small", "large"], "title": "Size"},
        "note": {"type": "string", "title": "Note", "description": "For the kitchen."},
    },
    "required": ["count", "size"],
}


class Echo(Scripted):
    """A model that calls its tools, and then writes the answer of the last tool."""

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        if isinstance(messages[-1], ToolMessage):
            return AIMessage("; ".join(str(one.text) for one in messages if isinstance(one, ToolMessage)))
        return super()._next(messages)


def _letters(*names: str, **options: Any) -> Any:
    calls = [{"name": "send", "args": {"to": name}, "id": f"to-{name}"} for name in names]
    model = Echo(answers=[AIMessage("I will write.", tool_calls=calls)])
    on: Any = {"send": {"allowed_decisions": ["approve", "edit", "reject"], "description": "A letter."}}
    return create_agent(model, [send], middleware=[HumanInTheLoopMiddleware(interrupt_on=on, **options)])


@chain("letter")
def letter(_: Any) -> Any:
    """Make an agent with one call that a person has to allow."""
    return _letters("Ann")


@chain("letters")
def letters(_: Any) -> Any:
    """Make an agent that asks about two calls in one question."""
    return _letters("Ann", "Bob")


@chain("letters-each")
def letters_each(_: Any) -> Any:
    """Make an agent that asks about two calls in two questions. Each has a schema for its answer."""
    return _letters("Ann", "Bob", interrupt_mode="per_call")


@chain("word", input=ASKED)
def word(_: Any) -> Any:
    """Make a graph with a raw `interrupt()`, whose text must not be trusted."""
    return _graph(("ask", _asks("word", HOSTILE)), last=ends)


@chain("order", input=ASKED)
def order(_: Any) -> Any:
    """Make a graph of two parallel nodes: one question lists choices, the other has the schema of an
    object."""
    which = {"question": "Which soup?", "choices": ["leek", "pea"]}
    return _graph(
        ("soup", _asks("soup", which)),
        ("amount", _asks("amount", "How much?", response_schema=AMOUNT)),
        last=ends,
        side_by_side=True,
    )


@chain("stands", input=ASKED)
def stands(_: Any) -> Any:
    """Make a graph that stops before its last node and asks no question."""
    builder: Any = StateGraph(Answers)
    builder.add_node("begins", begins)
    builder.add_node("last", _say)
    builder.add_edge(START, "begins")
    builder.add_edge("begins", "last")
    return builder.compile(interrupt_before=["last"])


async def _say(_: Answers) -> Any:
    said = await Scripted(answers=[AIMessage("over the edge")]).ainvoke("q")
    return {"text": str(said.text)}


failed: set[str] = set()


async def _draft(given: Any) -> str:
    return "a draft"


async def _check(given: Any) -> str:
    if "check" not in failed:
        failed.add("check")
        raise ValueError("not ready")
    return f"checked {given['draft']}"


@chain("checked", stages=("draft", "check"), tries=1)
def checked(_: Any) -> Any:
    """Make a chain of two stages. The second stage fails the first time."""
    return {"draft": RunnableLambda(_draft), "check": RunnableLambda(_check)}


@chain("unset", tries=1)
def unset(_: Any) -> Any:
    """One that always fails, and whose exception has text that is not to be trusted."""

    async def look(given: Any) -> str:
        raise ValueError("MAPS_KEY is not set <b>here</b>" + "\nand another line" * 60)

    return RunnableLambda(look)
