"""A graph's steps in the log.

They equal LangGraph's own modes, in every attempt, within an event's size limit.
"""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph

from gateway.protocol import Event, EventType, sse, steps
from gateway.writing.matcher import Matcher, Published
from tests.support.adapted import HERE, Scripted, calls, says, told
from workers.langchain.values import plain

STEPS = replace(HERE, graph={})
SAID = {"messages": [{"type": "human", "content": "hello", "id": "m-1"}]}


class State(MessagesState):
    steps: Annotated[list[str], operator.add]
    about: dict[str, Any]


def nested() -> Any:
    """Return a graph with a subgraph that streams text, between two nodes."""

    async def speak(state: State) -> dict[str, Any]:
        return {"messages": [await says("one two").ainvoke("q")], "steps": ["speak"]}

    inner = StateGraph(State).add_node(speak).add_edge(START, "speak").compile()

    async def begin(state: State) -> dict[str, Any]:
        return {"steps": ["begin"], "about": {steps.REFERENCE: 1}}

    async def end(state: State) -> dict[str, Any]:
        return {"messages": [AIMessage("done", id="given")], "about": {}}

    whole = StateGraph(State).add_node(begin).add_node("inner", inner).add_node(end)
    return whole.add_edge(START, "begin").add_edge("begin", "inner").add_edge("inner", "end").compile()


@tool
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def agent() -> Any:
    from langchain.agents import create_agent

    return create_agent(Scripted(answers=[calls("add", "c1", a=1, b=2), AIMessage("It is 3")]), [add])


def small() -> Any:
    """Return a graph whose state is longer than an event may be."""

    async def node(state: State) -> dict[str, Any]:
        return {"steps": ["é" * 4000], "messages": [AIMessage("x\n" * 3000)]}

    return StateGraph(State).add_node(node).add_edge(START, "node").compile()


GRAPHS = {"nested": nested, "agent": agent, "small": small}


def kept(value: Any) -> Any:
    """Return a LangGraph value as JSON.

    Random message ids become None; only the ids that the test has set stay.
    """
    value = plain(value)
    if isinstance(value, dict):
        known = {name: kept(item) for name, item in value.items()}
        if "content" in known and known.get("id") not in ("m-1", "given"):
            known["id"] = None
        return known
    return [kept(item) for item in value] if isinstance(value, list) else value


def read(events: list[Event]) -> list[tuple[str, str, Any]]:
    """Return the updates and values that a reader can rebuild.

    Each item has the names in the namespace, the mode, the data.
    """
    book, found = steps.Book(), []
    for event in events:
        step = book.feed(event.data) if event.type is EventType.GRAPH else None
        if step is not None and step.kind != steps.MESSAGE:
            names = "|".join(part.partition(":")[0] for part in step.ns.split("|"))
            found.append((names, step.kind, kept(step.data)))
    return found


@pytest.mark.parametrize("name", GRAPHS)
async def test_updates_and_values_are_what_langgraph_tells(name: str) -> None:
    graph = GRAPHS[name]()
    theirs = []
    async for path, mode, data in graph.astream(SAID, stream_mode=["updates", "values"], subgraphs=True):
        theirs.append(("|".join(part.partition(":")[0] for part in path), mode, kept(data)))
    here = replace(STEPS, graph={"input": SAID}, max_event=8192 if name == "small" else HERE.max_event)
    events, _ = await told(GRAPHS[name](), here=here)
    assert read(events) == theirs
    longest = max(len(sse.dumps(event.data)) for event in events if event.type is EventType.GRAPH)
    assert longest < here.max_event


@pytest.mark.parametrize("name", GRAPHS)
async def test_an_attempt_that_follows_a_death_says_the_same(name: str) -> None:
    first, _ = await told(GRAPHS[name](), SAID, here=STEPS)
    for length in range(len(first) + 1):
        events, _ = await told(GRAPHS[name](), SAID, here=STEPS)
        matcher = Matcher(Published("g", 1, "1-ab", events=first[:length]), 2)
        written = [new for event in events for new in matcher.take(event)] + matcher.end()
        assert EventType.RESET not in [event.type for event in written]
        assert read(first[:length] + written) == read(first)


async def test_the_ids_in_the_log_are_those_of_the_state() -> None:
    values: list[Any] = []

    async def last(state: State) -> dict[str, Any]:
        values.extend(state["messages"])
        return {}

    whole = StateGraph(State).add_node("inner", nested()).add_node(last)
    graph = whole.add_edge(START, "inner").add_edge("inner", "last").compile()
    events, _ = await told(graph, SAID, here=STEPS)
    ids = {event.data["own"]["id"] for event in events if event.data.get("kind") == steps.MESSAGE}
    assert ids == {one.id for one in values if isinstance(one, BaseMessage)}


async def test_a_message_that_is_said_in_pieces_has_its_number_at_each() -> None:
    events, _ = await told(agent(), SAID, here=STEPS)
    began = [e.data for e in events if e.data.get("kind") == steps.MESSAGE and e.data["state"] == "started"]
    pieces = [event.data for event in events if event.type is EventType.MESSAGE]
    assert {one["number"] for one in pieces} <= {one["number"] for one in began}
    assert "".join(one["delta_content"] for one in pieces) == "It is 3"


async def test_nothing_of_it_is_told_where_nobody_has_asked() -> None:
    events, _ = await told(nested(), SAID)
    assert not [event for event in events if event.type is EventType.GRAPH or "number" in event.data]
