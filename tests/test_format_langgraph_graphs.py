"""Graphs through LangGraph's own SDK behave as on LangGraph's server.

Checked: steps, ids, histories, threads, assistants.
"""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph_sdk.client import LangGraphClient

from gateway.formats.langgraph.names import assistant_id
from tests.support.adapted import says
from tests.test_format_langgraph_command import served
from workers.chains.registry import chain


class Facts(TypedDict, total=False):
    topic: str
    facts: Annotated[list[str], operator.add]


@chain("lg_facts")
def facts(_: Any) -> Any:
    async def collect(state: Facts) -> dict[str, Any]:
        get_stream_writer()({"found": state["topic"]})
        return {"facts": [f"{state['topic']} is old"]}

    return StateGraph(Facts).add_node(collect).add_edge(START, "collect").compile()


@chain("lg_talk")
def talk(_: Any) -> Any:
    """Return a graph whose answer, in a subgraph, gives the number of messages that it received."""

    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await says(f"{len(state['messages'])} messages").ainvoke("q")]}

    async def sign(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("signed", id=f"signed-{len(state['messages'])}")]}

    inner = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile()
    whole = StateGraph(MessagesState).add_node("inner", inner).add_node(sign)
    return whole.add_edge(START, "inner").add_edge("inner", "sign").compile()


HELLO: Any = {"messages": [{"type": "human", "content": "hello", "id": "m-1"}]}
ALL: Any = ["values", "updates", "messages-tuple", "custom"]


async def parts(client: LangGraphClient, thread: str | None, name: str, **more: Any) -> list[tuple[str, Any]]:
    run = client.runs.stream(thread, name, stream_mode=ALL, **more)
    return [(part.event, part.data) async for part in run]


def of(told: list[tuple[str, Any]], event: str) -> list[Any]:
    return [data for name, data in told if name == event]


def said(values: Any) -> list[tuple[str, str]]:
    return [(one["type"], one["content"]) for one in values["messages"]]


async def test_a_graph_without_messages_shows_its_own_state_after_every_step(redis_url: str) -> None:
    async with served(redis_url) as client:
        told = await parts(client, "facts", "lg_facts", input={"topic": "Rome"})
        begun: Any = {"topic": "Rome", "facts": []}
        assert of(told, "values") == [begun, begun | {"facts": ["Rome is old"]}]
        assert of(told, "updates") == [{"collect": {"facts": ["Rome is old"]}}]
        assert of(told, "custom") == [{"found": "Rome"}]
        again = await client.runs.wait("facts", "lg_facts", input={"topic": "Oslo"})
        assert again == {"topic": "Oslo", "facts": ["Rome is old", "Oslo is old"]}


async def test_ids_are_the_same_in_the_stream_the_state_and_each_connection(redis_url: str) -> None:
    async with served(redis_url) as client:
        told = await parts(client, "ids", "lg_talk", input=HELLO, stream_subgraphs=True)
        state: Any = await client.threads.get_state("ids")
        ids = [one["id"] for one in state["values"]["messages"]]
        assert [one["id"] for one in of(told, "values")[-1]["messages"]] == ids
        assert (ids[0], ids[2]) == ("m-1", "signed-2")
        inner = next(name for name, _ in told if name.startswith("messages|inner:"))
        assert {chunk["id"] for chunk, _ in of(told, inner)} == {ids[1]}
        assert "".join(chunk["content"] for chunk, _ in of(told, inner)) == "1 messages"
        [run] = await client.runs.list("ids")
        read = client.runs.join_stream("ids", run["run_id"], last_event_id="-1")
        assert [(part.event, part.data) async for part in read] == told


async def test_a_subgraph_is_silent_but_for_what_it_hands_up(redis_url: str) -> None:
    async with served(redis_url) as client:
        told = await parts(client, None, "lg_talk", input=HELLO)
        assert not [name for name, _ in told if "|" in name or "^" in name]
        assert [list(one) for one in of(told, "updates")] == [["inner"], ["sign"]]
        nodes = [(chunk["content"], about["langgraph_node"]) for chunk, about in of(told, "messages")]
        assert nodes == [("1 messages", "inner"), ("signed", "sign")]


async def test_a_question_stands_in_updates_values_state_and_thread(redis_url: str) -> None:
    async with served(redis_url) as client:
        told = await parts(client, "ask", "asks_once", input={"text": "q"})
        [asked] = [one["__interrupt__"] for one in of(told, "updates") if "__interrupt__" in one]
        assert of(told, "values")[-1]["__interrupt__"] == asked
        thread: Any = await client.threads.get("ask")
        assert [[one["id"] for one in many] for many in thread["interrupts"].values()] == [[asked[0]["id"]]]
        found = await client.threads.search(status="interrupted", metadata={"graph_id": "asks_once"})
        assert [one["thread_id"] for one in found] == ["ask"]


async def test_a_message_is_regenerated_from_what_stood_before_it(redis_url: str) -> None:
    async with served(redis_url) as client:
        first = await client.runs.wait("again", "lg_talk", input=HELLO)
        history: Any = await client.threads.get_history("again", limit=50)
        with_answer = [one for one in history if len(one["values"].get("messages", ())) == 2]
        before = with_answer[-1]["parent_checkpoint"]
        stood: Any = await client.threads.get_state("again", checkpoint=before)
        assert (said(stood["values"]), stood["next"]) == ([("human", "hello")], ["inner"])
        second = await client.runs.wait("again", "lg_talk", input=None, checkpoint=before)
        assert said(second) == said(first)
        after: Any = await client.threads.get_history("again", limit=50)
        assert [one["parent_checkpoint"] for one in after].count(before) == 2
        assert len(await client.runs.list("again")) == 2
        nothing = await parts(client, "again", "lg_talk", input=None)
        assert (of(nothing, "updates"), of(nothing, "messages")) == ([], [])


async def test_threads_have_metadata_and_are_found_by_them(redis_url: str) -> None:
    async with served(redis_url) as client:
        made = [(await client.threads.create(metadata={"who": who}))["thread_id"] for who in ("me", "you")]
        await client.runs.wait(made[0], "lg_facts", input={"topic": "Rome"})
        [mine] = await client.threads.search(metadata={"who": "me"})
        assert (mine["thread_id"], mine["status"]) == (made[0], "idle")
        assert mine["metadata"] == {
            "who": "me",
            "graph_id": "lg_facts",
            "assistant_id": assistant_id("lg_facts"),
        }
        assert await client.threads.count(metadata={"who": "you"}) == 1
        await client.threads.update(made[1], metadata={"who": "they"})
        assert [one["thread_id"] for one in await client.threads.search(metadata={"who": "they"})] == made[1:]
        run = (await client.runs.list(made[0], select=["run_id"]))[0]
        assert list(run) == ["run_id"]
        await client.runs.delete(made[0], run["run_id"])
        assert await client.runs.list(made[0]) == []
        await client.threads.delete(made[0])
        assert await client.threads.search(metadata={"who": "me"}) == []


async def test_a_chain_is_an_assistant_of_its_name(redis_url: str) -> None:
    async with served(redis_url) as client:
        [one] = await client.assistants.search(graph_id="lg_facts")
        assert (one["name"], one["assistant_id"]) == ("lg_facts", assistant_id("lg_facts"))
        assert (await client.assistants.get("lg_facts"))["assistant_id"] == one["assistant_id"]
        told = await client.runs.wait(None, one["assistant_id"], input={"topic": "Rome"})
        assert told == {"topic": "Rome", "facts": ["Rome is old"]}
        assert (await client.http.get("/ok")) == {"ok": True}
        assert (await client.http.get("/info"))["flags"]["assistants"]
