"""A run's checkpoints: nothing of them stands before the run's end does, and a lost end is taken back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.redis.cluster import Router
from gateway.redis.connect import Place
from tests.support.asking import asks_once, asks_twice, asks_within
from workers.checkpoints.draft import Draft, take_back
from workers.checkpoints.errors import CheckpointTooLarge
from workers.checkpoints.names import aside_of
from workers.checkpoints.saver import Saver

THREAD = "t"


@pytest.fixture
async def saver(redis_url: str) -> AsyncIterator[Saver]:
    connection = Router(Place(redis_url), name="draft")
    yield Saver(connection, owner="alice")
    await connection.close()


def with_draft(graph: Any, saver: Saver, run: str, *, is_new: bool = False) -> tuple[Any, Draft]:
    draft = Draft(saver, THREAD, run, is_new=is_new)
    graph.checkpointer = draft
    return graph, draft


async def run(graph: Any, source: Any, run_id: str) -> Any:
    config: Any = {"configurable": {"thread_id": THREAD}, "metadata": {"run_id": run_id}}
    await graph.ainvoke(source, config, durability="exit")
    return await graph.aget_state(config)


async def stored(saver: Saver) -> list[Any]:
    """All that stands of the thread: checkpoints, and what was written after them."""
    found = [one async for one in saver.alist({"configurable": {"thread_id": THREAD}})]
    return [
        (one.config, one.checkpoint, one.metadata, sorted(map(str, one.pending_writes or ())))
        for one in found
    ]


@pytest.mark.parametrize("make", [asks_once, asks_within])
async def test_nothing_is_stored_until_it_is_kept(saver: Saver, make: Any) -> None:
    from langgraph.types import Command

    graph, draft = with_draft(make(), saver, "one", is_new=True)
    state = await run(graph, {"text": "q"}, "one")
    [question] = state.interrupts
    assert await stored(saver) == []
    await draft.keep()
    assert await stored(saver)
    graph, draft = with_draft(make(), saver, "two")
    state = await run(graph, Command(resume={question.id: "yes"}), "two")
    assert (state.next, state.values["said"]) == ((), {"ask": "yes"})


@pytest.mark.parametrize("make", [asks_once, asks_twice, asks_within])
async def test_what_a_lost_attempt_has_stored_is_taken_back(saver: Saver, make: Any) -> None:
    """`asks_twice` stores nothing but writes after a checkpoint of the run before: these are undone, too."""
    from langgraph.types import Command

    graph, draft = with_draft(make(), saver, "one", is_new=True)
    [question] = (await run(graph, {"text": "q"}, "one")).interrupts
    await draft.keep()
    before = await stored(saver)
    for answer in ("yes", "no"):
        graph, draft = with_draft(make(), saver, "two")
        state = await run(graph, Command(resume={question.id: answer}), "two")
        shown = [one.value for one in state.interrupts], state.values.get("said")
        assert shown == ((["second?"], {}) if make is asks_twice else ([], {"ask": answer}))
        await draft.keep()
        assert await stored(saver) != before
        await take_back(saver, THREAD, "two")
        assert await stored(saver) == before
        await take_back(saver, THREAD, "two")  # as an attempt does that follows one which died here
        assert await stored(saver) == before


async def test_what_was_set_aside_goes_with_the_thread_and_is_no_thread(saver: Saver) -> None:
    from langgraph.types import Command

    graph, draft = with_draft(asks_twice(), saver, "one", is_new=True)
    [question] = (await run(graph, {"text": "q"}, "one")).interrupts
    await draft.keep()
    graph, draft = with_draft(asks_twice(), saver, "two")
    await run(graph, Command(resume={question.id: 1}), "two")
    await draft.keep()
    assert await saver.store.all_ids(aside_of(THREAD))
    assert await saver.store.threads() == [THREAD]
    await saver.adelete_thread(THREAD)
    assert await saver.store.all_ids(aside_of(THREAD)) == await stored(saver) == []


async def test_what_cannot_be_stored_is_told_when_it_is_kept(redis_url: str, saver: Saver) -> None:
    small = Saver(saver.store.connection, owner="alice", checkpoint_bytes=1000)
    graph, draft = with_draft(asks_once(), small, "one", is_new=True)
    await run(graph, {"text": "q" * 2000}, "one")
    with pytest.raises(CheckpointTooLarge):
        await draft.keep()
