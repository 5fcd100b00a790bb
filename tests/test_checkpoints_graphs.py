"""LangGraph's graphs on the shipped checkpointer.

Checked: questions, answers, a return to an earlier state, and `invoke`.
"""

from __future__ import annotations

import asyncio
import operator
import re
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt
from redis.asyncio import Redis

from holdfast_gateway.checkpoints import Saver, ThreadFull
from holdfast_gateway.testing import Scripted, run

REPOSITORY = Path(__file__).resolve().parents[1]

THREAD: Any = {"configurable": {"thread_id": "one"}}


class Said(TypedDict):
    said: Annotated[list[str], operator.add]


def inner() -> Any:
    """Return a subgraph with a step before its question and the question itself."""

    async def before(state: Said) -> Said:
        return {"said": ["before"]}

    async def asks(state: Said) -> Said:
        return {"said": [f"answer {interrupt('which?')}"]}

    graph = StateGraph(Said)
    graph.add_sequence([before, asks])
    graph.add_edge(START, "before")
    return graph.compile()


def outer(saver: Any) -> Any:
    """Return a graph with three parallel tasks, followed by a subgraph that asks."""

    async def split(state: Said) -> Said:
        return {"said": ["split"]}

    async def part(number: int) -> Said:
        return {"said": [f"part {number}"]}

    graph = StateGraph(Said)
    graph.add_node("split", split)
    one: Any = part  # `Send` passes a number, not a state.
    graph.add_node("part", one)
    graph.add_node("asks", inner())
    graph.add_edge(START, "split")
    graph.add_conditional_edges("split", lambda _: [Send("part", number) for number in (3, 1, 2)], ["part"])
    graph.add_edge("part", "asks")
    graph.add_edge("asks", END)
    return graph.compile(checkpointer=saver)


async def told(graph: Any) -> list[Any]:
    """Return the thread's history without times and random values."""
    return [
        (state.values, state.next, state.metadata["step"], [task.name for task in state.tasks])
        async for state in graph.aget_state_history(THREAD)
    ]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_graph_that_asks_goes_on_in_another_process_as_in_memory(
    redis_url: str, durability: Any
) -> None:
    histories = []
    async with Saver.from_url(redis_url) as first, Saver.from_url(redis_url) as second:
        memory = InMemorySaver()
        for before, after in ((first, second), (memory, memory)):
            asked = await outer(before).ainvoke({"said": ["go"]}, THREAD, durability=durability)
            assert [each.value for each in asked["__interrupt__"]] == ["which?"]
            state = await outer(after).aget_state(THREAD, subgraphs=True)
            assert state.next == ("asks",)
            answered = await outer(after).ainvoke(Command(resume="this"), THREAD, durability=durability)
            parts = ["part 3", "part 1", "part 2"]
            assert answered["said"][:5] == ["go", "split", *parts]
            assert answered["said"][-1] == "answer this"
            histories.append(await told(outer(after)))
    assert histories[0] == histories[1]


async def test_branches_of_a_thread_keep_their_own_values(redis_url: str) -> None:
    """Both branches give the channel the same next version.

    A value stored by one branch must not change the other branch.
    """

    async def step(state: Said) -> Said:
        return {"said": [f"{len(state['said'])}"]}

    graph = StateGraph(Said).add_sequence([step]).add_edge(START, "step")
    async with Saver.from_url(redis_url) as saver:
        compiled: Any = graph.compile(checkpointer=saver)
        await compiled.ainvoke({"said": ["a"]}, THREAD)
        first = await compiled.aget_state(THREAD)
        await compiled.ainvoke({"said": ["b"]}, THREAD)
        left = await compiled.aget_state(THREAD)
        await compiled.ainvoke({"said": ["c"]}, first.config)
        right = await compiled.aget_state(THREAD)
        assert right.values == {"said": ["a", "1", "c", "3"]}
        assert (await compiled.aget_state(left.config)).values == {"said": ["a", "1", "b", "3"]}


async def test_a_graph_runs_by_invoke_in_another_thread_and_says_what_to_do_in_its_own(
    redis_url: str,
) -> None:
    def step(state: Said) -> Said:
        return {"said": ["stepped"]}

    graph = StateGraph(Said).add_sequence([step]).add_edge(START, "step")
    async with Saver.from_url(redis_url) as saver:
        compiled: Any = graph.compile(checkpointer=saver)
        result = await asyncio.to_thread(compiled.invoke, {"said": []}, THREAD)
        assert result == {"said": ["stepped"]}
        history = await asyncio.to_thread(lambda: list(compiled.get_state_history(THREAD)))
        assert [state.metadata["step"] for state in history] == [1, 0, -1]
        await asyncio.to_thread(saver.copy_thread, "one", "two")
        await asyncio.to_thread(saver.delete_thread, "one")
        assert await asyncio.to_thread(saver.get_tuple, THREAD) is None
        assert len([one async for one in saver.alist({"configurable": {"thread_id": "two"}})]) == 3
        with pytest.raises(asyncio.InvalidStateError, match="ainvoke"):
            compiled.invoke({"said": []}, THREAD)


def folded(state: list[str], writes: list[list[str]]) -> list[str]:
    return [*state, *(word for write in writes for word in write)]


class Deltas(TypedDict):
    said: Annotated[list[str], DeltaChannel(folded, snapshot_frequency=4)]


async def test_delta_channels_outlive_pruning_copies_and_a_full_thread(redis_url: str) -> None:
    """The state of a delta channel is in the writes since its last snapshot.

    A saver must not delete these writes.
    """

    async def step(state: Deltas) -> Deltas:
        return {"said": [f"turn {len(state['said'])} {'x' * 1000}"]}

    graph = StateGraph(Deltas).add_sequence([step]).add_edge(START, "step")
    async with Saver.from_url(redis_url) as saver, Saver.from_url(redis_url, thread_bytes=150_000) as small:
        compiled: Any = graph.compile(checkpointer=saver)
        for number in range(7):
            await compiled.ainvoke({"said": [f"ask {number}"]}, THREAD)
        whole = (await compiled.aget_state(THREAD)).values
        assert len(whole["said"]) == 14
        before = len([one async for one in saver.alist(THREAD)])
        await saver.acopy_thread("one", "two")
        await saver.aprune(["one"])
        assert 1 < len([one async for one in saver.alist(THREAD)]) < before
        assert (await compiled.aget_state(THREAD)).values == whole
        two: Any = {"configurable": {"thread_id": "two"}}
        assert (await compiled.aget_state(two)).values == whole

        async def fill() -> None:
            for _ in range(100):
                await graph.compile(checkpointer=small).ainvoke({"said": ["more"]}, two)

        with pytest.raises(ThreadFull):
            await fill()
        said = (await compiled.aget_state(two)).values["said"]
        assert said[:14] == whole["said"]
        history = [state.values.get("said", []) async for state in compiled.aget_state_history(two)]
        assert len(history) > before
        assert [one for one in history if one != said[: len(one)]] == []


async def test_the_documented_chain_keeps_its_checkpoints(
    redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run the example of docs/chains.md as a worker runs it."""
    page = (REPOSITORY / "docs/chains.md").read_text()
    [example] = re.findall(r"```python\n(from [^`]*Saver\.from_settings.*?)```", page, re.DOTALL)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("GATEWAY_THREAD_SECONDS", "500")
    names: dict[str, Any] = {"__name__": "kept"}
    exec(example, names)  # The executed code is our own example.
    result = await run(names["kept"], user="Hello", model=Scripted("Hello again."))
    assert (result.text, result.error) == ("Hello again.", None)
    async with Saver.from_url(redis_url) as saver:
        kept = [one async for one in saver.alist(None)]
    messages = kept[0].checkpoint["channel_values"]["messages"]
    assert [message.text for message in messages] == ["Hello", "Hello again."]
    assert all([400 < await redis.ttl(key) <= 500 async for key in redis.scan_iter("*")])
