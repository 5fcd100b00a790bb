"""The idempotency key of a tool call is the same in every attempt, and different for every other call."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.tools import ToolRuntime
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_config
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import RetryPolicy, Send

from gateway.streams.params import KEY
from tests.support.adapted import HERE, Scripted, calls, graph_of, told
from tests.support.jobs import Jobs, body
from workers.chains.registry import chain
from workers.langchain.chunks import config_of
from workers.langchain.graph import context_of
from workers.langchain.keys import key_of, key_tools

STREAM = replace(HERE, stream_id="one", thread="one")


class Sent:
    """Tools that record the keys with which they were called."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def note(self, config: Any) -> str:
        self.keys.append(config["configurable"][KEY])
        return "sent"

    def tools(self) -> dict[str, BaseTool]:
        """Return the tools, by the way in which each one gets its configuration."""

        @tool("send")
        async def by_config(to: str, config: RunnableConfig) -> str:
            """Send."""
            return self.note(config)

        @tool("send")
        def in_a_thread(to: str, config: RunnableConfig) -> str:
            """Send."""
            return self.note(config)

        @tool("send")
        async def by_runtime(to: str, runtime: ToolRuntime) -> str:
            """Send."""
            return self.note(runtime.config)

        @tool("send")
        async def by_context(to: str) -> str:
            """Send."""
            return self.note(get_config())

        return {"config": by_config, "thread": in_a_thread, "runtime": by_runtime, "context": by_context}


HOWS = ("config", "thread", "runtime", "context")


def several(*ids: str) -> AIMessage:
    """Return a message that requests the same call once for each id."""
    return AIMessage("", tool_calls=[{"name": "send", "args": {"to": "ada"}, "id": one} for one in ids])


def agent(send: BaseTool, prefix: str, **options: Any) -> Any:
    """Return an agent that calls the tool once, then twice in parallel, then with another argument.

    The two parallel calls have equal arguments. A model gives the ids, and the ids begin with `prefix`.
    """
    answers = [
        several(f"{prefix}1"),
        several(f"{prefix}2", f"{prefix}3"),
        calls("send", f"{prefix}4", to="bob"),
        AIMessage("done"),
    ]
    return create_agent(Scripted(answers=answers), [send], **options)


@pytest.mark.parametrize("how", HOWS)
async def test_each_call_has_its_own_and_each_attempt_the_same(how: str) -> None:
    attempts = []
    for prefix in ("a", "b"):  # A model gives other ids when it is asked again.
        sent = Sent()
        await told(agent(sent.tools()[how], prefix), here=STREAM)
        attempts.append(sent.keys)
    first, second = attempts
    assert len(set(first)) == 4
    assert sorted(first) == sorted(second)
    assert first[0] == second[0]
    assert first[3] == second[3]
    other = Sent()
    await told(agent(other.tools()[how], "a"), here=replace(STREAM, stream_id="two", thread="two"))
    assert not set(other.keys) & set(first)


async def test_other_arguments_are_another_call_wherever_they_come() -> None:
    keys = []
    for places in (["ada", "bob"], ["eve", "ada"]):
        sent = Sent()
        send = sent.tools()["config"]
        answers = [calls("send", "1", to=place) for place in places]
        await told(create_agent(Scripted(answers=[*answers, AIMessage("x")]), [send]), here=STREAM)
        keys.append(sent.keys)
    assert len({*keys[0], *keys[1]}) == 4


async def test_without_a_graph_calls_are_counted_in_the_stage() -> None:
    async def attempt(stage: Any) -> list[str]:
        sent = Sent()
        send = sent.tools()["config"]

        async def run(given: Any, config: RunnableConfig) -> str:
            for to in ("ada", "ada", "bob"):
                await send.ainvoke({"to": to})
            return str(config["configurable"][KEY])

        _, outcome = await told(RunnableLambda(run), here=stage)
        assert outcome.result == key_of(stage)
        return sent.keys

    first = await attempt(STREAM)
    assert await attempt(STREAM) == first
    assert len({*first, key_of(STREAM)}) == 4
    assert not set(await attempt(replace(STREAM, thread="one plan 2"))) & set(first)


async def test_a_graph_within_a_sequence_has_its_tasks_too() -> None:
    attempts = []
    for prefix in ("a", "b"):
        sent = Sent()
        asks: Any = RunnableLambda(lambda given: {"messages": given})
        await told(asks | agent(sent.tools()["config"], prefix), here=STREAM)
        attempts.append(sorted(sent.keys))
    assert attempts[0] == attempts[1]
    assert len(set(attempts[0])) == 4


async def test_a_call_that_is_repeated_by_its_id_is_the_same_call() -> None:
    sent = Sent()
    send = sent.tools()["config"]

    async def node(state: MessagesState) -> Any:
        call = {"name": "send", "args": {"to": "ada"}, "type": "tool_call"}
        for call_id in ("c1", "c1", "c2", "c1"):
            await send.ainvoke({**call, "id": call_id})
        return {}

    await told(graph_of(MessagesState, node), here=STREAM)
    one, again, two, last = sent.keys
    assert one == again == last != two


async def test_a_node_that_langgraph_tries_again_calls_by_the_same_keys() -> None:
    sent = Sent()
    send = sent.tools()["config"]

    async def node(state: MessagesState) -> Any:
        for _ in range(2):
            await send.ainvoke({"to": "ada"})
        if len(sent.keys) == 2:
            raise ConnectionError
        return {}

    graph: Any = StateGraph(MessagesState)
    graph.add_node("node", node, retry_policy=RetryPolicy(initial_interval=0.0, jitter=False))
    await told(graph.add_edge(START, "node").compile(), here=STREAM)
    assert sent.keys[:2] == sent.keys[2:]
    assert len(set(sent.keys)) == 2


async def test_tasks_side_by_side_and_graphs_within_have_keys_of_their_own() -> None:
    async def attempt() -> list[str]:
        sent = Sent()
        inner = agent(sent.tools()["config"], "i")

        async def work(state: Any) -> Any:
            await inner.ainvoke({"messages": "q"})
            await inner.ainvoke({"messages": "q"})
            return {}

        graph: Any = StateGraph(MessagesState)
        graph.add_node("work", work)
        graph.add_conditional_edges(START, lambda state: [Send("work", state), Send("work", state)], ["work"])
        await told(graph.compile(), here=STREAM)
        return sorted(sent.keys)

    first = await attempt()
    assert len(set(first)) == 16
    assert await attempt() == first


async def test_a_tool_within_a_tool_leaves_the_outer_its_key() -> None:
    sent = Sent()
    send = sent.tools()["config"]
    outers: list[str] = []

    @tool
    async def strange(to: str) -> str:
        """Called with a configuration that is none of ours."""
        return to

    @tool
    async def outer(to: str, config: RunnableConfig) -> str:
        """Send by another tool, with its own configuration and without."""
        outers.append(config["configurable"][KEY])
        await strange.arun({"to": to}, callbacks=config["callbacks"], config={"configurable": {}})
        await send.ainvoke({"to": to}, config)
        await send.ainvoke({"to": to})
        outers.append(config["configurable"][KEY])
        return to

    async def run(given: str, config: RunnableConfig) -> Any:
        return await outer.ainvoke({"to": given}, config)

    await told(RunnableLambda(run), here=STREAM)
    assert outers[0] == outers[1]
    assert len({*outers, *sent.keys}) == 3


@dataclass
class Keyed:
    """A graph's context class with a field for the idempotency key."""

    holdfast_idempotency_key: str = ""


def test_a_run_and_a_graphs_context_have_the_stages_key_and_no_client_sets_it() -> None:
    async def node(state: MessagesState) -> Any:
        return {}

    graph = StateGraph(MessagesState, context_schema=Keyed).add_node("n", node).add_edge(START, "n").compile()
    forged = {KEY: "forged"}
    assert config_of(forged, STREAM, [])["configurable"][KEY] == key_of(STREAM)
    assert context_of(graph, forged, STREAM) == {KEY: key_of(STREAM)}
    assert len(key_of(STREAM)) == 64


def test_tools_of_others_are_called_as_ever() -> None:
    key_tools()
    key_tools()

    @tool
    def plain(to: str) -> str:
        """Answer."""
        return to

    assert plain.invoke({"to": "ada"}) == "ada"
    assert plain.run({"to": "ada"}, config={"configurable": {"lang": "de"}}) == "ada"


@pytest.mark.parametrize("remembers", [False, True])
async def test_an_attempt_that_is_stopped_in_a_call_is_followed_by_one_with_its_key(
    redis_url: str, remembers: bool
) -> None:
    """The tool is called twice with the same arguments. The process stops during the second call."""
    sent, entered, gate = Sent(), asyncio.Event(), asyncio.Event()

    @tool
    async def send(to: str, config: RunnableConfig) -> str:
        """Send, the second time for ever."""
        sent.note(config)
        if len(sent.keys) == 2:
            entered.set()
            await gate.wait()
        return "sent"

    class Renamed(Scripted):
        """A model that gives its calls other ids in each attempt."""

        def _next(self, messages: list[Any]) -> AIMessage:
            made = super()._next(messages)
            for call in made.tool_calls:
                call["id"] = f"{call['id']}-{len(sent.keys)}"
            return made

    same = [calls("send", "c", to="ada"), calls("send", "d", to="ada"), AIMessage("done")]
    saver = InMemorySaver() if remembers else None
    name = f"stopped-{remembers}".lower()
    chain(name)(lambda _: create_agent(Renamed(answers=same), [send], checkpointer=saver))
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream("q", chain=name)
        attempt = asyncio.create_task(jobs.runner.run(body(stream_id)))
        await entered.wait()
        attempt.cancel()
        await attempt
        gate.set()
        await jobs.runner.run(body(stream_id))
        assert (await jobs.fold(stream_id)).ended == "done"
        assert (await jobs.record(stream_id)).attempt == 2
    first, second, *after = sent.keys
    assert first != second
    assert after == [second]  # The log, or an earlier checkpoint, has the first call.
