"""Nodes that are not async run in threads.

Their tokens cross to the event loop, and a lost token fails the stage.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.callbacks import adispatch_custom_event

from gateway.protocol import Event
from gateway.writing.writer import TooLong
from tests.test_graph import HERE, State, graph_of, run, says
from workers.langchain import Outcome, stream, tap

WORDS = " ".join(["w"] * 200)  # It has 399 tokens.


def in_a_thread(state: State) -> State:
    return {"text": str(says(WORDS).invoke("q").content)}


async def in_the_loop(state: State) -> State:
    return {"text": str(says(WORDS).invoke("q").content)}


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap, "ON_THEIR_WAY_BYTES", 2000)


def text(events: list[Event]) -> str:
    return "".join(event.data["delta_content"] for event in events if event.type == "")


@pytest.mark.parametrize("node", [in_a_thread, in_the_loop])
async def test_no_token_is_lost_however_little_room_there_is(node: Callable[[Any], Any]) -> None:
    events, outcome = await run(graph_of(node))
    assert text(events) == WORDS
    assert outcome.result == {"topic": "t", "text": WORDS}


async def test_a_call_that_keeps_the_loop_waits_once_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await run(graph_of(in_the_loop))
    assert [record.getMessage() for record in caplog.records if record.name == "holdfast.tap"] == [
        "stage g: code that is not async keeps the event loop"
    ]


async def test_what_a_call_in_the_loop_says_comes_before_what_its_node_says_after_it() -> None:
    async def node(state: State) -> State:
        says("a").invoke("q")
        await adispatch_custom_event("after", 1)
        return {}

    events, _ = await run(graph_of(node))
    assert [event.type for event in events] == ["stage", "", "custom", "stage"]


async def test_more_than_a_log_takes_fails_the_stage() -> None:
    async def emit(event: Event) -> None:
        pass

    here = replace(HERE, max_log=20_000)
    with pytest.raises(TooLong):
        await stream(graph_of(in_the_loop), {"topic": "t"}, {}, emit, here, Outcome())


async def test_after_a_failure_nothing_waits_and_the_stage_fails_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """LangChain ignores an exception that the callback raises, so the node itself runs to its end."""
    waits, finished = threading.Event(), threading.Event()

    class Watched(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            waits.set()
            return super().wait(timeout)

    def node(state: State) -> State:
        said = in_a_thread(state)
        finished.set()
        return said

    async def emit(event: Event) -> None:
        if event.type == "":
            assert await asyncio.to_thread(waits.wait, 30)
            raise LookupError("the store")

    monkeypatch.setattr(tap, "Condition", Watched)
    with pytest.raises(LookupError, match="the store"):
        async with asyncio.timeout(60):
            await stream(graph_of(node), {"topic": "t"}, {}, emit, HERE, Outcome())
    assert finished.is_set()


async def test_a_thread_waits_for_the_store_until_its_stage_is_over() -> None:
    over, waits = threading.Event(), asyncio.Event()

    def node(state: State) -> State:
        try:
            return in_a_thread(state)
        finally:
            over.set()

    async def emit(event: Event) -> None:
        if event.type == "":
            waits.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(stream(graph_of(node), {"topic": "t"}, {}, emit, HERE, Outcome()))
    await waits.wait()
    assert not await asyncio.to_thread(over.wait, 2 * tap.STANDSTILL_SECONDS)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(over.wait, 30)
