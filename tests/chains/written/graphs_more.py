"""Graphs again: Commands, states of models and dataclasses, graphs within sequences, what fails."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, TypedDict

from langchain_core.callbacks import adispatch_custom_event
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, RetryPolicy
from pydantic import BaseModel

from tests.chains.cases import case, llm
from tests.chains.written.graphs import Odd, graph_of, speaks


@case(
    "command_with_message",
    "command message",
    user="hello vague",
    note="a Command whose update has the answer",
)
def command_with_message(settings):
    async def clarify(state: MessagesState) -> Command[Literal["report", "__end__"]]:
        return Command(goto="report", update={"messages": [AIMessage("Good, I begin.")]})

    b = StateGraph(MessagesState)
    b.add_node("clarify", clarify)
    b.add_node("report", speaks("#story"))
    b.add_edge(START, "clarify")
    return b.compile()


class Clarified(BaseModel):
    need_clarification: bool
    question: str
    verification: str


@case(
    "command_asks_back",
    "command message",
    user="hello vague",
    note="a structured answer first, then a question by a Command",
)
def command_asks_back(settings):
    model = llm()

    async def clarify(state: MessagesState) -> Command[Literal["report", "__end__"]]:
        ask = model.with_structured_output(Clarified, method="function_calling").with_config(
            tags=["nostream"]
        )
        said = await ask.ainvoke([HumanMessage("#clarify vague")])
        if said.need_clarification:
            return Command(goto=END, update={"messages": [AIMessage(said.question)]})
        return Command(goto="report", update={"messages": [AIMessage(said.verification)]})

    b = StateGraph(MessagesState)
    b.add_node("clarify", clarify)
    b.add_node("report", speaks("#story"))
    b.add_edge(START, "clarify")
    return b.compile()


class Modelled(BaseModel):
    messages: Annotated[list[AnyMessage], add_messages] = []
    n: int = 0


@dataclass
class Classed:
    messages: Annotated[list[AnyMessage], add_messages] = field(default_factory=list)


@case("model_state", "state", user="hi", note="a state of pydantic's")
def model_state(settings):
    async def a(state: Modelled):
        return {"messages": [AIMessage(f"saw {state.messages[-1].content}")], "n": 1}

    return graph_of(Modelled, ("a", a))


@case("returns_dataclass", "command message", user="hi")
def returns_dataclass(settings):
    async def a(state: Classed):
        return Classed(messages=[AIMessage("a dataclass says hi")])

    return graph_of(Classed, ("a", a))


class Asked(TypedDict):
    question: str


class Answered(TypedDict):
    answer: str


class Private(Asked, Answered):
    secret: str


@case(
    "private_state",
    "output schema",
    input={"question": "q"},
    note="output_schema: what is not in it is not for readers",
)
def private_state(settings):
    def node(state: Asked):
        return {"answer": "public", "secret": "hidden"}

    b = StateGraph(Private, input_schema=Asked, output_schema=Answered)
    b.add_node("node", node)
    b.add_edge(START, "node")
    return b.compile()


@case("graph_in_the_middle", "graph in a sequence", user="#echo hi", oracle="ainvoke",
      note="function | graph | function: ainvoke gives the last one the whole state")  # fmt: skip
def graph_in_the_middle(settings):
    inner = graph_of(MessagesState, ("talk", speaks()))
    return (
        RunnableLambda(lambda x: {"messages": x})
        | inner
        | RunnableLambda(lambda state: state["messages"][-1].content)
    )


@case("graph_at_the_end", "plain", user="#echo hi")
def graph_at_the_end(settings):
    return RunnableLambda(lambda x: {"messages": x}) | graph_of(MessagesState, ("talk", speaks()))


@case("graph_in_generator", "plain", user="#story hi", note="a generator that yields a graph's tokens")
def graph_in_generator(settings):
    inner = graph_of(MessagesState, ("talk", speaks()))

    async def gen(given):
        async for message, _ in inner.astream({"messages": given}, stream_mode="messages"):
            yield message.content

    return RunnableLambda(gen)


@case(
    "node_retried",
    "node retry",
    user="#flaky node",
    note="RetryPolicy, and a model that breaks in mid-stream once",
)
def node_retried(settings):
    b = StateGraph(MessagesState)
    b.add_node(
        "talk", speaks(), retry_policy=RetryPolicy(max_attempts=3, initial_interval=0.05, retry_on=Exception)
    )
    b.add_edge(START, "talk")
    return b.compile()


@case(
    "said_again",
    "nodes",
    user="#story x",
    note="AIMessage(reply.content): LangGraph's own mode shows it twice too",
)
def said_again(settings):
    model = llm()

    async def talk(state: MessagesState):
        return {"messages": [AIMessage((await model.ainvoke(state["messages"])).content)]}

    return graph_of(MessagesState, ("talk", talk))


@case("node_raises", "failures", user="hi")
def node_raises(settings):
    model = llm()

    async def talk(state: MessagesState):
        await model.ainvoke("#story")
        raise KeyError("no such thing")

    return graph_of(MessagesState, ("talk", talk))


@case("loop", "state", input={"n": 0})
def loop(settings):
    model = llm()

    async def work(state):
        await model.ainvoke(f"#joke {state['n']}")
        return {"n": state["n"] + 1}

    b = StateGraph(Odd)
    b.add_node("work", work)
    b.add_edge(START, "work")
    b.add_conditional_edges("work", lambda state: "work" if state["n"] < 3 else END)
    return b.compile()


@case("streams_within_node", "nodes", user="x")
def streams_within_node(settings):
    model = llm()

    async def a(state: MessagesState, config: RunnableConfig):
        said = ""
        async for chunk in model.astream("#story", config):
            said += chunk.content
        await adispatch_custom_event("tokens", {"n": len(said)}, config=config)
        return {"messages": [AIMessage(f"done: {len(said)}")]}

    return graph_of(MessagesState, ("a", a))


@case(
    "typed_messages",
    "nodes",
    user="x",
    note="nodes that return an AI message with a call, and a tool's message",
)
def typed_messages(settings):
    def a(state: MessagesState):
        return {"messages": [AIMessage("calling", tool_calls=[{"name": "t", "args": {"a": 1}, "id": "c1"}])]}

    def b(state: MessagesState):
        return {"messages": [ToolMessage("result of t", tool_call_id="c1"), AIMessage("it is 1")]}

    return graph_of(MessagesState, ("a", a), ("b", b))


@case(
    "client_tools_in_graph",
    "client tools",
    user="#weather x",
    note="a node that asks for tools which nobody here runs",
)
def client_tools_in_graph(settings):
    def get_weather(city: str) -> str:
        """Weather."""
        return ""

    model = llm().bind_tools([get_weather])

    async def a(state: MessagesState):
        return {"messages": [await model.ainvoke(state["messages"])]}

    return graph_of(MessagesState, ("a", a))


@case("checkpoints_in_a_sequence", "plain", user="#echo hi", allow=("in a sequence",))
def checkpoints_in_a_sequence(settings):
    inner = graph_of(MessagesState, ("talk", speaks()), checkpointer=InMemorySaver())
    return RunnableLambda(lambda x: {"messages": x}) | inner.with_config(configurable={"thread_id": "mine"})


@case("router", "nodes", user="please a poem")
def router(settings):
    def route(state: MessagesState) -> Literal["poem", "story"]:
        return "poem" if "poem" in state["messages"][-1].content else "story"

    b = StateGraph(MessagesState)
    b.add_node("poem", speaks("#poem"))
    b.add_node("story", speaks("#story"))
    b.add_conditional_edges(START, route)
    return b.compile()


@case("nested_subgraphs", "nodes", user="#echo hi")
def nested_subgraphs(settings):
    inner = graph_of(MessagesState, ("deep", speaks("#poem")))
    middle = graph_of(MessagesState, ("inner", inner), ("more", speaks("#story")))
    return graph_of(MessagesState, ("middle", middle), ("last", speaks("#best")))


@case("silent_model", "nodes", user="x", note="a model tagged nostream")
def silent_model(settings):
    hidden, model = llm().with_config(tags=["nostream"]), llm()

    async def node(state: MessagesState):
        await hidden.ainvoke("#poem")
        return {"messages": [await model.ainvoke("#story")]}

    return graph_of(MessagesState, ("node", node))


@case("ends_by_command", "nodes", user="#echo hi")
def ends_by_command(settings):
    model = llm()

    async def a(state: MessagesState) -> Command[Literal["__end__"]]:
        return Command(goto=END, update={"messages": [await model.ainvoke(state["messages"])]})

    return graph_of(MessagesState, ("a", a))
