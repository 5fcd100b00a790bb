"""A graph's node output and its final result are the same as LangGraph's own modes and `ainvoke` give."""

from __future__ import annotations

import asyncio
import operator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, TypedDict

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.retrievers import BaseRetriever
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, RetryPolicy, Send, interrupt
from pydantic import BaseModel

from tests.support.adapted import HERE, calls, graph_of, kinds, result, says, texts, told


class Topic(TypedDict, total=False):
    topic: str
    text: str
    other: str
    found: Annotated[list[Any], operator.add]


class Modelled(BaseModel):
    messages: Annotated[list[AnyMessage], add_messages] = []
    count: int = 0


@dataclass
class Classed:
    messages: Annotated[list[AnyMessage], add_messages] = field(default_factory=list)


def speaks(text: str) -> Any:
    """Return a node whose model answers with this text."""

    async def node(state: Any) -> dict[str, Any]:
        return {"messages": [await says(text).ainvoke("q")]}

    return node


def named(name: str, node: Any) -> Any:
    node.__name__ = name
    return node


def by_command(state: MessagesState) -> Command[Literal["__end__"]]:
    return Command(goto="__end__", update={"messages": [AIMessage("said")]})


def by_commands(state: MessagesState) -> list[Any]:
    return [Command(update={"messages": [AIMessage("said")]}), Command(goto=END)]


def by_a_dataclass(state: Classed) -> Classed:
    return Classed(messages=[AIMessage("said")])


def by_a_model(state: Modelled) -> Modelled:
    return Modelled(messages=[AIMessage("said")])


@pytest.mark.parametrize(
    ("schema", "node"),
    [
        (MessagesState, by_command),
        (MessagesState, by_commands),
        (Classed, by_a_dataclass),
        (Modelled, by_a_model),
    ],
)
async def test_a_message_is_shown_whatever_a_node_returns_it_in(schema: Any, node: Any) -> None:
    before = named("before", speaks("first"))
    events, outcome = await told(graph_of(schema, before, node))
    assert texts(events) == {("before",): "first", (node.__name__,): "said"}
    assert outcome.result == "said"


@pytest.mark.parametrize("schema", [Modelled, Classed, MessagesState])
async def test_history_that_a_node_returns_is_not_said_again(schema: Any) -> None:
    def node(state: Any) -> dict[str, Any]:
        before = state["messages"] if isinstance(state, dict) else state.messages
        return {"messages": [*before, AIMessage("new")]}

    asked = [HumanMessage("q"), AIMessage("old"), HumanMessage("and now?")]
    events, _ = await told(graph_of(schema, node), asked)
    assert texts(events) == {("node",): "new"}


@pytest.mark.parametrize("message", [{"role": "assistant", "content": "plain"}, ("ai", "plain")])
async def test_messages_that_langgraph_does_not_show_are_had_as_the_result(message: Any) -> None:
    """The message is the result also when another node has streamed text before."""

    def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [message]}

    events, outcome = await told(graph_of(MessagesState, named("before", speaks("hi")), node))
    assert (texts(events), result(events), outcome.result) == ({("before",): "hi"}, "plain", "plain")


async def test_what_a_state_holds_beside_its_messages_is_the_result_beside_the_text() -> None:
    class State(MessagesState):
        visits: int
        files: dict[str, str]

    async def node(state: State) -> dict[str, Any]:
        return {"messages": [await says("hi").ainvoke("q")], "visits": 2, "files": {"a.md": "text"}}

    events, outcome = await told(graph_of(State, node))
    assert texts(events) == {("node",): "hi"}
    assert result(events) == {"visits": 2, "files": {"a.md": "text"}}
    assert outcome.result == "hi"


async def test_a_graph_of_messages_alone_has_no_result_event() -> None:
    events, _ = await told(graph_of(MessagesState, named("node", speaks("hi"))))
    assert result(events) is None


async def test_a_last_message_that_was_not_said_is_the_result() -> None:
    def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [calls("t"), ToolMessage("directly", tool_call_id="c1")]}

    events, _ = await told(graph_of(MessagesState, named("before", speaks("hi")), node))
    assert result(events) == "directly"


async def test_an_entrypoints_value_is_the_result() -> None:
    @task
    async def write(topic: str) -> str:
        return str((await says(f"on {topic}").ainvoke("q")).content)

    @entrypoint()
    async def flow(given: dict[str, Any]) -> dict[str, Any]:
        text = await write(given["topic"])
        return {"text": text, "length": len(text)}

    events, outcome = await told(flow, {"topic": "owls"})
    assert "".join(texts(events).values()) == "on owls"
    assert result(events) == outcome.result == {"text": "on owls", "length": 7}


class Library(BaseRetriever):
    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        return [Document("x" * 3000, id="a")]


@pytest.mark.parametrize("finds", [Library(), None])
async def test_documents_are_told_once_and_never_make_a_stream_too_long(finds: Any) -> None:
    """Documents of a retriever are sent as sources when they are found.

    Other documents become sources when the result has no room for them.
    """

    async def node(state: Topic) -> dict[str, Any]:
        found = await finds.ainvoke("q") if finds else [Document("x" * 3000, id="a")]
        return {"found": found, "text": str((await says("hi").ainvoke("q")).content), "other": "more"}

    events, _ = await told(graph_of(Topic, node), {"topic": "t"}, here=replace(HERE, max_event=2000))
    sources = [data["data"] for data in kinds(events, "custom") if data["name"] == "sources"]
    assert [[one["id"] for one in found["documents"]] for found in sources] == [["a"]]
    assert result(events) == {"topic": "t", "text": "hi", "other": "more"}


async def test_a_graph_with_a_state_of_its_own_can_be_a_stage_of_several() -> None:
    """The stage passes on its whole result.

    The graph's state has no member named `input` or `earlier`, so the graph receives the members of `input`.
    """

    async def node(state: Topic) -> dict[str, Any]:
        return {"text": str((await says(f"on {state['topic']}").ainvoke("q")).content)}

    given = {"input": {"topic": "owls"}, "earlier": 1}
    events, outcome = await told(graph_of(Topic, node), given, here=replace(HERE, hands_on=True))
    assert texts(events) == {("node",): "on owls"}
    assert result(events) == outcome.result == {"topic": "owls", "text": "on owls", "found": []}


async def test_private_state_goes_to_nobody() -> None:
    class Answered(TypedDict):
        text: str

    def node(state: Topic) -> dict[str, Any]:
        return {"text": "public", "other": "secret"}

    for saver in (None, InMemorySaver()):
        builder: Any = StateGraph(Topic, output_schema=Answered)
        builder.add_node("node", node)
        builder.add_edge(START, "node")
        graph = builder.compile(checkpointer=saver)
        for _ in range(2):  # With a saver, the second run finds the graph already finished.
            events, outcome = await told(graph, {"topic": "t"})
            assert result(events) == outcome.result == {"text": "public"}
            assert "secret" not in str(events)


async def test_a_node_that_hands_over_to_the_graph_around_it_is_finished() -> None:
    def inner(state: MessagesState) -> Any:
        return Command(graph=Command.PARENT, goto="last", update={"messages": [HumanMessage("x")]})

    builder: Any = StateGraph(MessagesState)
    builder.add_node("team", graph_of(MessagesState, inner))
    builder.add_node("last", speaks("end"))
    builder.add_edge(START, "team")
    events, _ = await told(builder.compile())
    assert [(data["name"], data["state"]) for data in kinds(events, "stage")] == [
        ("team", "started"),
        ("team", "finished"),
        ("last", "started"),
        ("last", "finished"),
    ]


async def test_a_node_that_langgraph_tries_again_is_one_run_and_its_messages_are_told_apart() -> None:
    tries: list[int] = []

    async def node(state: MessagesState) -> dict[str, Any]:
        reply = await says("half").ainvoke("q")
        tries.append(1)
        if len(tries) < 2:
            raise ConnectionError
        return {"messages": [reply]}

    builder: Any = StateGraph(MessagesState)
    builder.add_node("node", node, retry_policy=RetryPolicy(initial_interval=0.001, jitter=False))
    builder.add_edge(START, "node")
    events, _ = await told(builder.compile())
    states = [(data["run"], data["state"]) for data in kinds(events, "stage")]
    assert states == [(1, "started"), (1, "finished")]
    assert texts(events) == {("node",): "half", ("node", 2): "half"}


def asks(question: Any) -> Any:
    async def node(state: Topic) -> dict[str, Any]:
        return {"found": [interrupt(question)]}

    return node


@pytest.mark.parametrize("saver", [None, InMemorySaver()])
@pytest.mark.parametrize("form", ["beside", "send", "subgraph"])
async def test_all_that_is_asked_at_once_is_told(form: str, saver: Any) -> None:
    builder: Any = StateGraph(Topic)
    if form == "send":
        builder.add_node("ask", lambda state: {"found": [interrupt(state["topic"])]})
        builder.add_conditional_edges(START, lambda _: [Send("ask", {"topic": t}) for t in "abc"])
    elif form == "beside":
        for name in "abc":
            builder.add_node(name, asks(name))
            builder.add_edge(START, name)
    else:
        for name in "abc":
            builder.add_node(name, graph_of(Topic, named("inner", asks(name))))
            builder.add_edge(START, name)
        builder.add_node("goes_on", lambda state: {"text": "on"})
        builder.add_edge(START, "goes_on")
    if form == "subgraph" and saver is None:
        return  # LangGraph itself cannot interrupt in a subgraph without a saver.
    here = replace(HERE, thread=form)
    events, outcome = await told(builder.compile(checkpointer=saver), {"topic": "t"}, here=here)
    assert sorted(one["value"] for one in outcome.interrupts) == ["a", "b", "c"]
    assert len({one["id"] for one in outcome.interrupts}) == 3
    assert outcome.finish_reason == "interrupted"
    assert result(events) is None


@pytest.mark.parametrize(
    ("stop", "said"), [({"interrupt_before": ["b"]}, 1), ({"interrupt_after": ["a"]}, 1), ({}, 2)]
)
@pytest.mark.parametrize("saver", [None, InMemorySaver])
async def test_a_breakpoint_is_told_with_what_is_next(stop: Any, said: int, saver: Any) -> None:
    nodes = (named("a", speaks("one")), named("b", speaks("two")))
    graph = graph_of(MessagesState, *nodes, checkpointer=saver() if saver else None, **stop)
    events, outcome = await told(graph)
    assert len(texts(events)) == said
    assert outcome.finish_reason == ("interrupted" if stop else "stop")
    assert outcome.upcoming == (["b"] if stop and saver else [])
    assert outcome.interrupts == []


@pytest.mark.parametrize(
    "stop", [{"interrupt_before": ["b"]}, {"interrupt_after": ["a"]}, {"interrupt_before": "*"}]
)
async def test_the_attempt_after_a_breakpoint_does_not_pass_it(stop: Any) -> None:
    """A worker may die between the breakpoint and the end of its stream.

    The next attempt must stop at the same breakpoint.
    """
    nodes = (named("a", speaks("one")), named("b", speaks("two")))
    graph = graph_of(MessagesState, *nodes, checkpointer=InMemorySaver(), **stop)
    first, before = await told(graph)
    events, outcome = await told(graph, standing=first)
    assert events == []
    assert (outcome.finish_reason, outcome.upcoming) == ("interrupted", before.upcoming)
    assert texts(first) == ({} if "*" in stop.values() else {("a",): "one"})


async def test_what_is_written_comes_in_its_place_from_every_depth() -> None:
    async def deep(state: MessagesState) -> dict[str, Any]:
        get_stream_writer()({"at": "deep"})
        reply = await says("one two").ainvoke("q")
        get_stream_writer()({"at": "after", "set": {1}})
        return {"messages": [reply]}

    def in_a_thread(state: MessagesState) -> dict[str, Any]:
        get_stream_writer()("thread")
        return {}

    events, _ = await told(graph_of(MessagesState, named("team", graph_of(MessagesState, deep)), in_a_thread))
    told_in_order = [
        event.data.get("data", event.data.get("delta_content", event.data.get("state"))) for event in events
    ]
    assert told_in_order == [
        "started",
        {"at": "deep"},
        "one ",
        "two",
        {"at": "after", "set": [1]},
        "finished",
        "started",
        "thread",
        "finished",
    ]
    written = kinds(events, "custom")
    assert [(data["name"], data["stage"], data.get("path")) for data in written] == [
        ("custom", "team", ["deep"]),
        ("custom", "team", ["deep"]),
        ("custom", "in_a_thread", None),
    ]


async def test_messages_of_two_models_in_one_node_are_told_apart() -> None:
    async def node(state: MessagesState) -> dict[str, Any]:
        replies = await asyncio.gather(says("a b c").ainvoke("q"), says("x y z").ainvoke("q"))
        return {"messages": list(replies)}

    events, _ = await told(graph_of(MessagesState, node))
    assert texts(events) == {("node",): "a b c", ("node", 2): "x y z"}


async def test_a_message_without_words_is_not_counted() -> None:
    """Example: a message that contains only a tool call."""

    def node(state: MessagesState) -> dict[str, Any]:
        wordless = AIMessage([{"type": "tool_use", "id": "c1", "name": "t", "input": {}}])
        return {"messages": [wordless, AIMessage("so")]}

    events, _ = await told(graph_of(MessagesState, node))
    assert texts(events) == {("node",): "so"}


async def test_what_a_subgraphs_nodes_say_bears_their_path() -> None:
    inner = graph_of(MessagesState, named("deep", speaks("one")), named("deeper", speaks("two")))
    stays = graph_of(MessagesState, named("kept", speaks("three")), checkpointer=True)
    builder: Any = StateGraph(MessagesState)
    builder.add_node("team", inner)
    builder.add_node("stays", stays)
    builder.add_edge(START, "team")
    builder.add_edge("team", "stays")
    events, _ = await told(builder.compile(checkpointer=InMemorySaver()))
    assert texts(events) == {
        ("team", "deep"): "one",
        ("team", 2, "deeper"): "two",
        ("stays", "kept"): "three",
    }


async def test_a_call_that_no_node_answers_is_the_clients_to_run() -> None:
    def node(state: MessagesState) -> dict[str, Any]:
        answered, open_ = calls("done", "c1"), calls("open", "c2", a=1)
        return {"messages": [answered, ToolMessage("x", tool_call_id="c1"), open_]}

    history = [HumanMessage("q"), calls("old", "c0")]
    events, _ = await told(graph_of(MessagesState, node), history)
    assert kinds(events, "tool") == [
        {"name": "open", "call_id": "c2", "stage": "g", "state": "started", "input": {"a": 1}}
    ]
