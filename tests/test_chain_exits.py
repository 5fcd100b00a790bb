"""A chain cannot end its process, whatever exception it raises and at whatever place (row 108)."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel
from langchain_core.tools import tool

from gateway.process import run_in_loop
from tests.support.jobs import Jobs, body, make_chain
from tests.support.model_server import ModelServer, script
from tests.test_model_ends import client
from workers import guard
from workers.chains.registry import chain

EXITS: list[Callable[[], Any]] = [lambda: sys.exit("bad arguments")]


def raising(kind: type[BaseException]) -> Callable[[], Any]:
    def act() -> None:
        raise kind

    return act


EXITS += [raising(KeyboardInterrupt), raising(GeneratorExit)]


def alone(act: Callable[[], Any]) -> Runnable[Any, Any]:
    async def run(given: Any) -> Any:
        return act()

    return RunnableLambda(run)


def in_a_task(act: Callable[[], Any]) -> Runnable[Any, Any]:
    async def run(given: Any) -> Any:
        await asyncio.sleep(0)
        return await asyncio.get_running_loop().create_task(alone(act).ainvoke(given))

    return RunnableLambda(run)


def in_a_branch(act: Callable[[], Any]) -> Runnable[Any, Any]:
    return RunnableParallel(fine=RunnableLambda(lambda given: given), bad=alone(act))


def in_a_thread(act: Callable[[], Any]) -> Runnable[Any, Any]:
    return RunnableLambda(lambda given: act())


def in_a_node(act: Callable[[], Any]) -> Runnable[Any, Any]:
    from langgraph.graph import START, MessagesState, StateGraph

    async def bad(state: MessagesState) -> dict[str, Any]:
        await asyncio.sleep(0)
        act()
        return {}

    graph = StateGraph(MessagesState)
    graph.add_node("bad", bad)
    graph.add_node("beside", lambda state: {})
    graph.add_edge(START, "bad")
    graph.add_edge(START, "beside")
    return graph.compile()


making: dict[str, Runnable[Any, Any]] = {}
chain("exits")(lambda _: making["exits"])


async def waits(given: Any) -> AsyncIterator[str]:
    yield "a"
    await asyncio.get_running_loop().create_task(asyncio.sleep(0.05))
    yield "b"


@pytest.mark.parametrize("shape", [alone, in_a_task, in_a_branch, in_a_thread, in_a_node])
async def test_fault_108_one_stream_fails_and_all_others_go_on(redis_url: str, shape: Any) -> None:
    make_chain("waits", waits)
    for number, act in enumerate(EXITS):
        making["exits"] = shape(act)
        async with Jobs(redis_url) as jobs:
            other = await jobs.stream("q", chain="waits")
            running = asyncio.create_task(jobs.runner.run(body(other)))
            await jobs.shows(other, "a")
            bad = await jobs.stream([{"role": "user", "content": "q"}], chain="exits")
            await jobs.runner.run(body(bad))
            await running
            error = (await jobs.fold(bad)).error
            assert error is not None, number
            assert (error["code"], error["retryable"]) == ("chain_error", False)
            assert (await jobs.fold(other)).text == "ab"


async def test_fault_108_a_tool_that_exits_is_not_asked_again(redis_url: str) -> None:
    from langchain.agents import create_agent

    asked = []

    @tool
    async def leave() -> str:
        """Leave."""
        asked.append(1)
        sys.exit(0)

    async with AsyncExitStack() as opened:
        model = await opened.enter_async_context(ModelServer())
        # This must be registered before the registry is made.
        chain("leaves")(lambda _: create_agent(client(model), [leave]))
        jobs = await opened.enter_async_context(Jobs(redis_url))
        question = script([], tool_calls=[{"name": "leave", "pieces": ["{}"]}])
        stream_id = await jobs.stream([{"role": "user", "content": question}], chain="leaves")
        await jobs.runner.run(body(stream_id))
        error = (await jobs.fold(stream_id)).error
        assert error is not None
        assert (error["code"], len(asked)) == ("chain_error", 1)


async def test_fault_108_a_chains_task_that_is_cancelled_before_it_begins_leaves_nothing_behind(
    redis_url: str,
) -> None:
    """The guard keeps a coroutine.

    The guard must start or close it, as a task does with its own coroutine.
    """
    begun = []

    async def work() -> None:
        begun.append(1)

    async def run(given: Any) -> str:
        task = asyncio.get_running_loop().create_task(work())
        task.cancel()
        await asyncio.wait({task})
        return f"{task.cancelled()}{'work' in repr(task)}"

    chain("unbegun")(lambda _: RunnableLambda(run))
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream("q", chain="unbegun")
        await jobs.runner.run(body(stream_id))
        assert ((await jobs.fold(stream_id)).text, begun) == ("TrueTrue", [])


# No event loop lets GeneratorExit through.
@pytest.mark.parametrize("act", EXITS[:2])
def test_fault_108_a_host_goes_on_with_its_event_loop(
    act: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exception passes through the function in which `python -m gateway` runs, on its event loop.

    Code that awaits the task receives the exception.
    """
    monkeypatch.setattr(guard, "_host_survives", False)

    async def exits() -> None:
        await asyncio.sleep(0)
        act()

    async def nests() -> None:
        await asyncio.get_running_loop().create_task(exits())

    async def work() -> list[str]:
        steps = []
        beside = asyncio.get_running_loop().create_task(asyncio.sleep(0.05, "beside"))
        try:
            await asyncio.get_running_loop().create_task(nests())
        except BaseException as error:
            steps.append(type(error).__name__)
        return [*steps, await beside]

    told = run_in_loop(work(), serving=True)
    assert told[1:] == ["beside"]
    assert told[0] in ("SystemExit", "KeyboardInterrupt")


def test_fault_108_what_a_task_raises_that_nobody_awaits_is_told_without_its_words(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio would log the whole exception, which may quote a prompt."""
    monkeypatch.setattr(guard, "_host_survives", False)

    # A source line in a stack trace may be logged, so the word is not written here in one piece.
    prompt = "".join(["se", "cret"])

    async def fails() -> None:
        raise LookupError(prompt)

    def calls(given: str) -> None:
        raise LookupError(given)

    async def work() -> None:
        left = asyncio.get_running_loop().create_task(fails())
        await asyncio.wait({left})
        del left
        gc.collect()
        asyncio.get_running_loop().call_soon(calls, prompt)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    run_in_loop(work(), serving=True)
    assert "Task exception was never retrieved" in caplog.text
    assert "Exception in callback" in caplog.text
    assert caplog.text.splitlines().count("LookupError") == 2
    assert prompt not in caplog.text


def test_fault_108_what_the_host_itself_raises_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_host_survives", False)

    async def work() -> None:
        await asyncio.sleep(0)
        raise SystemExit("cannot listen")

    with pytest.raises(SystemExit, match="cannot listen"):
        run_in_loop(work(), serving=True)
