"""A chain of several stages: what each is given, what is kept of it, and what nobody runs twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableLambda
from redis.asyncio import Redis

from gateway.record import Record
from gateway.writing.writer import TooLong
from tests.support.jobs import Jobs, body
from workers.chains.registry import chain
from workers.runner import AGAIN, DONE
from workers.stages import MOST_RUNS, Each, Stages

NAMES = ("one", "many", "last")


def record(given: Any = "q", **checkpoints: Any) -> Record:
    kept = {name.replace("_", " "): json.dumps(value).encode() for name, value in checkpoints.items()}
    raw = {"status": b"running", "input": json.dumps({"input": given}).encode()}
    return Record.of("i", raw | {f"ckpt:{name}": value for name, value in kept.items()})


def kept(result: Any, tokens: int = 1) -> dict[str, Any]:
    return {"result": result, "usage": {"output_tokens": tokens}}


def stages(of: Record, finished: set[tuple[str, int]], most: int = 1000) -> Stages:
    runnable: Runnable[Any, Any] = RunnableLambda(lambda given: given)
    made = {"one": runnable, "many": Each(runnable, lambda given: given["one"].split()), "last": runnable}
    return Stages(NAMES, made, of, finished, most=most)


def test_each_stage_is_given_the_input_and_the_results_before_it() -> None:
    made, given = stages(record(), set()), []
    for step in made.steps():
        given.append((step.name, step.index, step.count, step.last, step.given))
        made.finish(step, "a b" if step.stage == "one" else step.name.upper(), {})
    results = {"input": "q", "one": "a b"}
    assert given == [
        ("one 1", 0, 3, False, {"input": "q"}),
        ("many 1", 1, 3, False, results | {"item": "a"}),
        ("many 2", 1, 3, False, results | {"item": "b"}),
        ("last 1", 2, 3, True, results | {"many": ["MANY 1", "MANY 2"]}),
    ]


def test_a_chains_only_stage_is_given_the_input_itself() -> None:
    runnable: Runnable[Any, Any] = RunnableLambda(lambda given: given)
    step = next(Stages(("s",), {"s": runnable}, record(["any"]), set(), most=10).steps())
    assert (step.given, step.last) == (["any"], True)


def test_what_is_kept_and_stands_in_the_log_is_not_run_again() -> None:
    made = stages(record(one_1=kept("a b", 5), many_1=kept("A", 7)), {("one", 1), ("many", 1)})
    steps = made.steps()
    step = next(steps)
    assert (step.name, step.given["one"], step.given["item"]) == ("many 2", "a b", "b")
    made.finish(step, "B", {"output_tokens": 2})
    assert next(steps).given["many"] == ["A", "B"]
    assert made.usage == {"output_tokens": 14}


@pytest.mark.parametrize(
    ("checkpoints", "finished"), [({"one_1": kept("a")}, set()), ({}, {("one", 1)})], ids=["kept", "stands"]
)
def test_one_without_the_other_is_not_enough(
    checkpoints: Mapping[str, Any], finished: set[tuple[str, int]]
) -> None:
    assert next(stages(record(**checkpoints), finished).steps()).name == "one 1"


def test_a_checkpoint_is_read_back_as_another_worker_would_read_it() -> None:
    made = stages(record(), set())
    steps = made.steps()
    fields = made.finish(next(steps), ("a b", 1), {})
    assert {name: json.loads(raw) for name, raw in fields.items()} == {
        "ckpt:one 1": {"result": ["a b", 1], "usage": {}}
    }
    with pytest.raises(AttributeError):  # so that `over` fails at once, and not only after a crash
        next(steps)


def test_checkpoints_are_bounded_in_all() -> None:
    made = stages(record(one_1=kept("a b")), {("one", 1)}, most=100)
    steps = made.steps()
    made.finish(next(steps), "x" * 20, {})
    with pytest.raises(TooLong):
        made.finish(next(steps), "x" * 20, {})


def test_a_result_that_is_no_json_is_an_error() -> None:
    made = stages(record(), set())
    with pytest.raises(TypeError):
        made.finish(next(made.steps()), object(), {})


def test_a_stage_does_not_run_without_end() -> None:
    made = stages(record(one_1=kept("x " * (MOST_RUNS + 1))), {("one", 1)})
    with pytest.raises(ValueError, match="may run"):
        next(made.steps())


# In a worker


class Script:
    """A chain whose stages say what they are given, and can be told to wait, or to fail."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}

    def stage(self, name: str) -> Runnable[Any, Any]:
        async def transform(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
            async for given in inputs:
                self.ran.append(name)
                yield f"{name}({given.get('item', '')}"
                if name in self.gates:
                    await self.gates[name].wait()
                yield ")"

        return RunnableGenerator(transform)

    def register(self) -> None:
        names = ("a", "b", "c")
        items = Each(self.stage("b"), lambda given: ["x", "y"])
        chain("staged", stages=names)(lambda _: {"a": self.stage("a"), "b": items, "c": self.stage("c")})


TEXTS = [("a", 1, "a()"), ("b", 1, "b(x)"), ("b", 2, "b(y)"), ("c", 1, "c()")]


async def texts(jobs: Jobs, stream_id: str) -> list[tuple[str, int, str]]:
    return [(stage.name, stage.run, stage.text) for stage in (await jobs.fold(stream_id)).stages]


async def checkpoints(jobs: Jobs, stream_id: str) -> dict[str, str]:
    return {
        name: json.loads(raw)["result"] for name, raw in (await jobs.record(stream_id)).checkpoints.items()
    }


async def test_stages_run_in_order_and_leave_nothing_behind(redis_url: str) -> None:
    script = Script()
    script.register()
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream("q", chain="staged")
        assert await jobs.runner.run(body(stream_id)) == DONE
        assert await texts(jobs, stream_id) == TEXTS
        assert script.ran == ["a", "b", "b", "c"]
        assert await checkpoints(jobs, stream_id) == {}
        kinds = await jobs.kinds(stream_id)
        assert kinds[-2:] == ["stage", "done"]
        assert kinds.count("stage") == 2 * len(TEXTS)


async def test_a_checkpoint_stands_with_its_finished_event(redis_url: str, redis: Redis) -> None:
    """After each append: as many finished events as checkpoints, never one without the other."""
    script = Script()
    script.register()
    script.gates["c"] = asyncio.Event()
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream("q", chain="staged")
        job, log, _ = jobs.log.keys(stream_id)
        seen = set()
        running = asyncio.create_task(jobs.runner.run(body(stream_id)))
        while not running.done():
            async with redis.pipeline() as both:
                both.hkeys(job)
                both.get(log)
                fields, frames = await both.execute()
            ended = frames.count(b'"state":"finished"')
            if b"event: done" not in frames:
                assert sum(bytes(name).startswith(b"ckpt:") for name in fields) == ended
                seen.add(ended)
            if max(seen) == 3:  # all that comes before it, not too soon to be looked at
                script.gates["c"].set()
        assert await running == DONE


@pytest.mark.parametrize("dies_in", ["a", "b", "c"])
async def test_another_worker_goes_on_with_the_stage_that_was_not_finished(
    redis_url: str, dies_in: str
) -> None:
    script = Script()
    script.register()
    script.gates[dies_in] = asyncio.Event()
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream("q", chain="staged")
        first = asyncio.create_task(jobs.runner.run(body(stream_id)))
        shown = next(number for number, (name, _, _) in enumerate(TEXTS) if name == dies_in)
        await jobs.shows(stream_id, TEXTS[shown][2][:-1])
        before = list(script.ran)
        first.cancel()  # as a process that stops: the job is handed over in the middle of a stage
        assert await first == AGAIN
        kept = await checkpoints(jobs, stream_id)
        assert list(kept.values()) == [text for _, _, text in TEXTS[:shown]]
        script.gates[dies_in].set()
        assert await jobs.runner.run(body(stream_id)) == DONE
        assert await texts(jobs, stream_id) == TEXTS
        assert "reset" not in await jobs.kinds(stream_id)
        assert script.ran == [*before, dies_in, *"abbc"[shown + 1 :]]


async def test_fault_29_past_its_budget_a_run_is_handed_over_at_each_stages_end(
    redis_url: str, redis: Redis
) -> None:
    """With one attempt allowed in all: a hand-over is none."""
    script = Script()
    script.register()
    async with Jobs(redis_url, run_budget=1e-9, max_attempts=1, max_failures=1) as jobs:
        stream_id = await jobs.stream("q", chain="staged")
        for handed_over in range(len(TEXTS) - 1):
            assert await jobs.runner.run(body(stream_id)) == AGAIN
            record = await jobs.record(stream_id)
            assert (record.status, record.handovers) == ("queued", handed_over + 1)
            assert len(await checkpoints(jobs, stream_id)) == handed_over + 1
        assert await jobs.runner.run(body(stream_id)) == DONE
        assert await texts(jobs, stream_id) == TEXTS
        assert script.ran == ["a", "b", "b", "c"]
        done = (await jobs.messages(stream_id))[-1].event().data
        assert done["attempts"] == len(TEXTS)


async def test_a_handed_over_chain_writes_what_an_undisturbed_one_writes(redis_url: str) -> None:
    Script().register()
    logs = []
    for budget in (0.0, 1e-9):
        async with Jobs(redis_url, run_budget=budget) as jobs:
            stream_id = await jobs.stream("q", chain="staged")
            while await jobs.runner.run(body(stream_id)) == AGAIN:
                pass
            logs.append([(m.type, m.data) for m in await jobs.messages(stream_id)][1:-1])
    assert logs[0] == logs[1]


async def test_a_stage_over_its_limit_is_tried_again_where_that_is_wanted(redis_url: str) -> None:
    script = Script()
    script.register()
    script.gates["b"] = asyncio.Event()
    async with Jobs(redis_url, stage_limit=0.1, stage_limit_tries=3) as jobs:
        stream_id = await jobs.stream("q", chain="staged")
        for _ in range(2):
            assert await jobs.runner.run(body(stream_id)) == AGAIN
        assert await jobs.runner.run(body(stream_id)) == DONE
        fold = await jobs.fold(stream_id)
        assert fold.error is not None
        assert fold.error["code"] == "time_limit"
        assert script.ran == ["a", "b", "b", "b"]
        assert "reset" not in await jobs.kinds(stream_id)


async def test_a_stage_that_ends_in_time_takes_earlier_overruns_back(redis_url: str) -> None:
    script = Script()
    script.register()
    async with Jobs(redis_url, stage_limit=0.1, stage_limit_tries=2) as jobs:
        stream_id = await jobs.stream("q", chain="staged")
        for name in "abc":
            script.gates[name] = asyncio.Event()
            assert await jobs.runner.run(body(stream_id)) == AGAIN
            del script.gates[name]
        assert await jobs.runner.run(body(stream_id)) == DONE
        assert await texts(jobs, stream_id) == TEXTS


async def test_results_beyond_their_bound_end_the_stream(redis_url: str) -> None:
    Script().register()
    async with Jobs(redis_url, max_checkpoints=40) as jobs:
        stream_id = await jobs.stream("q", chain="staged")
        assert await jobs.runner.run(body(stream_id)) == DONE
        error = (await jobs.fold(stream_id)).error
        assert error is not None
        assert error["code"] == "too_long"
