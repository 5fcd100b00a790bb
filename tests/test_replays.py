"""A tool call that stands finished in the log is answered from it; a side effect is made once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import BaseTool, StructuredTool, tool
from langgraph.types import Command

from gateway.protocol import Event, EventType
from tests.support.adapted import Scripted, calls
from tests.support.jobs import Jobs, body
from workers.chains.registry import chain
from workers.langchain import replays
from workers.langchain.replays import IN_LOG, NOTHING, Logged, Replays, kept, name_of


def started(name: str, call_id: str, given: Any = None, **marks: Any) -> Event:
    data = {"name": name, "call_id": call_id, "stage": "s", "state": "started", "input": given}
    return Event(EventType.TOOL, data | marks)


def ended(name: str, call_id: str, output: Any = "x", state: str = "finished", **marks: Any) -> Event:
    data = {"name": name, "call_id": call_id, "stage": "s", "state": state, "output": output}
    return Event(EventType.TOOL, data | marks)


def log(*events: Event) -> Replays:
    """What stands, each answer exactly as the log has it."""
    return Replays(events, {name_of(event): IN_LOG for event in events if "output" in event.data})


def met(found: Logged | None) -> Any:
    return None if found is None else found.answered()


def test_a_call_is_answered_in_its_place_whatever_its_id() -> None:
    stands = log(started("a", "1"), ended("a", "1", "A"), started("b", "2"), ended("b", "2", "B"))
    assert met(stands.take(started("b", "8"))) is None  # `a` was before it
    assert met(stands.take(started("a", "9"))) == "A"
    assert met(stands.take(started("a", "9"))) is None  # a second one was not made
    assert met(stands.take(started("b", "8"))) == "B"


def test_after_another_call_has_ended_nothing_is_answered() -> None:
    stands = log(started("a", "1"), ended("a", "1"), started("b", "2"), ended("b", "2"))
    assert stands.take(started("c", "3")) is None
    assert met(stands.take(started("a", "4"))) == "x"  # at the same time as `c`
    stands.end(None)
    assert stands.take(started("b", "5")) is None


def test_calls_at_the_same_time_come_in_any_order() -> None:
    both = [started("a", "1"), started("b", "2"), ended("b", "2", "B"), ended("a", "1", "A")]
    stands = log(*both)
    assert [met(stands.take(started(name, "9"))) for name in "ba"] == ["B", "A"]


def test_an_event_waits_for_what_the_log_has_before_it() -> None:
    events = [started("a", "1"), started("b", "2"), ended("b", "2"), ended("a", "1")]
    left = list(events)
    stands = Replays(events, upcoming=lambda: left[0] if left else None)
    for _ in events:
        assert [stands.has_turn(event) for event in events] == [event is left[0] for event in events]
        left.pop(0)
    assert all(map(stands.has_turn, events))  # the log has no more, or there was a difference


async def test_it_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "TURN_SECONDS", 0.02)
    events = [started("a", "1"), ended("a", "1")]
    stands = Replays(events, upcoming=lambda: events[0])
    async with asyncio.timeout(10):
        await stands.turn(events[1])
    stands.turn_now(events[1])


def test_one_that_failed_or_has_no_end_is_made_again() -> None:
    stands = log(started("a", "1"), ended("a", "1", "x", "failed"), started("b", "2"))
    first, second = stands.take(started("a", "3")), stands.take(started("b", "4"))
    assert first is not None
    assert second is not None
    assert (first.answered(), first.is_unknown) == (NOTHING, False)
    assert (second.answered(), second.is_unknown) == (NOTHING, True)


def test_what_was_below_a_call_comes_with_its_answer() -> None:
    said = Event(EventType.NESTED, {"within": "2", "stage": "s", "delta": "hm"})
    inner = [started("b", "2", within="1"), said, ended("b", "2", within="1")]
    stands = log(started("a", "1"), *inner, ended("a", "1"), started("c", "3"), ended("c", "3"))
    outer = stands.take(started("a", "9"))
    assert outer is not None
    assert outer.below == inner
    assert stands.take(started("c", "4")) is None
    stands.skip(outer)
    assert met(stands.take(started("c", "4"))) == "x"


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("text", "text"),
        ("", ""),
        ({"a": [1, 2.5, None, True]}, '{"a": ...}'),
        (["a"], "['a']"),
        (("content", {"art": "é\ud800"}), "content"),
        (7, "7"),
    ],
)
def test_what_a_function_gave_is_read_back_exactly(raw: Any, said: Any) -> None:
    answer = kept(raw, said)
    assert (answer == IN_LOG) == (raw == said)
    end = ended("a", "1", said)
    stands = Replays([started("a", "1"), end], {name_of(end): answer})
    back = met(stands.take(started("a", "1")))
    assert (back, type(back)) == (raw, type(raw))


@pytest.mark.parametrize(
    "raw",
    [
        (1, 2, 3),
        {1: 2},
        {"a": (1,)},
        float("nan"),
        b"x",
        {"s"},
        ToolMessage("x", tool_call_id="1"),
        ("a", b""),
    ],
    ids=str,
)
def test_what_json_does_not_give_back_is_not_kept(raw: Any) -> None:
    assert kept(raw, "said") == b""


class Effects:
    """Tools that write a line each time that they do something, into a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entered, self.gate = asyncio.Event(), asyncio.Event()
        self.stuck = True
        self.loop = asyncio.get_running_loop()

    def did(self, what: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{what}\n")

    @property
    def done(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []

    def tools(self) -> list[BaseTool]:
        @tool
        async def pay(to: str) -> str:
            """Pay."""
            self.did(f"pay {to}")
            return f"paid {to}"

        @tool
        def look(at: str) -> dict[str, Any]:
            """Look, in a thread."""
            self.did(f"look {at}")
            return {"seen": [at, 1]}

        @tool(response_format="content_and_artifact")
        async def find(what: str) -> tuple[str, Any]:
            """Find."""
            self.did(f"find {what}")
            return f"found {what}", {"rows": [what]}

        @tool
        async def order(what: str) -> Any:
            """Change the graph's state."""
            self.did(f"order {what}")
            return Command(update={"messages": [ToolMessage("ordered", tool_call_id="o")]})

        @tool
        async def wait() -> str:
            """Wait, the first time for ever."""
            self.did("wait")
            if self.stuck:
                self.entered.set()
                await self.gate.wait()
            return "waited"

        return [pay, look, find, order, wait]


async def twice(redis_url: str, name: str, effects: Effects) -> tuple[list[Any], Any]:
    """The chain, stopped in the tool `wait`, and again; the kinds of its events, and its last fold."""
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream("q", chain=name)
        attempt = asyncio.create_task(jobs.runner.run(body(stream_id)))
        await effects.entered.wait()
        attempt.cancel()
        await attempt
        effects.stuck = False
        await jobs.runner.run(body(stream_id))
        record = await jobs.record(stream_id)
        assert (record.attempt, record.answers) == (2, {})
        fields = await jobs.connection.call("HKEYS", jobs.log.keys(stream_id)[0])
        assert not [name for name in fields if name.startswith(b"tool:")]
        return await jobs.kinds(stream_id), await jobs.fold(stream_id)


def renamed(answers: Sequence[AIMessage], effects: Effects) -> Scripted:
    class Renamed(Scripted):
        """Gives its calls other ids in each attempt."""

        def _next(self, messages: list[Any]) -> AIMessage:
            made = super()._next(messages)
            for call in made.tool_calls:
                call["id"] = f"{call['id']}{'' if effects.stuck else '-again'}"
            return made

    return Renamed(answers=list(answers))


async def test_an_agents_finished_calls_are_not_made_again(redis_url: str, tmp_path: Path) -> None:
    effects = Effects(tmp_path / "did")
    answers = [
        calls("pay", "p", to="ada"),
        calls("look", "l", at="it"),
        calls("find", "f", what="gold"),
        calls("wait", "w"),
        AIMessage("done"),
    ]
    asked: list[Any] = []

    class Watched(Scripted):
        def _next(self, messages: list[Any]) -> AIMessage:
            asked.append([message for message in messages if isinstance(message, ToolMessage)])
            return super()._next(messages)

    chain("replayed")(lambda _: create_agent(Watched(answers=answers), effects.tools()))
    kinds, fold = await twice(redis_url, "replayed", effects)
    assert effects.done == ["pay ada", "look it", "find gold", "wait", "wait"]
    assert (fold.ended, fold.text, kinds.count("reset")) == ("done", "done", 0)
    first, second = asked[3], asked[7]  # before the last call, in each attempt
    told = [(m.content, m.artifact, m.name, m.tool_call_id, m.status) for m in first]
    assert told == [(m.content, m.artifact, m.name, m.tool_call_id, m.status) for m in second]
    assert [(m.content, m.artifact) for m in second][-1] == ("found gold", {"rows": ["gold"]})


async def test_calls_with_other_ids_and_those_that_change_the_state(redis_url: str, tmp_path: Path) -> None:
    """A `Command` has an id of its attempt in it: such a tool is run again."""
    effects = Effects(tmp_path / "did")
    answers = [
        calls("order", "o", what="tea"),
        calls("pay", "p", to="ada"),
        calls("wait", "w"),
        AIMessage("ok"),
    ]
    chain("replayed-ids")(lambda _: create_agent(Scripted(answers=answers), effects.tools()))
    _, fold = await twice(redis_url, "replayed-ids", effects)
    assert fold.ended == "done"
    assert effects.done == ["order tea", "pay ada", "wait", "order tea", "wait"]


async def test_a_model_that_asks_for_something_else_is_answered_anew(redis_url: str, tmp_path: Path) -> None:
    effects = Effects(tmp_path / "did")

    class Fickle(Scripted):
        def _next(self, messages: list[Any]) -> AIMessage:
            turn = sum(isinstance(message, AIMessage) for message in messages)
            to = ["ada", "bob"][turn] if effects.stuck else ["eve", "bob"][turn] if turn < 2 else ""
            asks = calls("pay", f"p{turn}", to=to) if turn < 2 and to else calls("wait", "w")
            return AIMessage("end") if turn > 2 else asks

    class Steps(Fickle):
        def _next(self, messages: list[Any]) -> AIMessage:
            turn = sum(isinstance(message, AIMessage) for message in messages)
            return calls("wait", "w") if turn == 2 else super()._next(messages)

    chain("replayed-not")(lambda _: create_agent(Steps(), effects.tools()))
    kinds, fold = await twice(redis_url, "replayed-not", effects)
    assert (fold.ended, kinds.count("reset")) == ("done", 1)
    assert effects.done == ["pay ada", "pay bob", "wait", "pay eve", "pay bob", "wait"]


async def test_without_a_graph_and_within_another_tool(redis_url: str, tmp_path: Path) -> None:
    effects = Effects(tmp_path / "did")
    pay, look, _, _, wait = effects.tools()

    @tool
    async def outer(to: str) -> str:
        """Pay by another tool."""
        effects.did(f"outer {to}")
        return f"{await pay.ainvoke({'to': to})}!"

    seen: list[Any] = []

    async def run(given: Any) -> str:
        seen.append([await outer.ainvoke({"to": "ada"}), await look.ainvoke({"at": "it"})])
        await wait.ainvoke({})
        return "done"

    chain("replayed-plain")(lambda _: RunnableLambda(run))
    kinds, fold = await twice(redis_url, "replayed-plain", effects)
    assert effects.done == ["outer ada", "pay ada", "look it", "wait", "wait"]
    assert seen[0] == seen[1] == ["paid ada!", {"seen": ["it", 1]}]
    assert (fold.text, kinds.count("reset")) == ("done", 0)


async def test_a_tool_that_ends_later_than_one_that_began_later(redis_url: str, tmp_path: Path) -> None:
    """Their ends come in the log's order in the next attempt too, without a reset."""
    effects, second = Effects(tmp_path / "did"), asyncio.Event()

    async def slow() -> str:
        """Ends after `quick`."""
        effects.did("slow")
        await second.wait()
        return "slow"

    def quick() -> str:
        """Ends at once."""
        effects.did("quick")
        effects.loop.call_soon_threadsafe(effects.loop.call_later, 0.05, second.set)
        time.sleep(0)
        return "quick"

    both = [StructuredTool.from_function(coroutine=slow), StructuredTool.from_function(quick)]
    asks = AIMessage("", tool_calls=[{"name": one.name, "args": {}, "id": one.name} for one in both])
    wait = effects.tools()[-1]
    answers = [asks, calls("wait", "w"), AIMessage("done")]
    chain("replayed-both")(lambda _: create_agent(renamed(answers, effects), [*both, wait]))
    kinds, fold = await twice(redis_url, "replayed-both", effects)
    assert (fold.text, kinds.count("reset")) == ("done", 0)
    assert sorted(effects.done) == ["quick", "slow", "wait", "wait"]


async def test_what_is_too_much_to_keep_is_run_again(redis_url: str, tmp_path: Path) -> None:
    effects = Effects(tmp_path / "did")
    answers = [
        calls("look", "l", at="x" * 600),
        calls("pay", "p", to="ada"),
        calls("wait", "w"),
        AIMessage("d"),
    ]
    chain("replayed-large")(lambda _: create_agent(Scripted(answers=answers), effects.tools()))
    async with Jobs(redis_url, max_checkpoints=500) as jobs:
        stream_id = await jobs.stream("q", chain="replayed-large")
        attempt = asyncio.create_task(jobs.runner.run(body(stream_id)))
        await effects.entered.wait()
        attempt.cancel()
        await attempt
        kept_bytes = sum(map(len, (await jobs.record(stream_id)).answers.values()))
        effects.stuck = False
        await jobs.runner.run(body(stream_id))
        assert (await jobs.fold(stream_id)).ended == "done"
    assert kept_bytes <= 500
    assert [what[:6] for what in effects.done] == ["look x", "pay ad", "wait", "look x", "pay ad", "wait"]
