"""Chains of several stages."""

from __future__ import annotations

from typing import TypedDict

from langchain_core.callbacks import adispatch_custom_event
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel

from tests.chains.cases import case, each, llm


class Plan(BaseModel):
    name: str
    age: int
    tags: list[str]


@case(
    "three_stages",
    "stages",
    user="#echo hi",
    stages=("plan", "agent", "final"),
    note="a sequence, a graph, a sequence",
)
def three_stages(settings):
    model = llm()

    async def a(state: MessagesState):
        return {"messages": [await model.ainvoke(state["messages"])]}

    b = StateGraph(MessagesState)
    b.add_node("a", a)
    b.add_edge(START, "a")
    last = ChatPromptTemplate.from_template("#best of {plan} and {agent}") | model
    return {
        "plan": ChatPromptTemplate.from_template("#plan for {input}") | model,
        "agent": b.compile(),
        "final": last,
    }


@case("stage_for_each", "stages", input="animals", stages=("plan", "tell", "end"))
def stage_for_each(settings):
    model = llm()
    plan = RunnableLambda(lambda given: f"#plan {given['input']}") | model
    tell = each(
        RunnableLambda(lambda given: f"#joke {given['item']}") | model,
        over=lambda given: given["plan"].split("\n"),
    )
    return {
        "plan": plan,
        "tell": tell,
        "end": RunnableLambda(lambda given: f"{len(given['tell'])} jokes: {given['tell'][-1]}"),
    }


@case("stage_left_out", "stages", input={"deep": False}, stages=("triage", "research", "answer"))
def stage_left_out(settings):
    model = llm()
    research = RunnableLambda(lambda given: given["item"]) | model
    return {
        "triage": RunnableLambda(lambda given: {"deep": given["input"]["deep"]}),
        "research": each(research, over=lambda given: ["#story"] if given["triage"]["deep"] else []),
        "answer": RunnableLambda(lambda given: "#poem") | model,
    }


@case(
    "stage_gives_model",
    "stages",
    input="x",
    stages=("plan", "use"),
    note="a stage's pydantic model reaches the next by its fields",
)
def stage_gives_model(settings):
    plan = RunnableLambda(lambda given: "#person") | llm().with_structured_output(Plan)
    return {
        "plan": plan,
        "use": RunnableLambda(lambda given: f"{given['plan']['name']} has {len(given['plan']['tags'])} tags"),
    }


@case(
    "stage_gives_calls",
    "stage results",
    user="x",
    stages=("plan", "use"),
    note="a stage that ends in tool calls hands them on",
)
def stage_gives_calls(settings):
    def get_weather(city: str) -> str:
        """Weather."""
        return ""

    def use(given):
        return f"the plan names Paris: {'Paris' in str(given['plan'])}"

    return {
        "plan": RunnableLambda(lambda given: "#weather") | llm().bind_tools([get_weather]),
        "use": RunnableLambda(use),
    }


class Draft(TypedDict, total=False):
    input: str
    first: str
    text: str


@case(
    "stage_asks",
    "stages",
    input="x",
    stages=("first", "ask"),
    note="a stage that stops to ask ends the chain",
)
def stage_asks(settings):
    async def human(state):
        return {"text": interrupt({"draft": state["first"]})}

    b = StateGraph(Draft)
    b.add_node("human", human)
    b.add_edge(START, "human")
    return {"first": RunnableLambda(lambda given: "a draft"), "ask": b.compile(checkpointer=InMemorySaver())}


@case("stage_raises", "failures", input="x", stages=("first", "second"))
def stage_raises(settings):
    def second(given):
        raise ValueError("no")

    return {"first": RunnableLambda(lambda given: "#story") | llm(), "second": RunnableLambda(second)}


@case("stage_tells", "stages", input="x", stages=("a", "b"))
def stage_tells(settings):
    async def f(given):
        await adispatch_custom_event("progress", {"percent": 50})
        return "half"

    return {"a": RunnableLambda(f), "b": RunnableLambda(lambda given: "#poem") | llm()}
