"""Answers: the run goes on in a new stream, once, and each who answers is told what has become of it."""

from __future__ import annotations

import asyncio
from typing import Any, TypedDict

import httpx
import pytest
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from gateway.formats.langgraph.threads import Thread
from gateway.hosts.asgi import app
from gateway.ops.listing import listing
from gateway.protocol.errors import (
    AlreadyAnswered,
    HoldfastError,
    Invalid,
    NotWaiting,
    OverQuota,
    StreamNotFound,
    UnansweredInterrupts,
    UnknownInterrupt,
)
from gateway.store.quota import Quota
from gateway.store.record import Record
from gateway.store.threads import keys_of, own_thread_of
from gateway.streams.resume import Resume, parse_resume
from gateway.streams.start import Start
from tests.support import asking
from tests.support.described import Described
from tests.support.jobs import Jobs, body
from workers.chains.registry import chain
from workers.checkpoints.saver import Saver
from workers.delivery.runner import DONE

asking.register()
OWNER = "anonymous"
JSON = {"accept": "application/json"}
ASKED = [{"role": "user", "content": "q"}]
GIVEN: dict[str, Any] = {"asks_in_a_tool": ASKED, "approves": ASKED}


async def asked(jobs: Jobs, name: str) -> tuple[str, dict[str, Any]]:
    """A stream that waits, and the ids of its questions by what they ask."""
    stream_id = await jobs.stream(GIVEN.get(name, {"text": "q"}), chain=name)
    return stream_id, await runs(jobs, stream_id)


async def runs(jobs: Jobs, stream_id: str) -> dict[str, Any]:
    """Run a stream to its end; what it asks."""
    assert await jobs.runner.run(body(stream_id)) == DONE
    return {str(one["value"]): one["id"] for one in (await jobs.record(stream_id)).questions or ()}


def answers(given: dict[str, Any], **more: Any) -> Resume:
    told = [{"interrupt_id": name, "response": value} for name, value in given.items()]
    return parse_resume({"responses": told, **more})


async def resume(jobs: Jobs, stream_id: str, given: Resume, owner: str = OWNER) -> Record:
    return await jobs.gateway.resume(stream_id, given, owner=owner)


async def document(jobs: Jobs, stream_id: str) -> Any:
    return await jobs.gateway.status(stream_id, OWNER)


EACH: dict[str, tuple[Any, str]] = {
    "asks_once": ("yes", "ask=yes"),
    "asks_thrice": ("yes", "a=yes b=yes c=yes"),
    "asks_within": ("yes", "ask=yes"),
    "asks_in_a_tool": ("a book", "it is there"),
    "approves": ({"decisions": [{"type": "approve"}]}, "it is sent"),
}


@pytest.mark.parametrize("name", EACH)
async def test_the_run_goes_on_with_the_answer_and_says_nothing_old(redis_url: str, name: str) -> None:
    answer, said = EACH[name]
    async with Jobs(redis_url) as jobs:
        stream_id, questions = await asked(jobs, name)
        before = await document(jobs, stream_id)
        assert before["status"] == "waiting"
        assert {one["id"] for one in before["interrupts"]} == set(questions.values())
        record = await resume(jobs, stream_id, answers(dict.fromkeys(questions.values(), answer)))
        assert await runs(jobs, record.id) == {}
        events = [message.event() for message in await jobs.messages(record.id)]
        assert events[0].data["resumes"] == stream_id
        assert events[-1].data["finish_reason"] == "stop"
        texts = "".join(event.data["delta_content"] for event in events if event.type == "")
        assert said in texts
        if name != "asks_within":
            assert "well then" not in texts
        after, new = await document(jobs, stream_id), await document(jobs, record.id)
        assert (after["status"], after["resumed_by"], after["interrupts"]) == ("done", record.id, [])
        assert (new["status"], new["resumes"], new["resumed_by"]) == ("done", stream_id, None)
        kept = await jobs.record(stream_id)
        assert (kept.input, kept.checkpoints) == (None, {})


async def test_a_tool_that_was_approved_is_called_once_and_a_rejected_one_never(redis_url: str) -> None:
    async with Jobs(redis_url) as jobs:
        for decision, outputs in (({"type": "approve"}, ["sent to Ann"]), ({"type": "reject"}, [])):
            stream_id, questions = await asked(jobs, "approves")
            [name] = questions.values()
            record = await resume(jobs, stream_id, answers({name: {"decisions": [decision]}}))
            await runs(jobs, record.id)
            events = [message.event() for message in await jobs.messages(record.id)]
            tools = [event.data for event in events if event.type == "tool"]
            assert [tool["output"] for tool in tools if tool["state"] == "finished"] == outputs


async def test_each_question_gets_its_own_answer_and_a_cancelled_one_none(redis_url: str) -> None:
    async with Jobs(redis_url) as jobs:
        stream_id, questions = await asked(jobs, "asks_thrice")
        given = parse_resume(
            {
                "responses": [
                    {"interrupt_id": questions["b?"], "status": "resolved", "response": 2},
                    {"interrupt_id": questions["c?"], "status": "cancelled"},
                    {"interrupt_id": questions["a?"], "response": [1]},
                ]
            }
        )
        record = await resume(jobs, stream_id, given)
        await runs(jobs, record.id)
        assert (await jobs.fold(record.id)).text == "a=[1] b=2 c=None"


async def test_questions_stand_in_the_graphs_order_whichever_was_asked_first(redis_url: str) -> None:
    has_asked = {name: asyncio.Event() for name in "abc"}

    class Asks(TypedDict):
        text: str

    def node(name: str, after: str | None) -> Any:
        async def asks(state: Asks) -> None:
            if after:
                await has_asked[after].wait()
            has_asked[name].set()
            interrupt(f"{name}?")

        return asks

    graph = StateGraph(Asks)
    for name, after in {"a": "b", "b": "c", "c": None}.items():
        graph.add_node(name, node(name, after)).add_edge(START, name)
    chain("asks-backwards", input=Asks)(lambda settings: graph.compile())
    async with Jobs(redis_url) as jobs:
        for _ in range(3):
            _, questions = await asked(jobs, "asks-backwards")
            assert list(questions) == ["a?", "b?", "c?"]


async def test_a_second_question_of_the_same_node_is_another_one(redis_url: str) -> None:
    async with Jobs(redis_url) as jobs:
        first, questions = await asked(jobs, "asks_twice")
        second = await resume(jobs, first, answers({questions["first?"]: 1}))
        more = await runs(jobs, second.id)
        assert list(more) == ["second?"]
        assert set(more.values()).isdisjoint(questions.values())
        third = await resume(jobs, second.id, answers({more["second?"]: 2}))
        await runs(jobs, third.id)
        assert (await jobs.fold(third.id)).text == "first=1 second=2"
        record = await jobs.record(third.id)
        assert (record.resumes, record.first) == (second.id, first)


async def test_the_state_is_updated_and_a_node_is_gone_to(redis_url: str) -> None:
    async with Jobs(redis_url) as jobs:
        stream_id, questions = await asked(jobs, "jumps")
        given = answers({questions["ask?"]: 1}, update={"said": {"more": 2}}, goto="last")
        record = await resume(jobs, stream_id, given)
        await runs(jobs, record.id)
        assert "more=2" in (await jobs.fold(record.id)).text


@pytest.mark.parametrize("found", ["the same", "another"])
async def test_the_same_answer_is_the_same_stream_and_another_is_told_who_won(
    redis_url: str, found: str
) -> None:
    async with Jobs(redis_url) as jobs:
        stream_id, questions = await asked(jobs, "asks_thrice")
        a, b, c = questions.values()
        first = await resume(jobs, stream_id, answers({a: {"x": 1, "y": 2.0}, b: 1, c: 1}))
        if found == "the same":
            again = await resume(jobs, stream_id, answers({c: 1, b: 1, a: {"y": 2, "x": 1}}))
            assert again.id == first.id
            return
        for other in (answers({a: 0, b: 1, c: 1}), answers({a: {"x": 1, "y": 2}, b: 1, c: 1}, goto="last")):
            with pytest.raises(AlreadyAnswered) as refused:
                await resume(jobs, stream_id, other)
            assert refused.value.problem()["resumed_by"] == first.id


async def test_of_forty_answers_at_once_one_wins_and_the_others_are_told_so(redis_url: str) -> None:
    async with Jobs(redis_url) as jobs:
        stream_id, questions = await asked(jobs, "asks_once")
        [name] = questions.values()
        told = [resume(jobs, stream_id, answers({name: number})) for number in range(40)]
        found = await asyncio.gather(*told, return_exceptions=True)
        [won] = [one for one in found if isinstance(one, Record)]
        lost = [one for one in found if isinstance(one, AlreadyAnswered)]
        assert len(lost) == 39
        assert {one.extensions["resumed_by"] for one in lost} == {won.id}
        assert len(await streams(jobs)) == 2
        await runs(jobs, won.id)
        assert (await jobs.fold(won.id)).text == f"ask={found.index(won)}"


async def streams(jobs: Jobs) -> list[bytes]:
    return list(await jobs.connection.call("KEYS", "*:job:*"))


def _refused(questions: dict[str, str]) -> dict[str, tuple[Any, type[HoldfastError]]]:
    a, b, c = questions.values()
    return {
        "unknown": (answers({a: 1, b: 1, c: 1, "0" * 32: 1}), UnknownInterrupt),
        "unanswered": (answers({a: 1, c: 1}), UnansweredInterrupts),
        "none": (answers({}), UnansweredInterrupts),
    }


@pytest.mark.parametrize("why", ["unknown", "unanswered", "none"])
async def test_all_questions_and_no_others_are_answered(redis_url: str, why: str) -> None:
    async with Jobs(redis_url) as jobs:
        stream_id, questions = await asked(jobs, "asks_thrice")
        given, error = _refused(questions)[why]
        with pytest.raises(error):
            await resume(jobs, stream_id, given)
        assert (await document(jobs, stream_id))["status"] == "waiting"
        assert len(await streams(jobs)) == 1


async def test_an_answer_keeps_to_its_questions_schema(redis_url: str) -> None:
    async with Jobs(redis_url) as jobs:
        stream_id, questions = await asked(jobs, "asks_by_schema")
        [name] = questions.values()
        with pytest.raises(Invalid) as refused:
            await resume(jobs, stream_id, answers({name: {"ok": "perhaps"}}))
        assert refused.value.extensions["field"] == "responses.0.response.ok"
        cancelled = parse_resume({"responses": [{"interrupt_id": name, "status": "cancelled"}]})
        assert (await resume(jobs, stream_id, cancelled)).resumes == stream_id


async def test_only_a_stream_that_waits_is_answered_and_only_by_its_owner(redis_url: str) -> None:
    async with Jobs(redis_url) as jobs:
        stream_id, questions = await asked(jobs, "asks_once")
        given = answers(dict.fromkeys(questions.values(), 1))
        with pytest.raises(StreamNotFound):
            await resume(jobs, stream_id, given, owner="eve")
        running = await jobs.stream({"text": "q"}, chain="asks_once")
        with pytest.raises(NotWaiting):
            await resume(jobs, running, given)


async def test_stages_that_are_finished_are_not_run_again_and_later_ones_get_their_results(
    redis_url: str,
) -> None:
    ran: list[str] = []

    def first(given: Any) -> str:
        ran.append("first")
        return "one"

    def last(given: Any) -> str:
        ran.append("last")
        return f"{given['first']} {given['asks']['said']} {given['input']}"

    chain("three-stages", stages=("first", "asks", "last"))(
        lambda _: {"first": RunnableLambda(first), "asks": asking.asks_once(), "last": RunnableLambda(last)}
    )
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream("q", chain="three-stages")
        questions = await runs(jobs, stream_id)
        record = await resume(jobs, stream_id, answers(dict.fromkeys(questions.values(), "yes")))
        assert await runs(jobs, record.id) == {}
        assert ran == ["first", "last"]
        fold = await jobs.fold(record.id)
        assert fold.text == "one {'ask': 'yes'} q"
        assert [stage.name for stage in fold.stages if not stage.parent] == ["asks", "last"]


async def test_a_checkpoint_that_is_gone_ends_the_stream_that_was_to_go_on(redis_url: str) -> None:
    async with Jobs(redis_url) as jobs:
        stream_id, questions = await asked(jobs, "asks_once")
        saver = Saver(jobs.connection, owner=OWNER)
        await saver.adelete_thread(f"stream:{stream_id}")
        record = await resume(jobs, stream_id, answers(dict.fromkeys(questions.values(), 1)))
        await runs(jobs, record.id)
        failed = (await jobs.messages(record.id))[-1].event()
        assert (failed.type, failed.data["code"]) == ("failed", "checkpoint_lost")


async def test_a_graph_with_a_checkpointer_of_its_own_goes_on_from_that(redis_url: str) -> None:
    saver = InMemorySaver()
    graph = asking.asks_twice()
    graph.checkpointer = saver
    chain("asks-by-itself")(lambda _: graph)
    async with Jobs(redis_url) as jobs:
        stream_id, questions = await asked(jobs, "asks-by-itself")
        second = await resume(jobs, stream_id, answers({questions["first?"]: 1}))
        more = await runs(jobs, second.id)
        third = await resume(jobs, second.id, answers({more["second?"]: 2}))
        await runs(jobs, third.id)
        assert (await jobs.fold(third.id)).text == "first=1 second=2"
        assert list(saver.storage) == [f"stream:{stream_id}"]


async def test_what_an_in_memory_saver_was_asked_in_another_process_is_told_so(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    graph = asking.asks_once()
    graph.checkpointer = InMemorySaver()
    chain("asks-in-memory")(lambda _: graph)
    async with Jobs(redis_url) as jobs:
        stream_id, questions = await asked(jobs, "asks-in-memory")
        assert (
            f"stream {stream_id}: the question of stage asks-in-memory can be answered in this process alone"
            in caplog.text
        )
        graph.checkpointer = InMemorySaver()  # as another process has it
        record = await resume(jobs, stream_id, answers(dict.fromkeys(questions.values(), 1)))
        await runs(jobs, record.id)
        failed = (await jobs.messages(record.id))[-1].event()
        assert failed.data["code"] == "checkpoint_lost"
        assert "InMemorySaver" in failed.data["message"]


@pytest.mark.parametrize("ends", ["done", "failed", "cancelled"])
async def test_what_a_stream_has_kept_for_itself_goes_when_nothing_goes_on_from_it(
    redis_url: str, ends: str
) -> None:
    async def last(state: Any) -> Any:
        if ends == "failed":
            raise ValueError
        return {}

    chain("asks-and-ends")(lambda _: asking._graph(("ask", asking._asks("ask")), last=last))
    async with Jobs(redis_url) as jobs:
        stream_id, questions = await asked(jobs, "asks-and-ends")
        saver = Saver(jobs.connection, owner=OWNER)

        async def kept() -> int:
            config: Any = {"configurable": {"thread_id": f"stream:{stream_id}"}}
            return len([one async for one in saver.alist(config)])

        assert await kept()
        record = await resume(jobs, stream_id, answers(dict.fromkeys(questions.values(), 1)))
        if ends == "cancelled":
            await jobs.gateway.cancel(record.id, OWNER)
        await jobs.runner.run(body(record.id))
        assert (await document(jobs, record.id))["status"] == ends
        assert bool(await kept()) == (ends == "failed")  # it may be tried again


async def test_a_breakpoint_is_passed_by_an_answer_to_nothing(redis_url: str) -> None:
    graph = asking.asks_once()
    graph.interrupt_before_nodes = ["ask"]
    chain("stops-before")(lambda _: graph)
    async with Jobs(redis_url) as jobs:
        stream_id, questions = await asked(jobs, "stops-before")
        assert (questions, (await document(jobs, stream_id))["status"]) == ({}, "waiting")
        record = await resume(jobs, stream_id, answers({}))
        assert list(await runs(jobs, record.id)) == ["{'question': 'Send it?'}"]


async def test_what_is_answered_over_http_is_as_described(redis_url: str) -> None:
    async with Jobs(redis_url) as jobs:
        transport = httpx.ASGITransport(app(jobs.gateway))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            described = await Described.of(http)
            stream_id, questions = await asked(jobs, "asks_by_schema")
            status = await described.ask("GET", "/stream/{id}", stream_id, headers=JSON)
            assert status.json()["status"] == "waiting"
            [name] = questions.values()

            async def answered(*responses: Any) -> tuple[int, Any]:
                given = {"responses": list(responses)}
                told = await described.ask("POST", "/stream/{id}/resume", stream_id, json=given)
                return told.status_code, told.json()

            yes = {"interrupt_id": name, "response": {"ok": True}}
            refused = [
                await answered(),
                await answered({**yes, "interrupt_id": "other"}),
                await answered(yes, yes),
                await answered({**yes, "response": 1}),
                await answered({**yes, "more": 1}),
            ]
            codes = ["unanswered_interrupts", "unknown_interrupt", "invalid", "invalid", "invalid"]
            assert [(code, told["code"]) for code, told in refused] == [(422, code) for code in codes]
            code, told = await answered(yes)
            assert (code, told["resumes"], told["stream"]) == (202, stream_id, f"/stream/{told['id']}")
            assert (await answered(yes))[1]["id"] == told["id"]
            code, lost = await answered({**yes, "response": {"ok": False}})
            assert (code, lost["code"], lost["resumed_by"]) == (409, "already_answered", told["id"])
            assert await runs(jobs, told["id"]) == {}
            accept = {"accept": "text/event-stream"}
            path = f"/stream/{stream_id}/resume"
            followed = await http.post(path, json={"responses": [yes]}, headers=accept)
            assert (followed.status_code, followed.headers["x-stream-id"]) == (200, told["id"])
            assert b"event: done" in followed.content


async def test_an_operator_finds_the_streams_that_wait(redis_url: str) -> None:
    async with Jobs(redis_url) as jobs:
        stream_id, questions = await asked(jobs, "asks_once")

        async def found(status: str) -> list[str]:
            told = await listing(jobs.connection, jobs.log, owner="", status=status, limit=10)
            return [row.record.id for row in told.rows]

        assert (await found("waiting"), await found("done")) == ([stream_id], [])
        await resume(jobs, stream_id, answers(dict.fromkeys(questions.values(), 1)))
        assert (await found("waiting"), await found("done")) == ([], [stream_id])


async def test_a_question_can_be_taken_back(redis_url: str) -> None:
    async with Jobs(redis_url) as jobs:
        stream_id, questions = await asked(jobs, "asks_once")
        log = await jobs.messages(stream_id)
        told = await jobs.gateway.cancel(stream_id, OWNER)
        assert (told["status"], told["interrupts"]) == ("cancelled", [])
        assert await jobs.messages(stream_id) == log
        with pytest.raises(NotWaiting):
            await resume(jobs, stream_id, answers(dict.fromkeys(questions.values(), 1)))
        record = await jobs.record(stream_id)
        assert (record.input, record.questions) == (None, None)


async def test_what_waits_is_kept_as_long_as_its_thread_and_then_as_any_other(redis_url: str) -> None:
    async with Jobs(redis_url, thread_seconds=5000, retention=100, tombstone=10) as jobs:
        stream_id, questions = await asked(jobs, "asks_once")
        job, log, _ = jobs.log.keys(stream_id)
        assert 4_900_000 < await jobs.connection.call("PTTL", log) <= 5_000_000
        assert 4_900_000 < await jobs.connection.call("PTTL", job) <= 5_010_000
        await resume(jobs, stream_id, answers(dict.fromkeys(questions.values(), 1)))
        assert await jobs.connection.call("PTTL", log) <= 100_000


async def test_what_waits_counts_in_its_owners_bytes_with_its_checkpoints_until_it_is_answered(
    redis_url: str,
) -> None:
    async with Jobs(redis_url, thread_seconds=100_000, retention=1000, tombstone=10) as jobs:
        keys = Quota.keys("ann")

        async def starts(chain: str = "asks_once") -> str:
            start = Start(chain, {"input": {"text": "q"}}, {})
            return (await jobs.gateway.create(start, owner="ann")).id

        async def counted(stream_id: str) -> dict[str, float]:
            """The sizes that are counted, by how many thousand seconds they will be."""
            now = await jobs.log.now_ms()
            found = await jobs.connection.call("ZRANGE", keys[2], 0, -1, "WITHSCORES")
            pairs = zip(found[::2], found[1::2], strict=True)
            own = {
                one.decode(): float(ends) - now for one, ends in pairs if one.startswith(stream_id.encode())
            }
            assert int(await jobs.connection.call("GET", keys[3]) or 0) >= sum(
                int(one.split()[1]) for one in own
            )
            return own

        stream_id = await starts()
        questions = await runs(jobs, stream_id)
        await starts()  # it looks at the others
        before = await counted(stream_id)
        assert all(left > 90_000_000 for left in before.values())
        sizes = {name.split()[0]: int(name.split()[1]) for name in before}
        assert sizes[stream_id] > 4000  # the checkpoints among them
        given = answers(dict.fromkeys(questions.values(), 1))
        await resume(jobs, stream_id, given, owner="ann")
        assert await counted(stream_id) == {}
        await starts()
        assert all(0 < left < 1_100_000 for left in (await counted(stream_id)).values())


async def test_of_a_deleted_thread_no_stream_is_counted_any_more(redis_url: str) -> None:
    async with Jobs(redis_url, thread_seconds=100_000, retention=1000, tombstone=10) as jobs:
        live, _, kept, size, _ = Quota.keys("ann")

        async def begins(thread: str = "") -> str:
            start = Start("asks_once", {"input": {"text": "q"}}, {}, thread=thread)
            return (await jobs.gateway.create(start, owner="ann")).id

        async def counted() -> dict[str, int]:
            found = [one.decode().split() for one in await jobs.connection.call("ZRANGE", kept, 0, -1)]
            return {name: int(one) for name, one in found}

        answered = await begins("trip")
        questions = await runs(jobs, answered)
        given = answers(dict.fromkeys(questions.values(), 1))
        done = (await resume(jobs, answered, given, owner="ann")).id
        await runs(jobs, done)
        waiting, other = await begins("trip"), await begins("other")
        for stream_id in (waiting, other):
            assert await runs(jobs, stream_id)
        begun = await begins()  # it looks at the others
        ended = (answered, done, waiting, other)
        assert set(await counted()) == {f"{one}{end}" for one in ended for end in ("", ".")}
        await Thread(jobs.gateway, "ann", "trip").end()
        assert set(await counted()) == {other, f"{other}."}
        assert int(await jobs.connection.call("GET", size)) == sum((await counted()).values())
        assert await jobs.connection.call("ZRANGE", live, 0, -1) == [begun.encode()]


@pytest.mark.parametrize(
    ("ends", "thread"),
    [("done", ""), ("done", "trip"), ("taken back", ""), ("taken back", "trip"), ("deleted", "trip")],
)
async def test_what_a_graph_among_stages_keeps_is_counted_and_goes_with_its_streams(
    redis_url: str, ends: str, thread: str
) -> None:
    both = {"first": asking.asks_once(), "last": asking.asks_within()}
    chain("asks-among-stages", stages=tuple(both))(lambda _: both)
    async with Jobs(redis_url) as jobs:
        start = Start("asks-among-stages", {"input": {"text": "q"}}, {}, thread=thread)
        first = (await jobs.gateway.create(start, owner="ann")).id
        questions = await runs(jobs, first)
        own = keys_of("ann", own_thread_of(first))

        async def kept() -> int:
            return int(await jobs.connection.call("HGET", own[0], "#bytes") or 0)

        one = await kept()
        [(_, word, size, *_)] = await Quota(jobs.connection, jobs.settings)._look("ann", [first])
        assert word == "ended"
        assert size > one > 1000
        given = answers(dict.fromkeys(questions.values(), 1))
        second = (await resume(jobs, first, given, owner="ann")).id
        questions = await runs(jobs, second)
        assert len(questions) == 1
        assert await kept() > one
        if ends == "taken back":
            await jobs.gateway.cancel(second, "ann")
        elif ends == "deleted":
            await Thread(jobs.gateway, "ann", thread).end()
        else:
            last = await resume(jobs, second, answers(dict.fromkeys(questions.values(), 1)), owner="ann")
            assert await runs(jobs, last.id) == {}
            assert (await jobs.record(last.id)).status == "done"
        assert await jobs.connection.call("EXISTS", *own) == 0


async def test_a_stream_that_waits_takes_no_place_and_an_answer_counts_as_a_start(redis_url: str) -> None:
    async with Jobs(redis_url, max_owner_streams=1, max_owner_starts=2) as jobs:

        async def starts() -> str:
            start = Start("asks_once", {"input": {"text": "q"}}, {})
            return (await jobs.gateway.create(start, owner="ann")).id

        stream_id = await starts()
        questions = await runs(jobs, stream_id)
        other = await starts()
        given = answers(dict.fromkeys(questions.values(), 1))
        with pytest.raises(OverQuota):
            await resume(jobs, stream_id, given, owner="ann")
        await runs(jobs, other)
        with pytest.raises(OverQuota):  # two have begun in this minute
            await resume(jobs, stream_id, given, owner="ann")
