"""Chains for clients of AG-UI: they ask questions, call the client's tools, have sub-agents and have a state.

GATEWAY_CHAINS names this module in a gateway process of a test.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, TypedDict

from langchain.agents import create_agent
from langchain_core.callbacks import adispatch_custom_event
from langchain_core.messages import AIMessage, convert_to_messages
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt

from tests.support import approving, asking
from tests.support.adapted import Scripted, calls
from workers.chains.registry import chain


class Talking(TypedDict, total=False):
    messages: Annotated[list[Any], add_messages]
    said: Annotated[dict[str, Any], asking.merged]


def _asks(question: Any, *names: str, **options: Any) -> Any:
    """Make a graph whose nodes, with these names, ask in parallel. A last node writes the answers that they
    got."""
    builder: Any = StateGraph(Talking)
    for name in names:

        async def node(state: Talking, name: str = name) -> Any:
            return {"said": {name: interrupt(question, **options)}}

        builder.add_node(name, node)
        builder.add_edge(START, name)
    builder.add_node("last", asking.ends)
    builder.add_edge(list(names), "last")
    return builder.compile()


SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
chain("asks")(lambda _: _asks({"question": "Send it?"}, "ask"))
chain("asks-by-schema")(lambda _: _asks("ok?", "ask", response_schema=SCHEMA))
chain("asks-thrice")(lambda _: _asks("well?", "a", "b", "c"))


@tool
def shout(word: str) -> str:
    """Shout a word."""
    return word.upper()


@tool
async def research(topic: str) -> str:
    """Let another agent research a topic."""
    answers = [AIMessage("I look", tool_calls=calls("shout", word=topic).tool_calls), AIMessage("it is loud")]
    agent: Any = create_agent(Scripted(answers=answers), [shout])
    told = await agent.ainvoke({"messages": [("user", topic)]})
    return str(told["messages"][-1].content)


@chain("delegates")
def delegates(_: Any) -> Any:
    """Make an agent that has another agent as a tool."""
    return create_agent(
        Scripted(answers=[calls("research", topic="cats"), AIMessage("so it is")]), [research]
    )


@chain("paints")
def paints(_: Any) -> Any:
    """Make a model that calls the first tool of the client and then writes the result of the call."""

    async def answer(given: Any, config: RunnableConfig) -> Any:
        [*_, last] = convert_to_messages(given["messages"] if isinstance(given, dict) else given)
        if last.type == "tool":
            return await Scripted(answers=[AIMessage(f"it is {last.content}")]).ainvoke([])
        bound = config["configurable"]["tools"]
        asked = calls(bound[0]["function"]["name"], colour="red")
        asked.response_metadata["finish_reason"] = "tool_calls"
        return await Scripted(answers=[asked]).ainvoke([])

    return RunnableLambda(answer)


@chain("counts")
def counts(_: Any) -> Any:
    """Make a chain with a state, which it publishes as a custom event."""

    async def answer(given: Any, config: RunnableConfig) -> str:
        state = config["configurable"].get("state", {"count": 0})
        await adispatch_custom_event("state", {"count": state["count"] + 1})
        await adispatch_custom_event("noted", {"by": "counts"})
        return json.dumps(state)

    return RunnableLambda(answer)


__all__ = ["approving"]
