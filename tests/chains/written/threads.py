"""Conversations: LangGraph threads, by LangGraph's own SDK, against the graph with its own checkpointer."""

from __future__ import annotations

from typing import Annotated, TypedDict

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt

from tests.chains.cases import given, llm, resume, say, talk


def send_email(to: str, body: str) -> str:
    """Send an email."""
    return f"sent to {to}"


def speaks():
    model = llm()

    async def node(state):
        return {"messages": [await model.ainvoke(state["messages"])]}

    return node


@talk("memory_of_text", "memory", say("#echo one"), say("#echo two"))
def memory_of_text(settings):
    b = StateGraph(MessagesState)
    b.add_node("a", speaks())
    b.add_edge(START, "a")
    return b.compile(checkpointer=InMemorySaver())


@talk(
    "memory_of_tools",
    "memory",
    say("#weather now"),
    say("#roles please"),
    note="the model sees its earlier calls and their answers",
)
def memory_of_tools(settings):
    def get_weather(city: str) -> str:
        """Weather."""
        return f"sunny in {city}"

    return create_agent(llm(), [get_weather], checkpointer=InMemorySaver())


class Counted(TypedDict, total=False):
    messages: Annotated[list, add_messages]
    visits: int
    lang: str


@talk(
    "memory_of_state",
    "memory",
    say("#echo x", lang="de"),
    say("#echo y"),
    note="keys beside the messages stay",
)
def memory_of_state(settings):
    async def count(state):
        return {"visits": (state.get("visits") or 0) + 1}

    b = StateGraph(Counted)
    b.add_node("count", count)
    b.add_node("a", speaks())
    b.add_edge(START, "count")
    b.add_edge("count", "a")
    return b.compile(checkpointer=InMemorySaver())


@talk(
    "approve",
    "resume",
    say("#sideeffect"),
    resume({"decisions": [{"type": "approve"}]}),
    note="HumanInTheLoopMiddleware",
)
def approve(settings):
    asks = HumanInTheLoopMiddleware(interrupt_on={"send_email": True})
    return create_agent(llm(), [send_email], middleware=[asks], checkpointer=InMemorySaver())


class Draft(TypedDict, total=False):
    text: str
    revised: str


@talk("revise", "resume", given(text="draft"), resume("a better draft"), note="interrupt() in a node")
def revise(settings):
    async def human(state):
        return {"revised": interrupt({"text_to_revise": state["text"]})}

    async def publish(state):
        return {"text": f"published: {state['revised']}"}

    b = StateGraph(Draft)
    b.add_node("human", human)
    b.add_node("publish", publish)
    b.add_edge(START, "human")
    b.add_edge("human", "publish")
    b.add_edge("publish", END)
    return b.compile(checkpointer=InMemorySaver())
