"""What a thread remembers: a graph by its checkpoints, any other chain by what was said."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, TypedDict

import pytest
import pytest_asyncio
from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import RunnableLambda
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command
from redis.asyncio import Redis

from gateway.formats.langgraph.threads import Thread
from gateway.protocol.errors import OverQuota, StoreUnavailable, ThreadWaiting, TooManyReaders
from gateway.queue.turns import Turns
from gateway.store.threads import keys_of, named_keys, threads_of
from gateway.streams.resume import parse_resume
from gateway.streams.start import Start
from tests.support.asking import register
from tests.support.jobs import Jobs, body, eventually
from workers.chains.registry import chain
from workers.checkpoints.draft import Draft
from workers.checkpoints.errors import TurnOver
from workers.checkpoints.saver import Saver
from workers.delivery.runner import DONE
from workers.delivery.sweeper import Sweeper
from workers.threads.states import state_of, states_of

OWNER = "alice"


class Team(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    active_agent: str
    visits: int


def team(_: Any) -> Any:
    """A swarm: whoever was handed the conversation keeps it, also in the next turn."""

    def route(state: Team) -> str:
        return state.get("active_agent", "sales")

    def sales(state: Team) -> Command[Literal["support", "__end__"]]:
        visits = state.get("visits", 0) + 1
        if "broken" in str(state["messages"][-1].content):
            return Command(goto="support", update={"active_agent": "support", "visits": visits})
        return Command(goto="__end__", update={"messages": [AIMessage("sales")], "visits": visits})

    def support(state: Team) -> dict[str, Any]:
        visits = state.get("visits", 0) + 1
        return {"messages": [AIMessage(f"support {len(state['messages'])}")], "visits": visits}

    graph = StateGraph(Team).add_node("sales", sales).add_node("support", support)
    return graph.add_conditional_edges(START, route, ["sales", "support"]).compile()


def echo(given: Any) -> str:
    return " | ".join(one["content"] if isinstance(one, dict) else one.content for one in given)


register()
chain("team")(team)
chain("echo")(lambda _: RunnableLambda(echo))


@pytest_asyncio.fixture
async def jobs(redis_url: str) -> AsyncIterator[Jobs]:
    async with Jobs(redis_url, lease=0.5) as made:
        made.gateway.state_of = state_of
        made.gateway.states_of = states_of
        yield made


async def begin(jobs: Jobs, said: str, name: str = "team", *, owner: str = OWNER, **more: Any) -> str:
    conversation = {"messages": [{"role": "user", "content": said}]}
    given = {"input": {"text": said}} if name == "asks_once" else conversation
    asked = Start(name, given, {}, thread="trip", **more)
    return (await jobs.gateway.create(asked, owner=owner)).id


async def turn(jobs: Jobs, said: str, name: str = "team", **more: Any) -> str:
    """One whole turn; the text of its answer."""
    stream_id = await begin(jobs, said, name, **more)
    assert await jobs.runner.run(body(stream_id)) == DONE
    return (await jobs.fold(stream_id)).text


async def values(jobs: Jobs, owner: str = OWNER) -> Any:
    told = await state_of(jobs.connection, owner, "trip", jobs.gateway.room)
    assert told is not None
    return told.values


async def test_a_swarm_keeps_its_active_agent_over_turns(jobs: Jobs) -> None:
    assert await turn(jobs, "hello") == "sales"
    assert await turn(jobs, "it is broken") == "support 3"
    assert await turn(jobs, "and now?") == "support 5"
    assert (await values(jobs))["active_agent"] == "support"
    assert (await values(jobs))["visits"] == 4
    assert [one["content"] for one in (await values(jobs))["messages"]][-2:] == ["and now?", "support 5"]


@pytest.mark.parametrize("ends", ["cancelled", "failed"])
async def test_what_a_run_has_stored_that_did_not_end_well_is_not_gone_on_from(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """It is cancelled, or fails, between its stored checkpoints and the end of its log."""
    await turn(jobs, "it is broken")
    keep = Draft.keep

    async def keep_and_end(draft: Draft) -> None:
        await keep(draft)
        if ends == "failed":
            raise ValueError
        await jobs.gateway.cancel(lost, OWNER)

    lost = await begin(jobs, "lost")
    monkeypatch.setattr(Draft, "keep", keep_and_end)
    await jobs.runner.run(body(lost))
    monkeypatch.undo()
    assert (await jobs.record(lost)).status == ends
    assert (await values(jobs))["visits"] == 3  # as it stands until the next run
    assert await turn(jobs, "and now?") == "support 3"
    assert (await values(jobs))["visits"] == 3
    assert "lost" not in str(await values(jobs))


async def test_a_state_is_read_within_the_memory_for_documents(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As large as the newest checkpoint, whatever the thread has before it."""
    monkeypatch.setattr("gateway.streams.room.PATIENCE_SECONDS", 0.1)
    async with Jobs(redis_url, max_documents=1_000_000) as jobs:
        jobs.gateway.state_of = state_of
        jobs.gateway.states_of = states_of
        for _ in range(20):
            await turn(jobs, "hello")
        room = jobs.gateway._room
        size = await Saver(jobs.connection, owner=OWNER).store.size("trip", "")
        assert 1000 < size < 40_000
        thread = Thread(jobs.gateway, OWNER, "trip")
        graph = await thread.graph()
        assert graph is not None
        assert 0 < room.held == graph.size < 8 * size
        messages = await thread.messages("")
        del graph
        assert room.held > 0
        assert len(messages) == 40
        del messages
        assert room.held == 0
        taken = await room.take(1_000_000 - 8 * size + 1)
        with pytest.raises(TooManyReaders):
            await thread.graph()
        del taken
        assert await thread.graph() is not None
        assert room.held == 0


async def test_a_caller_may_have_so_many_bytes_in_threads(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Jobs(redis_url, max_owner_bytes=20_000) as jobs:
        monkeypatch.setattr("gateway.streams.placing._MEASURED_SECONDS", 0.0)
        monkeypatch.setattr("gateway.streams.placing._MEASURED_SECONDS_EACH", 0.0)

        async def talks() -> None:
            for _ in range(30):
                await turn(jobs, "hello")

        with pytest.raises(OverQuota, match="20000 bytes in threads"):
            await talks()
        assert int(await jobs.connection.call("HGET", keys_of(OWNER, "trip")[0], "#bytes")) > 20_000
        assert await turn(jobs, "hello", owner="bob") == "sales"
        await Thread(jobs.gateway, OWNER, "trip").end()
        assert await turn(jobs, "hello") == "sales"


async def test_a_swarm_keeps_its_active_agent_over_a_workers_death(jobs: Jobs) -> None:
    await turn(jobs, "it is broken")
    stream_id = await begin(jobs, "and now?")
    await jobs.claim(stream_id)  # by a worker that dies

    async def goes_on() -> bool:
        return await jobs.runner.run(body(stream_id)) == DONE

    await eventually(goes_on)
    assert (await jobs.record(stream_id)).attempt == 2
    assert (await jobs.fold(stream_id)).text == "support 3"
    assert (await values(jobs))["visits"] == 3


async def test_another_owners_thread_of_the_same_name_knows_nothing(jobs: Jobs) -> None:
    await turn(jobs, "it is broken")
    assert await turn(jobs, "hello", owner="bob") == "sales"
    assert (await values(jobs))["active_agent"] == "support"
    assert "active_agent" not in await values(jobs, "bob")


async def test_a_run_that_is_rolled_back_leaves_nothing(jobs: Jobs) -> None:
    await turn(jobs, "hello")
    before = await values(jobs)
    stream_id = await begin(jobs, "it is broken")
    assert await jobs.runner.run(body(stream_id)) == DONE
    await jobs.gateway.parts.threads.drop_run(OWNER, "trip", stream_id)
    assert await values(jobs) == before
    assert await turn(jobs, "hello again") == "sales"


async def test_who_has_lost_the_turn_writes_no_checkpoint(jobs: Jobs) -> None:
    first = await begin(jobs, "hello")
    second = await begin(jobs, "hello", strategy="interrupt")
    saver = Saver(jobs.connection, owner=OWNER, in_turn=True)

    async def write(run: str) -> None:
        config: Any = {
            "configurable": {"thread_id": "trip", "checkpoint_ns": ""},
            "metadata": {"run_id": run},
        }
        checkpoint: Any = {
            "v": 1,
            "id": "1",
            "ts": "",
            "channel_values": {},
            "channel_versions": {},
            "versions_seen": {},
        }
        written: Any = await saver.aput(config, checkpoint, {"run_id": run}, {})
        written |= {"metadata": {"run_id": run}}
        await saver.aput_writes(written, [("a", 1)], "task")

    with pytest.raises(TurnOver):
        await write(first)
    await write(second)
    await jobs.gateway.parts.turns.end(OWNER, "trip")
    with pytest.raises(TurnOver):
        await write(second)
    assert not await jobs.connection.call("EXISTS", *keys_of(OWNER, "trip"), *named_keys(OWNER, "trip"))


async def test_a_deletion_leaves_no_key_of_a_graphs_thread(jobs: Jobs, redis: Redis) -> None:
    await turn(jobs, "hello")
    assert await redis.exists(*keys_of(OWNER, "trip")) == 3
    await jobs.gateway.parts.turns.end(OWNER, "trip")
    assert not await redis.exists(*keys_of(OWNER, "trip"), *named_keys(OWNER, "trip"), threads_of(OWNER))
    assert await turn(jobs, "hello") == "sales"


# Questions


async def test_a_thread_with_an_open_question_takes_no_other_stream(jobs: Jobs) -> None:
    first = await begin(jobs, "q", "asks_once")
    behind = await begin(jobs, "q", "echo", strategy="enqueue")
    assert await jobs.runner.run(body(first)) == DONE
    for strategy in ("reject", "enqueue", "interrupt", "rollback"):
        with pytest.raises(ThreadWaiting) as refused:
            await begin(jobs, "q", "asks_once", strategy=strategy)
        assert refused.value.extensions == {"stream": first}
    state = await jobs.gateway.parts.threads.look(OWNER, "trip")
    assert (state.holder, state.waiting) == (first, (behind,))
    assert await jobs.gateway.parts.turns.status(OWNER, state) == "interrupted"
    told = await state_of(jobs.connection, OWNER, "trip", jobs.gateway.room)
    assert told is not None
    assert [one["value"] for one in told.interrupts] == [{"question": "Send it?"}]
    assert told.next == ["ask"]
    # Those that waited already begin after the answer's stream.
    [question] = (await jobs.record(first)).questions or []
    answered = {"interrupt_id": question["id"], "status": "resolved", "response": "yes"}
    given = parse_resume({"responses": [answered]})
    second = (await jobs.gateway.resume(first, given, owner=OWNER)).id
    state = await jobs.gateway.parts.threads.look(OWNER, "trip")
    assert (state.holder, state.waiting) == (second, (behind,))
    assert await jobs.runner.run(body(behind)) == DONE
    assert not (await jobs.record(behind)).ended
    assert await jobs.runner.run(body(second)) == DONE
    assert "ask=yes" in (await jobs.fold(second)).text
    assert await jobs.runner.run(body(behind)) == DONE
    assert (await jobs.record(behind)).ended


async def test_the_turn_goes_to_the_answer_although_nobody_has_handed_it_on(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await begin(jobs, "q", "asks_once")
    behind = await begin(jobs, "q", "echo", strategy="enqueue")
    assert await jobs.runner.run(body(first)) == DONE
    [question] = (await jobs.record(first)).questions or []
    answered = {"interrupt_id": question["id"], "status": "resolved", "response": "yes"}

    async def dies(*_: Any) -> Any:
        raise StoreUnavailable

    with monkeypatch.context() as dying:
        dying.setattr(Turns, "tend", dies)
        given = parse_resume({"responses": [answered]})
        second = (await jobs.gateway.resume(first, given, owner=OWNER)).id
    await Sweeper(jobs.log, jobs.queue, backoff=0.05).sweep(all_of_them=True)
    state = await jobs.gateway.parts.threads.look(OWNER, "trip")
    assert (state.holder, state.waiting) == (second, (behind,))
    assert await jobs.runner.run(body(second)) == DONE


async def test_a_question_that_is_taken_back_frees_the_thread(jobs: Jobs) -> None:
    first = await begin(jobs, "q", "asks_once")
    assert await jobs.runner.run(body(first)) == DONE
    assert (await jobs.record(first)).questions
    await jobs.gateway.end(first, OWNER)
    assert await turn(jobs, "hello", "echo")


async def test_a_question_lapses_where_that_is_wanted(jobs: Jobs) -> None:
    first = await begin(jobs, "q", "asks_once")
    assert await jobs.runner.run(body(first)) == DONE
    assert (await jobs.record(first)).questions
    assert await turn(jobs, "hello", "echo", lapses=True)
    assert (await jobs.record(first)).questions is None


# Chains that are no graphs


async def test_a_chain_of_text_is_given_what_was_said_before(jobs: Jobs) -> None:
    assert await turn(jobs, "one", "echo") == "one"
    assert await turn(jobs, "two", "echo") == "one | one | two"
    threads = jobs.gateway.parts.threads
    assert [one["role"] for one in await threads.memory(OWNER, "trip")] == ["user", "assistant"] * 2


async def test_those_that_wait_know_what_was_said_meanwhile(jobs: Jobs) -> None:
    ids = [await begin(jobs, said, "echo", strategy="enqueue") for said in ("one", "two")]
    for stream_id in ids:
        assert await jobs.runner.run(body(stream_id)) == DONE
    assert (await jobs.fold(ids[1])).text == "one | one | two"


async def test_an_interrupted_question_stands_and_a_rolled_back_one_does_not(jobs: Jobs) -> None:
    for strategy, known in (("interrupt", "one | two"), ("rollback", "two")):
        first = await begin(jobs, "one", "echo")
        claim = await jobs.claim(first)
        threads = jobs.gateway.parts.threads
        asked = [{"role": "user", "content": "one"}]
        assert await threads.remember(claim.record, asked, thread_ms=60_000, most_bytes=1000)
        assert await turn(jobs, "two", "echo", strategy=strategy) == known
        await jobs.gateway.parts.turns.end(OWNER, "trip")


async def test_the_next_attempt_is_given_the_same(jobs: Jobs) -> None:
    await turn(jobs, "one", "echo")
    stream_id = await begin(jobs, "two", "echo")
    claim = await jobs.claim(stream_id)
    said = [{"role": "user", "content": "two"}, {"role": "assistant", "content": "half"}]
    await jobs.gateway.parts.threads.remember(claim.record, said, thread_ms=60_000, most_bytes=1000)

    async def goes_on() -> bool:
        return await jobs.runner.run(body(stream_id)) == DONE

    await eventually(goes_on)
    assert (await jobs.fold(stream_id)).text == "one | one | two"
    memory = await jobs.gateway.parts.threads.memory(OWNER, "trip")
    assert [one["content"] for one in memory] == ["one", "one", "two", "one | one | two"]
