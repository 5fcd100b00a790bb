"""Time limits of a stage, of a graph's node and of a worker's run, and handing a run over after a node."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import RunnableConfig, RunnableGenerator
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from gateway.azure.function_timeout import limited, run_limit
from gateway.settings import Settings
from tests.support.jobs import Jobs, body
from workers.chains.registry import chain
from workers.delivery.runner import AGAIN, DONE

NAMES = ("one", "two", "three", "four")


class Kept(BaseCheckpointSaver[str]):
    """A saver that passes calls to an in-memory saver, but counts as one that other processes can open."""

    def __init__(self, kept: InMemorySaver) -> None:
        super().__init__()
        self.kept = kept

    async def aget_tuple(self, config: RunnableConfig) -> Any:
        return await self.kept.aget_tuple(config)

    async def aput(self, config: RunnableConfig, *given: Any) -> Any:
        return await self.kept.aput(config, *given)

    async def aput_writes(self, config: RunnableConfig, *given: Any) -> None:
        await self.kept.aput_writes(config, *given)

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self.kept.get_next_version(current, channel)


class Model(GenericFakeChatModel):
    """A model that answers one word, its name, and reports one output token for it."""

    async def _astream(self, *_: Any, **__: Any) -> AsyncIterator[ChatGenerationChunk]:
        said = AIMessageChunk(
            content=self.name or "", usage_metadata={"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
        )
        yield ChatGenerationChunk(message=said)


class State(TypedDict, total=False):
    done: list[str]


class Nodes:
    """A chain with a graph whose nodes run in a row. Each calls a model that answers the node's name.

    `ran` has the names of the nodes that ran.
    """

    def __init__(self, name: str, saver: Any = None, *, seconds: float = 0, **marked: Any) -> None:
        self.ran: list[str] = []
        self.seconds = seconds
        builder = StateGraph(State)
        for before, node in zip((START, *NAMES), NAMES, strict=False):
            builder.add_node(node, self._node(node))
            builder.add_edge(before, node)
        graph = builder.compile(checkpointer=saver)
        chain(name, **marked)(lambda _: graph)

    def _node(self, name: str) -> Any:
        model = Model(messages=iter(()), name=f"{name} ")

        async def node(state: State) -> State:
            self.ran.append(name)
            await model.ainvoke("q")
            await asyncio.sleep(self.seconds)
            return {"done": [*state.get("done", []), name]}

        return node


async def seen(jobs: Jobs, stream_id: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the events of the log without the first and the last one."""
    return [(m.type, m.event().data) for m in await jobs.messages(stream_id)][1:-1]


async def test_a_stages_limit_bounds_each_node_and_not_the_graph(redis_url: str) -> None:
    # The graph takes 2.8 s, more than the limit of 2 s. Each node takes 0.7 s: a busy machine has 1.3 s more.
    nodes = Nodes("long-graph", seconds=0.7)
    async with Jobs(redis_url, stage_limit=2.0) as jobs:
        stream_id = await jobs.stream({"done": []}, chain="long-graph")
        assert await jobs.runner.run(body(stream_id)) == DONE
        assert (await jobs.fold(stream_id)).error is None
    assert nodes.ran == list(NAMES)


async def test_fault_114_a_stage_over_its_limit_is_not_paid_for_again(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = Nodes("slow-node", seconds=30)
    async with Jobs(redis_url, stage_limit=0.1) as jobs:
        stream_id = await jobs.stream({"done": []}, chain="slow-node")
        with caplog.at_level(logging.ERROR):
            assert await jobs.runner.run(body(stream_id)) == DONE
        fold = await jobs.fold(stream_id)
    assert fold.error is not None
    assert (fold.error["code"], fold.text) == ("time_limit", "one ")
    assert fold.error["message"] == "The stage slow-node took longer than it may: 0.1 s."
    assert nodes.ran == ["one"]
    assert "GATEWAY_STAGE_LIMIT_SECONDS, or `limits` of the chain); the stream has failed" in caplog.text


async def test_a_chain_sets_the_limits_of_its_stages(redis_url: str) -> None:
    quick, slow = asyncio.Event(), asyncio.Event()
    quick.set()

    def says(text: str, gate: asyncio.Event) -> Any:
        async def stage(given: AsyncIterator[Any]) -> AsyncIterator[str]:
            async for _ in given:
                await asyncio.sleep(0.3)
                yield text
                await gate.wait()

        return RunnableGenerator(stage)

    limits = {"long": 0, "short": 0.1}
    chain("limited", stages=("long", "short"), limits=limits)(
        lambda _: {"long": says("long", quick), "short": says("short", slow)}
    )
    async with Jobs(redis_url, stage_limit=0.2) as jobs:
        stream_id = await jobs.stream("q", chain="limited")
        assert await jobs.runner.run(body(stream_id)) == DONE
        fold = await jobs.fold(stream_id)
        said = [m.event().data for m in await jobs.messages(stream_id) if m.type == "message"]
    assert fold.error is not None
    assert fold.error["message"] == "The stage short took longer than it may: 0.1 s."
    assert [one["delta_content"] for one in said] == ["long"]


@pytest.mark.parametrize("limits", [-1, True, float("inf"), {"other": 1}, {"mine": "1"}])
def test_limits_are_seconds_of_stages_that_there_are(limits: Any) -> None:
    with pytest.raises(ValueError, match="limits of mine"):
        chain("mine", limits=limits)


async def test_fault_113_a_graph_with_a_checkpointer_is_handed_over_between_nodes(redis_url: str) -> None:
    logs: list[Any] = []
    for budget in (0.0, 1e-9):
        nodes = Nodes("handed", Kept(InMemorySaver()))
        async with Jobs(redis_url, run_budget=budget, max_attempts=1, max_failures=1) as jobs:
            stream_id = await jobs.stream({"done": []}, chain="handed")
            answers = [await jobs.runner.run(body(stream_id))]
            while answers[-1] == AGAIN:
                answers.append(await jobs.runner.run(body(stream_id)))
            logs.append(await seen(jobs, stream_id))
            [usage] = [m.event().data["usage"] for m in await jobs.messages(stream_id) if m.type == "done"]
        assert nodes.ran == list(NAMES)
        assert usage["output_tokens"] == len(NAMES)
        assert answers == ([DONE] if not budget else [*[AGAIN] * (len(NAMES) - 1), DONE])
    assert logs[0] == logs[1]


async def test_what_no_other_worker_could_go_on_with_is_not_handed_over(redis_url: str) -> None:
    for saver in (None, InMemorySaver()):
        nodes = Nodes("held", saver)
        async with Jobs(redis_url, run_budget=1e-9) as jobs:
            stream_id = await jobs.stream({"done": []}, chain="held")
            assert await jobs.runner.run(body(stream_id)) == DONE
        assert nodes.ran == list(NAMES)


async def test_a_stage_begins_where_it_has_its_whole_time_and_ends_before_the_platform_does(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    def says(text: str, seconds: float) -> Any:
        async def stage(given: AsyncIterator[Any]) -> AsyncIterator[str]:
            async for _ in given:
                yield text
                await asyncio.sleep(seconds)

        return RunnableGenerator(stage)

    limits = {"first": 1, "long": 1.9}
    chain("platform", stages=("first", "long"), limits=limits)(
        lambda _: {"first": says("first", 0.2), "long": says("long", 30)}
    )
    async with Jobs(redis_url, run_limit=2.0) as jobs:
        stream_id = await jobs.stream("q", chain="platform")
        assert await jobs.runner.run(body(stream_id)) == AGAIN
        assert (await jobs.record(stream_id)).handovers == 1
        with caplog.at_level(logging.ERROR):
            assert await jobs.runner.run(body(stream_id)) == DONE
        said = [m.event().data for m in await jobs.messages(stream_id) if m.type == "message"]
        assert [one["delta_content"] for one in said] == ["first", "long"]
    assert "after its 1.9 s" in caplog.text


HOSTS: Sequence[tuple[str, str, float]] = [
    ('{"functionTimeout": "00:30:00"}', "", 1740),
    ('{"functionTimeout": "1.00:00:00"}', "", 86340),
    ('{"functionTimeout": "-1"}', "", 0),
    ("{}", "", 1740),
    ('{"functionTimeout": "00:30:00"}', "02:00:30", 7170),
    ('{"functionTimeout": "00:00:30"}', "", 1),
]


@pytest.mark.parametrize(("text", "setting", "seconds"), HOSTS)
def test_the_platforms_own_limit_is_read(tmp_path: Path, text: str, setting: str, seconds: float) -> None:
    (tmp_path / "host.json").write_text(text)
    settings = Settings.from_env({"AzureFunctionsJobHost__functionTimeout": setting})
    assert limited(settings, tmp_path).run_limit == seconds


def test_a_limit_that_is_set_stands_before_the_platforms() -> None:
    assert limited(Settings(run_limit=5.0), Path("/nowhere")).run_limit == 5


@pytest.mark.parametrize("told", ["soon", "30", "00:30", 30])
def test_what_is_no_time_is_refused(told: Any) -> None:
    with pytest.raises(ValueError, match="functionTimeout"):
        run_limit(told)
