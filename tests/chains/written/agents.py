"""Agents in the way of LangChain 1.x's documentation."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

from langchain.agents import AgentState, create_agent
from langchain.agents.middleware import (
    ContextEditingMiddleware,
    HumanInTheLoopMiddleware,
    ModelCallLimitMiddleware,
    ModelFallbackMiddleware,
    ModelRequest,
    PIIMiddleware,
    SummarizationMiddleware,
    ToolRetryMiddleware,
    after_model,
    dynamic_prompt,
    wrap_tool_call,
)
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain.tools import ToolRuntime, tool
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import ToolException
from langgraph.config import get_config, get_stream_writer
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command
from pydantic import BaseModel

from tests.chains.cases import case, claude, llm, unreachable


async def get_weather(city: str) -> str:
    """Get the weather of a city."""
    await asyncio.sleep(0.02)
    return f"sunny in {city}"


def send_email(to: str, body: str) -> str:
    """Send an email."""
    return "sent"


@case("agent_two_tools", "agents", user="#weather now", note="two tools at once")
def agent_two_tools(settings):
    return create_agent(llm(), [get_weather], system_prompt="You help.")


@case("agent_sync_tools", "agents", user="#oneweather now")
def agent_sync_tools(settings):
    @tool
    def get_weather(city: str) -> str:
        """Get the weather of a city."""
        time.sleep(0.1)
        return f"sunny in {city}"

    return create_agent(llm(), [get_weather])


@case("agent_claude", "agents", user="#oneweather x", needs="langchain_anthropic")
def agent_claude(settings):
    return create_agent(claude(), [get_weather])


@case("agent_prebuilt", "agents", user="#weather x")
def agent_prebuilt(settings):
    from langgraph.prebuilt import create_react_agent

    return create_react_agent(llm(), [get_weather])


@case("agent_writer", "agents", user="#oneweather now", note="a tool that tells its progress")
def agent_writer(settings):
    @tool
    def get_weather(city: str) -> str:
        """Get the weather of a city."""
        write = get_stream_writer()
        write(f"Looking up: {city}")
        write({"percent": 50})
        return f"sunny in {city}"

    return create_agent(llm(), [get_weather])


@case("agent_runtime", "agents", user="#oneweather now")
def agent_runtime(settings):
    @tool
    async def get_weather(city: str, runtime: ToolRuntime) -> str:
        """Get the weather of a city."""
        runtime.stream_writer({"percent": 10})
        return f"sunny in {city}; {len(runtime.state['messages'])} messages"

    return create_agent(llm(), [get_weather])


@case("agent_artifact", "agents", user="#oneweather now")
def agent_artifact(settings):
    @tool(response_format="content_and_artifact")
    async def get_weather(city: str):
        """Get the weather of a city."""
        return f"sunny in {city}", {"rows": [1, 2, 3], "raw": b"\x00"}

    return create_agent(llm(), [get_weather])


@case("agent_object", "agents", user="#oneweather x")
def agent_object(settings):
    @tool
    async def get_weather(city: str) -> dict:
        """Get the weather of a city."""
        return {"city": city, "degrees": 21.5, "wind": None}

    return create_agent(llm(), [get_weather])


@case("agent_blocks", "agents", user="#oneweather x", note="a tool that answers text and an image")
def agent_blocks(settings):
    @tool
    async def get_weather(city: str) -> list:
        """Get the weather of a city."""
        picture = {"type": "image", "base64": "iVBORw0KGgo=", "mime_type": "image/png"}
        return [{"type": "text", "text": "a chart"}, picture]

    return create_agent(llm(), [get_weather])


@case("agent_tool_raises", "failures", user="#oneweather now")
def agent_tool_raises(settings):
    async def get_weather(city: str) -> str:
        """Get the weather of a city."""
        raise ValueError("backend down")

    return create_agent(llm(), [get_weather])


@case("agent_tool_exception", "agents", user="#oneweather now")
def agent_tool_exception(settings):
    @tool
    async def get_weather(city: str) -> str:
        """Get the weather of a city."""
        raise ToolException("no such city")

    get_weather.handle_tool_error = True
    return create_agent(llm(), [get_weather])


@case(
    "agent_tool_wrapped",
    "agents",
    user="#oneweather now",
    note="@wrap_tool_call answers for a tool that has raised",
)
def agent_tool_wrapped(settings):
    @wrap_tool_call
    async def handle(request, handler):
        try:
            return await handler(request)
        except ValueError as error:
            return ToolMessage(content=f"Tool error: {error}", tool_call_id=request.tool_call["id"])

    async def get_weather(city: str) -> str:
        """Get the weather of a city."""
        raise ValueError("backend down")

    return create_agent(llm(), [get_weather], middleware=[handle])


@case("agent_tool_retried", "agents", user="#oneweather now")
def agent_tool_retried(settings):
    times = {}

    @tool
    async def get_weather(city: str, runtime: ToolRuntime) -> str:
        """Get the weather of a city."""
        n = times[runtime.tool_call_id] = times.get(runtime.tool_call_id, 0) + 1
        if n < 3:
            raise ConnectionError("flaky")
        return "sunny at last"

    return create_agent(
        llm(),
        [get_weather],
        middleware=[ToolRetryMiddleware(max_retries=3, initial_delay=0.02, jitter=False)],
    )


@case("agent_asks_leave", "agents", user="#sideeffect", note="stops to ask, without a checkpointer")
def agent_asks_leave(settings):
    return create_agent(
        llm(), [send_email], middleware=[HumanInTheLoopMiddleware(interrupt_on={"send_email": True})]
    )


LONG = [
    {"role": "user" if i % 2 == 0 else "assistant", "content": f"message number {i} " + "blah " * 60}
    for i in range(8)
] + [{"role": "user", "content": "#echo and now?"}]


@case("agent_summarizes", "agents", messages=LONG)
def agent_summarizes(settings):
    summarize = SummarizationMiddleware(
        model=llm(), trigger=("messages", 6), keep=("messages", 2), summary_prompt="#summary of {messages}"
    )
    return create_agent(llm(), [], middleware=[summarize])


@case(
    "agent_prompt_of_params",
    "agents",
    user="#do say role as asked, $n messages",
    params={"user_role": "expert"},
)
def agent_prompt_of_params(settings):
    @dynamic_prompt
    def prompt(request: ModelRequest) -> str:
        return "You are for " + str(get_config()["configurable"].get("user_role")) + " people " * 3

    return create_agent(llm(), [], middleware=[prompt])


@dataclass
class Who:
    user_name: str
    lang: str = "en"


@case("agent_context", "context", user="#oneweather hi", params={"user_name": "Ada", "lang": "de"},
      context=True, note="context_schema: what the params are to a LangChain 1.x agent")  # fmt: skip
def agent_context(settings):
    @tool
    async def get_weather(city: str, runtime: ToolRuntime[Who]) -> str:
        """Get the weather of a city."""
        return f"sunny for {runtime.context.user_name} ({runtime.context.lang})"

    return create_agent(llm(), [get_weather], context_schema=Who)


@case("agent_as_tool", "agents", user="#caller", note="what an agent says within a tool is the tool's")
def agent_as_tool(settings):
    expert = create_agent(llm(), [], system_prompt="You are an expert.", name="expert")

    @tool
    async def ask_expert(query: str) -> str:
        """Ask the expert."""
        return (await expert.ainvoke({"messages": [("user", query)]}))["messages"][-1].text

    return create_agent(llm(), [ask_expert])


class Contact(BaseModel):
    """A contact."""

    name: str
    age: int
    tags: list[str]


@case("agent_structured", "state", user="#person x", note="the structured response is a key of the state")
def agent_structured(settings):
    return create_agent(llm(), [], response_format=ToolStrategy(Contact))


@case("agent_structured_provider", "state", user="#person x")
def agent_structured_provider(settings):
    return create_agent(llm(), [], response_format=ProviderStrategy(Contact))


def calls(tool, /, **arguments):
    return f"#do call {tool} {json.dumps(arguments)} then say The tool said: $last"


@case("agent_store", "agents", user=calls("save", what="likes tea"), params={"user_id": "u1"})
def agent_store(settings):
    @tool
    async def save(what: str, runtime: ToolRuntime) -> str:
        """Save a memory."""
        user = str(runtime.config["configurable"].get("user_id"))
        await runtime.store.aput(("memories", user), what, {"what": what})
        return f"{len(await runtime.store.asearch(('memories', user)))} kept for {user}"

    return create_agent(llm(), [save], store=InMemoryStore())


class Named(AgentState):
    user_name: str


@case(
    "agent_tool_command",
    "command tool",
    user=calls("set_name", name="Zoe"),
    note="a tool that answers by a Command",
)
def agent_tool_command(settings):
    @tool
    async def set_name(name: str, runtime: ToolRuntime) -> Command:
        """Set the name."""
        said = ToolMessage("the name is set", tool_call_id=runtime.tool_call_id)
        return Command(update={"user_name": name, "messages": [said]})

    return create_agent(llm(), [set_name], state_schema=Named)


@case("agent_return_direct", "return direct", user="#oneweather x", note="the tool's answer is the agent's")
def agent_return_direct(settings):
    @tool(return_direct=True)
    async def get_weather(city: str) -> str:
        """Get the weather of a city."""
        return "directly: sunny"

    return create_agent(llm(), [get_weather])


@case("agent_fallback", "agents", user="#weather x")
def agent_fallback(settings):
    return create_agent(unreachable(), [get_weather], middleware=[ModelFallbackMiddleware(llm())])


async def look(q: str) -> str:
    """Look."""
    return "nothing"


@case("agent_call_limit", "agents", user="#loopy x")
def agent_call_limit(settings):
    return create_agent(
        llm(), [look], middleware=[ModelCallLimitMiddleware(run_limit=3, exit_behavior="end")]
    )


@case("agent_recursion", "failures", user="#loopy x")
def agent_recursion(settings):
    return create_agent(llm(), [look]).with_config(recursion_limit=10)


@case(
    "agent_executor",
    "mapping",
    input={"input": "#oneweather x"},
    needs="langchain_classic",
)
def agent_executor(settings):
    from langchain_classic.agents import AgentExecutor, create_tool_calling_agent
    from langchain_core.prompts import ChatPromptTemplate

    weather = tool(get_weather)
    prompt = ChatPromptTemplate.from_messages(
        [("system", "You help."), ("human", "{input}"), ("placeholder", "{agent_scratchpad}")]
    )
    return AgentExecutor(agent=create_tool_calling_agent(llm(), [weather], prompt), tools=[weather])


@case(
    "supervisor",
    "command tool",
    user="#boss do it",
    note="langgraph-supervisor: agents handed over by Commands",
    needs="langgraph_supervisor",
)
def supervisor(settings):
    from langgraph_supervisor import create_supervisor

    def web_search(query: str) -> str:
        """Search the web."""
        return "headcount: 100"

    def add(a: float, b: float) -> float:
        """Add."""
        return a + b

    model = llm()
    research = create_agent(model, [web_search], name="research_expert", system_prompt="#researcher")
    maths = create_agent(model, [add], name="math_expert", system_prompt="#mathguy")
    return create_supervisor([research, maths], model=model, prompt="#boss").compile()


@case("agent_redacts", "agents", user="#echo mail me at ada@example.org please")
def agent_redacts(settings):
    return create_agent(
        llm(), [], middleware=[PIIMiddleware("email", strategy="redact", apply_to_input=True)]
    )


@case("agent_adds_after", "agents", user="#poem x", note="@after_model adds a message")
def agent_adds_after(settings):
    @after_model
    async def sign(state, runtime) -> dict[str, Any] | None:
        return {"messages": [AIMessage("(signed)")]}

    return create_agent(llm(), [], middleware=[sign])


@case("agent_edits_context", "agents", user="#weather x")
def agent_edits_context(settings):
    return create_agent(llm(), [get_weather], middleware=[ContextEditingMiddleware()])
