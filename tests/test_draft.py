"""A run's checkpoints are stored only at the end of the run, and are removed again if that end is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from langgraph.types import Command

from gateway.redis.cluster import Router
from gateway.redis.connect import Place
from tests.support.asking import asks_once, asks_twice, asks_within
from workers.checkpoints.draft import Draft, take_back
from workers.checkpoints.errors import CheckpointTooLarge, TurnOver
from workers.checkpoints.names import aside_of
from workers.checkpoints.saver import Saver
from workers.checkpoints.store import Author, Store

THREAD = "t"


@pytest.fixture
async def saver(redis_url: str) -> AsyncIterator[Saver]:
    connection = Router(Place(redis_url), name="draft")
    yield Saver(connection, owner="alice")
    await connection.close()


def with_draft(
    graph: Any, saver: Saver, run: str, attempt: int = 1, *, is_new: bool = False, space: str = ""
) -> tuple[Any, Draft]:
    draft = Draft(saver, THREAD, Author(run, attempt), is_new=is_new, space=space)
    graph.checkpointer = draft
    return graph, draft


async def run(graph: Any, source: Any, run_id: str) -> Any:
    config: Any = {"configurable": {"thread_id": THREAD}, "metadata": {"run_id": run_id}}
    await graph.ainvoke(source, config, durability="exit")
    return await graph.aget_state(config)


async def stored(saver: Saver) -> list[Any]:
    """Return all that is stored of the thread: checkpoints, and the writes after them."""
    found = [one async for one in saver.alist({"configurable": {"thread_id": THREAD}})]
    return [
        (one.config, one.checkpoint, one.metadata, sorted(map(str, one.pending_writes or ())))
        for one in found
    ]


@pytest.mark.parametrize("make", [asks_once, asks_within])
async def test_nothing_is_stored_until_it_is_kept(saver: Saver, make: Any) -> None:
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
    """`asks_twice` stores only writes after a checkpoint of the earlier run.

    These writes are removed, too.
    """
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
        await take_back(saver, THREAD, Author("two", 2))
        assert await stored(saver) == before
        # The attempt that follows a dead attempt does this.
        await take_back(saver, THREAD, Author("two", 2))
        assert await stored(saver) == before


async def attempts(saver: Saver) -> tuple[Draft, Draft]:
    """Make two attempts at one answer, with nothing stored yet. The first attempt was only paused."""
    graph, draft = with_draft(asks_twice(), saver, "one", is_new=True)
    [question] = (await run(graph, {"text": "q"}, "one")).interrupts
    await draft.keep()
    made = []
    for number in (1, 2):
        graph, draft = with_draft(asks_twice(), saver, "two", number)
        await run(graph, Command(resume={question.id: f"answer {number}"}), "two")
        made.append(draft)
    return made[0], made[1]


async def answered(saver: Saver) -> str:
    """Return the number of the attempt whose answer is stored in the thread."""
    [found] = {
        number for number in "12" for *_, writes in await stored(saver) if f"answer {number}" in str(writes)
    }
    return found


async def test_a_paused_attempt_changes_nothing_after_a_newer_one(saver: Saver) -> None:
    paused, newer = await attempts(saver)
    await newer.keep()
    stands = await stored(saver)
    for late in (paused.keep(), take_back(saver, THREAD, Author("two", 1))):
        with pytest.raises(TurnOver):
            await late
        assert await stored(saver) == stands
    assert await answered(saver) == "2"
    await take_back(saver, THREAD, Author("two", 3))  # Writes that were set aside are not changed either.
    assert await stored(saver) != stands
    assert await saver.store.all_ids(THREAD)


async def test_what_a_paused_attempt_has_stored_in_between_goes_with_the_newer_ones(saver: Saver) -> None:
    paused, newer = await attempts(saver)
    await paused.keep()
    assert await answered(saver) == "1"
    await newer.keep()
    assert await answered(saver) == "2"


@pytest.mark.parametrize("dies_at", range(1, 9))
async def test_an_attempt_that_dies_as_it_stores_loses_no_answer_that_stood(
    saver: Saver, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    before, (paused, newer) = [], await attempts(saver)
    await paused.keep()
    await take_back(saver, THREAD, Author("two", 1))
    before, calls, run_script = await stored(saver), 0, Store._run

    async def dies(self: Store, *given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == dies_at:
            raise asyncio.CancelledError
        return await run_script(self, *given)

    change = Store._change

    async def dies_too(self: Store, *given: Any, **more: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == dies_at:
            raise asyncio.CancelledError
        await change(self, *given, **more)

    monkeypatch.setattr(Store, "_run", dies)
    monkeypatch.setattr(Store, "_change", dies_too)
    with suppress(asyncio.CancelledError):
        await newer.keep()
        await take_back(saver, THREAD, Author("two", 2))
    monkeypatch.undo()
    assert calls >= dies_at
    await take_back(saver, THREAD, Author("two", 3))
    assert await stored(saver) == before


async def test_graphs_that_share_a_thread_do_not_see_one_another(saver: Saver) -> None:
    questions = {}
    for space in ("first 1", "first 10", "last 1"):
        graph, draft = with_draft(asks_within(), saver, space, is_new=True, space=space)
        [question] = (await run(graph, {"text": space}, space)).interrupts
        questions[space] = question.id
        await draft.keep()
    for space, question_id in questions.items():
        graph, draft = with_draft(asks_within(), saver, f"{space} on", space=space)
        config: Any = {"configurable": {"thread_id": THREAD}}
        assert {one.metadata["run_id"] async for one in draft.alist(config)} == {space}
        assert len([one async for one in draft.alist(None, limit=1)]) == 1
        state = await run(graph, Command(resume={question_id: space}), f"{space} on")
        assert (state.values["text"], state.values["said"]) == (f"ask={space}", {"ask": space})
        await draft.keep()
    await saver.adelete_thread(THREAD)
    assert await stored(saver) == []


async def test_what_was_set_aside_goes_with_the_thread_and_is_no_thread(saver: Saver) -> None:
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
