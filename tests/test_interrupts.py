"""Graphs without their own checkpointer stop at an interrupt to ask a question.

The tests check the events of their streams, and what is stored for the answer.
"""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.graph import START, StateGraph

from tests.support import asking
from tests.support.jobs import Jobs, body
from workers.chains.registry import chain
from workers.checkpoints.saver import Saver
from workers.delivery.runner import DONE

asking.register()
QUESTIONS = {
    "asks_once": [{"question": "Send it?"}],
    "asks_by_schema": ["ok?"],
    "asks_thrice": ["a?", "b?", "c?"],
    "asks_within": ["ask?"],
    "asks_in_a_tool": [{"where": "cat"}],
}
GIVEN: dict[str, Any] = {"asks_in_a_tool": [{"role": "user", "content": "q"}]}


async def ran(jobs: Jobs, name: str) -> str:
    stream_id = await jobs.stream(GIVEN.get(name, {"text": "q"}), chain=name)
    assert await jobs.runner.run(body(stream_id)) == DONE
    return stream_id


async def checkpoints(jobs: Jobs, stream_id: str) -> list[Any]:
    saver = Saver(jobs.connection, owner="anonymous")
    return [one async for one in saver.alist({"configurable": {"thread_id": f"stream:{stream_id}"}})]


@pytest.mark.parametrize("name", QUESTIONS)
async def test_a_question_ends_the_stream_and_is_kept_for_an_answer(redis_url: str, name: str) -> None:
    async with Jobs(redis_url) as jobs:
        stream_id = await ran(jobs, name)
        done = (await jobs.messages(stream_id))[-1].event()
        assert done.data["finish_reason"] == "interrupted"
        asked = done.data["interrupts"]
        assert sorted((one["value"] for one in asked), key=str) == QUESTIONS[name]
        record = await jobs.record(stream_id)
        assert record.questions == asked
        assert (record.stopped_at, record.input is not None) == (f"{name} 1", True)
        newest = next(one for one in await checkpoints(jobs, stream_id) if not one.metadata.get("parents"))
        assert newest.metadata["run_id"] == stream_id
        assert not [known for known in newest.metadata if known.startswith("holdfast")]
        persisted = {
            one.id
            for _, channel, found in newest.pending_writes
            if channel == "__interrupt__"
            for one in found
        }
        assert persisted == {one["id"] for one in asked}


async def test_a_question_tells_what_its_answer_has_to_be(redis_url: str) -> None:
    async with Jobs(redis_url) as jobs:
        record = await jobs.record(await ran(jobs, "asks_by_schema"))
        assert record.questions
        assert record.questions[0]["response_schema"]["required"] == ["ok"]


async def test_a_run_that_asks_nothing_stores_no_checkpoint(redis_url: str) -> None:
    builder: Any = StateGraph(asking.Answers)
    builder.add_node("begins", asking.begins)
    builder.add_edge(START, "begins")
    chain("asks-nothing")(lambda _: builder.compile())
    async with Jobs(redis_url) as jobs:
        stream_id = await ran(jobs, "asks-nothing")
        assert (await jobs.fold(stream_id)).text == "well then"
        assert await checkpoints(jobs, stream_id) == []
        record = await jobs.record(stream_id)
        assert (record.questions, record.input) == (None, None)


class Odd:
    """An object that LangGraph cannot serialize, so a checkpoint with it cannot be stored."""


@pytest.mark.parametrize("why", ["none is wanted", "it cannot be stored"])
async def test_a_graph_that_cannot_be_gone_on_from_asks_and_does_not_wait(redis_url: str, why: str) -> None:
    class Strange(asking.Answers, total=False):
        odd: Any

    async def odd(state: Strange) -> Any:
        return {"odd": Odd()} if why == "it cannot be stored" else {}

    builder: Any = StateGraph(Strange)
    builder.add_node("odd", odd)
    builder.add_node("ask", asking._asks("ask"))
    builder.add_edge(START, "odd")
    builder.add_edge("odd", "ask")
    without: Any = {"checkpointer": False} if why == "none is wanted" else {}
    chain(f"odd-{why}")(lambda _: builder.compile(**without))
    async with Jobs(redis_url) as jobs:
        stream_id = await ran(jobs, f"odd-{why}")
        done = (await jobs.messages(stream_id))[-1].event()
        assert done.data["finish_reason"] == "interrupted"
        record = await jobs.record(stream_id)
        assert (record.questions, record.input) == (None, None)
