"""LangGraph graphs in the way of its documentation."""

from __future__ import annotations

import asyncio
import operator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, TypedDict

from langchain_core.messages import RemoveMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import CachePolicy, Send, interrupt

from tests.chains.cases import case, documents, llm

# LangGraph evaluates the annotations of nodes and states in the module where they are written. So the states
# are defined here, not in factories.


def graph_of(state, *nodes, **options):
    """Make a graph of nodes in sequence, each (name, function)."""
    b = StateGraph(state)
    before = START
    for name, node in nodes:
        b.add_node(name, node)
        b.add_edge(before, name)
        before = name
    return b.compile(**options)


def speaks(what: str | None = None):
    """Make a node that asks a model: about the conversation, or with a directive."""
    model = llm()

    async def node(state):
        return {"messages": [await model.ainvoke(what or state["messages"])]}

    return node


@case("chatbot", "nodes", user="#echo hi", note="the quickstart: a node that is not async")
def chatbot(settings):
    model = llm()

    def node(state: MessagesState):
        return {"messages": [model.invoke(state["messages"])]}

    return graph_of(MessagesState, ("chatbot", node))


class Jokes(TypedDict):
    topic: str
    subjects: list
    jokes: Annotated[list, operator.add]
    best: str


@case("map_reduce", "state", input={"topic": "animals"}, note="Send, and a state without messages")
def map_reduce(settings):
    model = llm()

    async def topics(state):
        return {"subjects": (await model.ainvoke(f"#plan {state['topic']}")).content.split("\n")}

    async def tell(state):
        return {"jokes": [(await model.ainvoke(f"#joke {state['subject']}")).content]}

    async def pick(state):
        return {"best": (await model.ainvoke("#best of " + " ".join(state["jokes"]))).content}

    b = StateGraph(Jokes)
    b.add_node("topics", topics).add_node("tell", tell).add_node("pick", pick)
    b.add_edge(START, "topics")
    b.add_conditional_edges(
        "topics", lambda state: [Send("tell", {"subject": s}) for s in state["subjects"]], ["tell"]
    )
    b.add_edge("tell", "pick")
    return b.compile()


@case("subgraph", "nodes", user="#echo hi", note="a compiled graph as a node")
def subgraph(settings):
    team = graph_of(MessagesState, ("inner", speaks("#poem")), ("inner2", speaks("#story")))
    return graph_of(MessagesState, ("first", speaks()), ("team", team))


@case(
    "subgraph_own_checkpoints",
    "subgraph",
    user="#echo hi",
    note="a node that is a graph with checkpointer=True",
)
def subgraph_own_checkpoints(settings):
    team = graph_of(
        MessagesState, ("inner", speaks("#poem")), ("inner2", speaks("#story")), checkpointer=True
    )
    return graph_of(MessagesState, ("team", team), checkpointer=InMemorySaver())


class Topic(TypedDict, total=False):
    topic: str
    out: str


@case("subgraph_within_node", "nodes", input={"topic": "x"})
def subgraph_within_node(settings):
    inner = graph_of(MessagesState, ("inner", speaks("#poem")))

    async def node(state):
        return {
            "out": (await inner.ainvoke({"messages": [("user", state["topic"])]}))["messages"][-1].content
        }

    return graph_of(Topic, ("node", node))


class Draft(TypedDict, total=False):
    text: str
    a: str
    b: str
    c: str


@case("asks", "interrupts", input={"text": "draft"})
def asks(settings):
    async def human(state):
        return {"text": interrupt({"text_to_revise": state["text"]})}

    return graph_of(Draft, ("human", human), checkpointer=InMemorySaver())


def side_by_side(state, nodes, **options):
    b = StateGraph(state)
    for name, node in nodes.items():
        b.add_node(name, node)
        b.add_edge(START, name)
    return b.compile(**options)


@case(
    "asks_twice", "interrupts", input={"text": "1"}, note="two nodes side by side, each of which stops to ask"
)
def asks_twice(settings):
    model = llm()

    async def first(state):
        await model.ainvoke("#poem")
        return {"a": interrupt({"ask": "p", "at": datetime(2026, 1, 1, tzinfo=UTC), "cost": Decimal("1.5")})}

    async def second(state):
        return {"b": interrupt("q?")}

    return side_by_side(Draft, {"first": first, "second": second}, checkpointer=InMemorySaver())


@case("breakpoint_before", "breakpoint", user="#echo x", note="compile(interrupt_before=[...])")
def breakpoint_before(settings):
    return graph_of(
        MessagesState,
        ("a", speaks()),
        ("b", speaks("#poem")),
        checkpointer=InMemorySaver(),
        interrupt_before=["b"],
    )


@case("two_nodes_speak", "nodes", user="x", note="at the same time")
def two_nodes_speak(settings):
    return side_by_side(MessagesState, {"left": speaks("#slow"), "right": speaks("#slowb")})


@case("two_models_speak", "two models", user="x", note="at the same time, in one node")
def two_models_speak(settings):
    model = llm()

    async def node(state: MessagesState):
        return {"messages": list(await asyncio.gather(model.ainvoke("#slow"), model.ainvoke("#slowb")))}

    return graph_of(MessagesState, ("node", node))


@case("functional", "functional", input={"topic": "cats"}, note="@entrypoint and @task")
def functional(settings):
    from langgraph.func import entrypoint, task

    model = llm()

    @task
    async def write(topic):
        return (await model.ainvoke(f"#joke {topic}")).content

    @task
    async def improve(joke):
        return (await model.ainvoke("#best")).content

    @entrypoint(checkpointer=InMemorySaver())
    async def workflow(given: dict, *, previous: Any = None):
        joke = await write(given["topic"])
        return {"joke": joke, "improved": await improve(joke), "length": len(joke)}

    return workflow


class Log(TypedDict, total=False):
    t: str
    log: Annotated[list, operator.add]


@case("deferred", "nodes", input={"t": "x"})
def deferred(settings):
    def adds(x):
        async def node(state):
            return {"log": [x]}

        return node

    b = StateGraph(Log)
    for name in "abcd":
        b.add_node(name, adds(name), defer=name == "d")
    for a, z in ((START, "a"), (START, "b"), ("b", "c"), ("a", "d"), ("c", "d")):
        b.add_edge(a, z)
    return b.compile()


@case(
    "cached_node", "nodes", user="#story x", times=2, note="asked twice; the second time comes from the cache"
)
def cached_node(settings):
    from langgraph.cache.memory import InMemoryCache

    b = StateGraph(MessagesState)
    b.add_node("talk", speaks("#story"), cache_policy=CachePolicy(ttl=120, key_func=lambda state: "k"))
    b.add_edge(START, "talk")
    return b.compile(cache=InMemoryCache())


TRIMMED = [
    {"role": "user", "content": "one"}, {"role": "assistant", "content": "two"},
    {"role": "user", "content": "#echo three"},
]  # fmt: skip


@case("trims_messages", "nodes", messages=TRIMMED)
def trims_messages(settings):
    def trim(state: MessagesState):
        return {"messages": [RemoveMessage(id=m.id) for m in state["messages"][:-1]]}

    return graph_of(MessagesState, ("talk", speaks()), ("trim", trim))


class Found(TypedDict, total=False):
    question: str
    docs: list
    answer: str


@case(
    "answer_and_documents",
    "state",
    input={"question": "#story"},
    note="a state with an answer, and what it was made from",
)
def answer_and_documents(settings):
    model = llm()

    async def retrieve(state):
        return {"docs": documents()}

    async def generate(state):
        return {"answer": (await model.ainvoke(state["question"])).content}

    return graph_of(Found, ("retrieve", retrieve), ("generate", generate))


@dataclass
class Point:
    x: int
    y: float


class Odd(TypedDict, total=False):
    n: int
    odd: dict


@case("odd_values", "nodes", input={"n": 1}, note="a state with values that are no JSON")
def odd_values(settings):
    def make(state):
        odd = {
            "point": Point(1, 2.5),
            "at": datetime(2026, 1, 1, tzinfo=UTC),
            "raw": b"\x00\xff",
            "cost": Decimal("1.10"),
        }
        return {"odd": odd | {"set": {1, 2}, "tuple": (1, "a"), "nan": float("nan"), "big": 2**70}}

    return graph_of(Odd, ("make", make))


@dataclass
class Who:
    user: str = "nobody"
    lang: str = "en"


@case("runtime_context", "context", input={"n": 1}, params={"user": "Ada", "lang": "de"}, context=True)
def runtime_context(settings):
    async def node(state, runtime: Runtime[Who]):
        return {"odd": {"user": runtime.context.user, "lang": runtime.context.lang}}

    b = StateGraph(Odd, context_schema=Who)
    b.add_node("node", node)
    b.add_edge(START, "node")
    return b.compile()


class Blob(TypedDict, total=False):
    n: int
    blob: str


@case("large_state", "nodes", input={"n": 1}, allow=("bounds",), note="5 MB, and nobody speaks")
def large_state(settings):
    return graph_of(Blob, ("big", lambda state: {"blob": "x" * 5_000_000}))
