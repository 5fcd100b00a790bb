"""A worker is stopped in the middle of each form of output.

The next attempt continues with no visible break.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import adispatch_custom_event
from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langgraph.config import get_stream_writer
from langgraph.graph import MessagesState

from tests.support.adapted import Scripted, calls, graph_of, says
from tests.support.jobs import Jobs, body
from workers.chains.registry import chain
from workers.delivery.runner import AGAIN, DONE


class Gate:
    """Blocks the first attempt at one point; later attempts pass, because the test has opened the gate."""

    def __init__(self) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def passes(self) -> None:
        self.reached.set()
        await self.opened.wait()


def agent_in_a_tool(gate: Gate) -> Any:
    @tool
    async def look(what: str) -> str:
        """Look."""
        get_stream_writer()({"looked": {what}})
        await gate.passes()
        return f"saw {what}"

    inner = [calls("look", "i1", "let me look", what="x"), AIMessage("so it is")]
    expert: Any = create_agent(Scripted(answers=inner), [look])

    @tool
    async def ask(query: str) -> str:
        """Ask."""
        return str((await expert.ainvoke({"messages": [("user", query)]}))["messages"][-1].text)

    return create_agent(Scripted(answers=[calls("ask", query="q"), AIMessage("It says so")]), [ask])


def rag(gate: Gate) -> Any:
    async def question(given: Any) -> str:
        await adispatch_custom_event("asked", {"at": {1: b"x"}})
        return "q"

    async def waits(said: Any) -> Any:
        async for piece in said:
            yield piece
            if piece == "two ":
                await gate.passes()

    asked: Runnable[Any, Any] = RunnableLambda(question)
    found: Runnable[Any, Any] = RunnableLambda(lambda _: [Document("d", id="d")])
    return RunnableParallel(context=found).assign(
        answer=asked | says("one two three") | StrOutputParser() | waits
    )


def two_models_in_a_node(gate: Gate) -> Any:
    class State(MessagesState):
        count: int

    async def node(state: State) -> dict[str, Any]:
        first = await says("one two").ainvoke("q")
        second = await says("three four").ainvoke("q")
        await gate.passes()
        return {"messages": [first, second, AIMessage("five")], "count": 3}

    return graph_of(State, node)


@pytest.mark.parametrize("make", [agent_in_a_tool, rag, two_models_in_a_node])
async def test_a_death_in_the_middle_is_not_noticed(redis_url: str, make: Any) -> None:
    gate = Gate()
    chain("dying")(lambda _: make(gate))
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream("q", chain="dying")
        first = asyncio.create_task(jobs.runner.run(body(stream_id)))
        await asyncio.wait_for(gate.reached.wait(), 30)
        first.cancel()
        assert await first == AGAIN
        gate.opened.set()
        before = await jobs.kinds(stream_id)
        assert await jobs.runner.run(body(stream_id)) == DONE
        after = await jobs.kinds(stream_id)
        assert "reset" not in after
        assert len(before) < len(after)
        whole = [message.event() for message in await jobs.messages(stream_id)]
        other = await jobs.stream("q", chain="dying")
        assert await jobs.runner.run(body(other)) == DONE
        alone = [message.event() for message in await jobs.messages(other)]
        assert [(event.type, event.data) for event in whole[1:-1]] == [
            (event.type, event.data) for event in alone[1:-1]
        ]
