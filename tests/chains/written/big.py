"""Large graphs: a deep research, a swarm, a deep agent, and an agent with several middlewares."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Literal, TypedDict

from langchain.agents import create_agent
from langchain.agents.middleware import PIIMiddleware, SummarizationMiddleware, TodoListMiddleware
from langchain.chat_models import init_chat_model
from langchain.tools import tool
from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    get_buffer_string,
)
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command
from pydantic import BaseModel

from tests.chains.cases import case, llm
from tests.chains.written.agents import LONG, get_weather


class Options(BaseModel):
    """Options that a caller may choose, read from `configurable`."""

    model: str = "openai:stub"
    asks_back: bool = True
    most_at_once: int = 5
    most_rounds: int = 3

    @classmethod
    def of(cls, config: RunnableConfig) -> Options:
        known = config.get("configurable", {})
        return cls(**{name: known[name] for name in cls.model_fields if name in known})

    def asked(self, *tags: str) -> dict:
        """Return the config of a configurable model."""
        return {"model": self.model, "max_tokens": 500, "api_key": "x", "tags": list(tags)}


class Scope(BaseModel):
    """Whether the question is clear."""

    is_vague: bool
    question: str
    answer: str


class Brief(BaseModel):
    """What is to be found out."""

    brief: str


class LookInto(BaseModel):
    """Look into a topic."""

    topic: str


class AllFound(BaseModel):
    """All is found out."""


def whole_or_added(before: list, new: list | dict) -> list:
    """Reduce: a mapping replaces the present value, a list is added to it."""
    return new["value"] if isinstance(new, dict) else before + new


class Research(MessagesState):
    brief: str
    orders: Annotated[list[AnyMessage], whole_or_added]
    notes: Annotated[list[str], whole_or_added]
    report: str


class Leading(TypedDict):
    brief: str
    orders: Annotated[list[AnyMessage], whole_or_added]
    notes: Annotated[list[str], whole_or_added]
    rounds: int


class Seeking(TypedDict):
    topic: str
    found: Annotated[list[AnyMessage], operator.add]
    note: str


class Note(BaseModel):
    note: str


@tool
async def ponder(thought: str) -> str:
    """Write a thought down."""
    return f"Noted: {thought}"


@tool
async def search(query: str, config: RunnableConfig) -> str:
    """Search, and have the page summarized by a model."""
    page = await llm().ainvoke(f"#summary of a page on {query}", config)
    return f"{query}: {page.text}"


def seeker(model):
    """Make the graph for one topic: a model and its tools, in turns, then a note of the findings."""

    async def seek(state: Seeking, config: RunnableConfig) -> Command[Literal["use"]]:
        asked = model.bind_tools([search, ponder]).with_retry(stop_after_attempt=2)
        said = await asked.with_config(Options.of(config).asked()).ainvoke(state["found"])
        return Command(goto="use", update={"found": [said]})

    async def use(state: Seeking, config: RunnableConfig) -> Command[Literal["seek", "note"]]:
        wanted = state["found"][-1].tool_calls
        if not wanted:
            return Command(goto="note")
        known = {"search": search, "ponder": ponder}
        given = await asyncio.gather(*(known[one["name"]].ainvoke(one["args"], config) for one in wanted))
        answers = [
            ToolMessage(content, tool_call_id=one["id"]) for content, one in zip(given, wanted, strict=True)
        ]
        return Command(goto="seek", update={"found": answers})

    async def note(state: Seeking, config: RunnableConfig):
        own = model.with_config(Options.of(config).asked())
        said = await own.ainvoke([HumanMessage(f"#research note on {state['topic']}")])
        return {"note": said.text}

    b = StateGraph(Seeking, output_schema=Note, context_schema=Options)
    b.add_node("seek", seek).add_node("use", use).add_node("note", note)
    b.add_edge(START, "seek")
    b.add_edge("note", END)
    return b.compile()


def leader(model):
    """Make the graph that assigns the topics, and runs one seeker for each, all concurrently within a
    node."""
    seeking = seeker(model)

    async def lead(state: Leading, config: RunnableConfig) -> Command[Literal["give_out"]]:
        asked = model.bind_tools([LookInto, AllFound, ponder]).with_retry(stop_after_attempt=2)
        said = await asked.with_config(Options.of(config).asked()).ainvoke(state["orders"])
        return Command(goto="give_out", update={"orders": [said], "rounds": state.get("rounds", 0) + 1})

    async def give_out(state: Leading, config: RunnableConfig) -> Command[Literal["lead", "__end__"]]:
        options, wanted = Options.of(config), state["orders"][-1].tool_calls
        names = {one["name"] for one in wanted}
        if not wanted or "AllFound" in names or state["rounds"] > options.most_rounds:
            notes = [m.content for m in state["orders"] if isinstance(m, ToolMessage) and m.name]
            return Command(goto=END, update={"notes": notes})
        topics = [one for one in wanted if one["name"] == "LookInto"][: options.most_at_once]
        found = await asyncio.gather(
            *(seeking.ainvoke(sought(one["args"]["topic"]), config) for one in topics)
        )
        answers = [
            ToolMessage(one["note"], tool_call_id=order["id"], name="LookInto")
            for one, order in zip(found, topics, strict=True)
        ]
        answers += [ToolMessage("not now", tool_call_id=one["id"]) for one in wanted if one not in topics]
        return Command(goto="lead", update={"orders": answers})

    b = StateGraph(Leading, context_schema=Options)
    b.add_node("lead", lead).add_node("give_out", give_out)
    b.add_edge(START, "lead")
    return b.compile()


def sought(topic: str) -> dict:
    return {"topic": topic, "found": [HumanMessage(f"#research {topic}")]}


def deep_research():
    """Make the graph: clarify the question or ask back; then write a brief, do the research, and write a
    report."""
    model = init_chat_model(configurable_fields=("model", "max_tokens", "api_key"))

    async def clear(state: Research, config: RunnableConfig) -> Command[Literal["brief", "__end__"]]:
        options = Options.of(config)
        if not options.asks_back:
            return Command(goto="brief")
        asked = model.with_structured_output(Scope).with_retry(stop_after_attempt=3)
        scope = await asked.with_config(options.asked("nostream")).ainvoke(
            [HumanMessage(f"#research {get_buffer_string(state['messages'])}")]
        )
        if scope.is_vague:
            return Command(goto=END, update={"messages": [AIMessage(scope.question)]})
        return Command(goto="brief", update={"messages": [AIMessage(scope.answer)]})

    async def brief(state: Research, config: RunnableConfig) -> Command[Literal["research"]]:
        asked = model.with_structured_output(Brief).with_retry(stop_after_attempt=3)
        made = await asked.with_config(Options.of(config).asked("langsmith:nostream")).ainvoke(
            [HumanMessage(f"#research {get_buffer_string(state['messages'])}")]
        )
        orders = [SystemMessage("You lead."), HumanMessage(f"#research {made.brief}")]
        return Command(goto="research", update={"brief": made.brief, "orders": {"value": orders}})

    async def report(state: Research, config: RunnableConfig):
        own = model.with_config(Options.of(config).asked())
        said = await own.ainvoke([HumanMessage("#research report of " + "; ".join(state["notes"]))])
        return {"report": said.content, "messages": [said], "notes": {"value": []}}

    b = StateGraph(Research, input_schema=MessagesState, context_schema=Options)
    b.add_node("clear", clear).add_node("brief", brief)
    b.add_node("research", leader(model)).add_node("report", report)
    b.add_edge(START, "clear")
    b.add_edge("research", "report")
    b.add_edge("report", END)
    return b.compile()


@case("research", "big", user="tea, coffee and milk", params={"most_at_once": 2},
      note="a configurable model, Commands, graphs that run at once within a node")  # fmt: skip
def research(settings):
    return deep_research()


@case("research_asks_back", "big", user="something vague", note="ends after its first node, by a question")
def research_asks_back(settings):
    return deep_research()


@case("research_unasked", "big", user="tea", params={"asks_back": False, "model": "openai:other"},
      note="the caller chooses the model, and that nothing is asked back")  # fmt: skip
def research_unasked(settings):
    return deep_research()


@case("three_middlewares", "big", messages=[
    *LONG[:-1], {"role": "user", "content": '#do call write_todos {"todos": [{"content": "look", "status": '
        '"pending"}]} then call get_weather {"city": "Rome"} then say mail ada@example.org: $last'}],
      note="to-dos, a summary of what was said, mail addresses redacted")  # fmt: skip
def three_middlewares(settings):
    summarize = SummarizationMiddleware(
        model=llm(), trigger=("messages", 9), keep=("messages", 3), summary_prompt="#summary of {messages}"
    )
    redact = PIIMiddleware("email", strategy="redact", apply_to_output=True)
    return create_agent(llm(), [get_weather], middleware=[TodoListMiddleware(), summarize, redact])


@case("swarm", "big", needs="langgraph_swarm", note="langgraph-swarm: an agent hands over to another",
      user='#do call transfer_to_bob {} then call add {"a": 2, "b": 3} then say Bob says: $last')  # fmt: skip
def swarm(settings):
    from langgraph_swarm import create_handoff_tool, create_swarm

    def add(a: float, b: float) -> float:
        """Add."""
        return a + b

    alice = create_agent(llm(), [create_handoff_tool(agent_name="bob")], name="alice")
    bob = create_agent(llm(), [add, create_handoff_tool(agent_name="alice")], name="bob")
    return create_swarm([alice, bob], default_active_agent="alice").compile(checkpointer=InMemorySaver())


@case(
    "deep_agent",
    "big",
    needs="deepagents",
    note="deepagents: files, and a sub-agent as a tool",
    user='#do call write_file {"file_path": "/notes.md", "content": "tea is leaves"} '
    'then call task {"subagent_type": "expert", "description": "#oneweather please"} '
    'then call read_file {"file_path": "/notes.md"} then say The notes: $last',
)
def deep_agent(settings):
    # deepagents looks for this module in sys.modules while it runs: the module must be imported completely,
    # or not at all.
    import langchain_anthropic  # noqa: F401
    from deepagents import create_deep_agent

    expert = {
        "name": "expert",
        "description": "Knows the weather.",
        "system_prompt": "You know the weather.",
        "tools": [get_weather],
        "model": llm(),
    }
    return create_deep_agent(model=llm(), tools=[get_weather], subagents=[expert])
