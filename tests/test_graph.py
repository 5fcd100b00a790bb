"""Compiled LangGraph graphs: their nodes as stages, their tokens, their checkpointers and interrupts."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypedDict

import pytest
from langchain_core.callbacks import adispatch_custom_event
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Send, interrupt
from pydantic import Field

from gateway.protocol import Event, sse
from gateway.streams.start import Start
from tests.support.jobs import Jobs, body
from workers.chains.registry import chain
from workers.delivery.runner import AGAIN, DONE
from workers.langchain import Outcome, Stage, stream, tap
from workers.stages import Each

HERE = Stage("g", "d", "stream-id")


class State(TypedDict, total=False):
    topic: str
    text: str
    turns: int


def says(text: str) -> GenericFakeChatModel:
    """Return a model that streams this text word by word."""
    return GenericFakeChatModel(messages=iter([AIMessage(text)]))


def graph_of(*nodes: Callable[[Any], Any], schema: Any = State, checkpointer: Any = None) -> Any:
    """Return a compiled graph that runs these nodes one after the other."""
    builder: Any = StateGraph(schema)
    names = [node.__name__ for node in nodes]
    for before, node in zip([START, *names], nodes, strict=False):
        builder.add_node(node.__name__, node)
        builder.add_edge(before, node.__name__)
    return builder.compile(checkpointer=checkpointer)


async def run(graph: Any, given: Any = None, params: Any = None) -> tuple[list[Event], Outcome]:
    outcome, told = Outcome(), []

    async def emit(event: Event) -> None:
        told.append(event)

    await stream(graph, given or {"topic": "t"}, params or {}, emit, HERE, outcome)
    return told, outcome


def short(events: list[Event]) -> list[str]:
    """Shorten events: `+a1` begins run 1 of node a, `-a1` ends it, `a1:x` is its text x, `n@a1` is custom."""
    lines = []
    for event in events:
        data = event.data
        if event.type == "stage":
            lines.append(f"{'+' if data['state'] == 'started' else '-'}{data['name']}{data['run']}")
        elif event.type == "":
            lines.append(f"{data['stage']}{data['run']}:{data['delta_content']}")
        else:
            lines.append(f"{data['name']}@{data['stage']}{data.get('run', '')}")
    return lines


async def asks(state: State) -> State:
    return {"text": str((await says("a b").ainvoke("q")).content)}


def asks_in_a_thread(state: State) -> State:
    return {"text": str(says("a b").invoke("q").content)}


async def blocks_the_loop(state: State) -> State:
    return {"text": str(says("a b").invoke("q").content)}


@pytest.mark.parametrize("node", [asks, asks_in_a_thread, blocks_the_loop])
async def test_a_nodes_model_streams_whether_it_is_awaited_or_not(node: Callable[[Any], Any]) -> None:
    events, outcome = await run(graph_of(node))
    name = node.__name__
    assert short(events) == [f"+{name}1", f"{name}1:a", f"{name}1: ", f"{name}1:b", f"-{name}1"]
    assert outcome.result == {"topic": "t", "text": "a b"}
    known = {"name": name, "run": 1, "index": 0, "count": 1, "state": "started"}
    assert events[0].data == known | {"parent": "g", "step": 1}


async def test_a_node_that_repeats_has_run_numbers() -> None:
    async def turn(state: State) -> State:
        return {"turns": state.get("turns", 0) + 1, "text": str((await says("x").ainvoke("q")).content)}

    builder = StateGraph(State)
    builder.add_node("turn", turn)
    builder.add_edge(START, "turn")
    builder.add_conditional_edges("turn", lambda state: "turn" if state["turns"] < 3 else "__end__")
    events, _ = await run(builder.compile())
    turns = [line for n in "123" for line in (f"+turn{n}", f"turn{n}:x", f"-turn{n}")]
    assert short(events) == [*turns, "result@g"]


async def test_nodes_at_once_are_told_apart() -> None:
    both = asyncio.Barrier(2)

    async def part(state: State) -> State:
        await both.wait()
        await says(f"{state['topic']}!").ainvoke("q")
        return {}

    builder = StateGraph(State)
    builder.add_node("part", part)
    builder.add_conditional_edges(
        START, lambda _: [Send("part", {"topic": "a"}), Send("part", {"topic": "b"})]
    )
    events, _ = await run(builder.compile())
    texts = {line for line in short(events) if ":" in line}
    assert texts == {"part1:a!", "part2:b!"}


async def test_messages_that_no_model_streamed_are_text_too_and_a_conversation_is_put_in() -> None:
    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(f"you said {state['messages'][-1].content}")]}

    for given in ([{"role": "user", "content": "hi"}], "hi"):
        events, outcome = await run(graph_of(answer, schema=MessagesState), given)
        assert short(events) == ["+answer1", "answer1:you said hi", "-answer1"]
        assert outcome.result == "you said hi"


async def test_a_graph_that_says_nothing_shows_its_state() -> None:
    def quiet(state: State) -> State:
        return {"text": "made"}

    events, _ = await run(graph_of(quiet))
    assert events[-1].data == {"name": "result", "stage": "g", "data": {"topic": "t", "text": "made"}}


async def test_what_nodes_dispatch_is_custom_and_bears_a_clean_name() -> None:
    async def tells(state: State) -> State:
        await adispatch_custom_event("progress\r\nevent: done", {"percent": 50})
        get_stream_writer()({"any": "thing"})
        await says("x").ainvoke("q")
        return {}

    events, _ = await run(graph_of(tells))
    custom = {event.data["name"]: event.data for event in events if event.type == "custom"}
    assert custom["progress  event: done"]["data"] == {"percent": 50}
    assert custom["progress  event: done"]["stage"] == "tells"
    assert custom["custom"]["data"] == {"any": "thing"}


async def test_a_model_within_a_tool_is_the_tools_and_not_shown() -> None:
    @tool
    async def expert(query: str) -> str:
        """Ask another model."""
        return str((await says("secret").ainvoke(query)).content)

    async def consults(state: State) -> State:
        return {"text": await expert.ainvoke({"query": "q"})}

    events, _ = await run(graph_of(consults))
    assert not [event for event in events if event.type == ""]
    assert [event.data.get("output") for event in events if event.type == "tool"] == [None, "secret"]


async def test_a_silent_models_words_are_not_shown() -> None:
    async def thinks(state: State) -> State:
        await says("secret").with_config(tags=["nostream"]).ainvoke("q")
        return {}

    events, _ = await run(graph_of(thinks))
    assert not [event for event in events if event.type == ""]


async def test_a_client_cannot_name_anothers_thread() -> None:
    saver = InMemorySaver()

    def notes(state: State) -> State:
        return {"text": "noted"}

    graph = graph_of(notes, checkpointer=saver)
    theirs = {"thread_id": "other", "checkpoint_ns": "x", "checkpoint_id": "y", "__pregel_x": 1}
    await run(graph, {"topic": "t"}, theirs)
    assert list(saver.storage) == ["stream-id"]


async def echo(state: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage(f"you said {state['messages'][-1].content}")]}


@pytest.mark.parametrize("asked", ["hi", [{"role": "user", "content": "hi"}]])
async def test_a_graph_that_is_a_stage_of_several_is_given_the_conversation_too(asked: Any) -> None:
    events, outcome = await run(graph_of(echo, schema=MessagesState), {"input": asked, "earlier": 1})
    assert short(events) == ["+echo1", "echo1:you said hi", "-echo1"]
    assert outcome.result == "you said hi"


async def test_messages_that_were_put_in_are_kept_beside_another_input() -> None:
    given = {"input": "not this", "messages": [("user", "hi")]}
    assert (await run(graph_of(echo, schema=MessagesState), given))[1].result == "you said hi"


async def test_a_sequence_that_ends_in_a_graph_yields_its_state_as_json() -> None:
    async def more(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("more")]}

    first: Runnable[Any, Any] = RunnableLambda(lambda given: {"messages": given})
    chain = first | graph_of(echo, more, schema=MessagesState).with_config(tags=["t"])
    events, outcome = await run(chain, "hi")
    assert [message["content"] for message in outcome.result["messages"]] == ["hi", "you said hi", "more"]
    [event] = events
    assert (event.data["name"], event.data["data"]) == ("result", outcome.result)
    assert json.loads(sse.dumps(outcome.result)) == outcome.result


class Kept(TypedDict, total=False):
    """A state with messages as they are. It has no reducer, because a reducer would give them ids."""

    messages: list[Any]


async def test_a_message_without_an_id_is_shown_once_and_one_that_was_put_in_never() -> None:
    def answers(state: Kept) -> Kept:
        return {"messages": [*state["messages"], AIMessage("once")]}

    def repeats(state: Kept) -> Kept:
        return {"messages": list(state["messages"])}

    given = {"messages": [AIMessage("before", id="b")]}
    events, outcome = await run(graph_of(answers, repeats, schema=Kept), given)
    assert short(events) == ["+answers1", "answers1:once", "-answers1", "+repeats1", "-repeats1"]
    assert outcome.result == "once"


@pytest.mark.parametrize(
    ("last", "result"),
    [
        ({"role": "assistant", "content": "plain"}, "plain"),
        ({"role": "assistant", "content": [{"type": "text", "text": "part"}]}, "part"),
        (["no", "message"], {"messages": [["no", "message"]]}),
    ],
)
async def test_messages_that_are_plain_json_will_do(last: Any, result: Any) -> None:
    def answers(state: Kept) -> Kept:
        return {"messages": [last]}

    _, outcome = await run(graph_of(answers, schema=Kept), {"messages": []})
    assert outcome.result == result


class Item(State, total=False):
    input: str
    item: str


async def test_a_graph_with_checkpoints_runs_anew_in_each_stage_and_run(redis_url: str) -> None:
    def notes(state: Item) -> Item:
        return {"text": f"noted {state.get('item', 'all')}"}

    saver = InMemorySaver()
    graph = graph_of(notes, schema=Item, checkpointer=saver)
    each = Each(graph, lambda _: ["x", "y"])
    chain("noting", stages=("each", "one", "two"))(lambda _: {"each": each, "one": graph, "two": graph})
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream("q", chain="noting")
        assert await jobs.runner.run(body(stream_id)) == DONE
        events = [message.event() for message in await jobs.messages(stream_id)]
        results = [event.data["data"]["text"] for event in events if event.type == "custom"]
        assert results == ["noted x", "noted y", "noted all", "noted all"]
        assert list(saver.storage) == [
            f"stream:{stream_id} {run}" for run in ("each 1", "each 2", "one 1", "two 1")
        ]


async def test_a_graph_that_is_its_whole_chain_has_the_streams_own_thread(redis_url: str) -> None:
    saver = InMemorySaver()
    chain("noted")(lambda _: graph_of(asks, checkpointer=saver))
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream({"topic": "t"}, chain="noted")
        assert await jobs.runner.run(body(stream_id)) == DONE
        assert list(saver.storage) == [f"stream:{stream_id}"]


async def test_an_interrupt_ends_the_run_with_what_it_asks(redis_url: str) -> None:
    def approve(state: State) -> State:
        return {"text": interrupt({"question": "Send it?"})}

    chain("asking")(lambda _: graph_of(asks, approve, checkpointer=InMemorySaver()))
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream({"topic": "t"}, chain="asking")
        assert await jobs.runner.run(body(stream_id)) == DONE
        done = (await jobs.messages(stream_id))[-1].event()
        assert (done.type, done.data["finish_reason"]) == ("done", "interrupted")
        assert [asked["value"] for asked in done.data["interrupts"]] == [{"question": "Send it?"}]
        assert [(s.name, s.state) for s in (await jobs.fold(stream_id)).stages] == [
            ("asking", "finished"),
            ("asks", "finished"),
            ("approve", "started"),
        ]


class Steps:
    """A graph of three nodes that record their runs. The second waits for `gate` after its first word."""

    def __init__(self, checkpointer: Any) -> None:
        self.ran: list[str] = []
        self.gate = asyncio.Event()
        self.words = {"first": "one", "second": "two more words", "third": "three"}
        self._checkpointer = checkpointer

    def graph(self) -> Any:
        return graph_of(*map(self._node, self.words), checkpointer=self._checkpointer)

    def _node(self, name: str) -> Callable[[State], Any]:
        async def node(state: State) -> State:
            self.ran.append(name)
            said = ""
            async for chunk in says(self.words[name]).astream("q"):
                said += str(chunk.content)
                if name == "second" and said == "two":
                    await self.gate.wait()
            return {"text": said}

        node.__name__ = name
        return node


@pytest.mark.parametrize("remembers", [True, False])
@pytest.mark.parametrize("differs", ["", "second", "first"])
async def test_a_graph_goes_on_at_the_next_attempt(redis_url: str, remembers: bool, differs: str) -> None:
    """With a checkpointer, no finished node runs again. Without one, all run and are matched with the log."""
    steps = Steps(InMemorySaver() if remembers else None)
    chain("steps")(lambda _: steps.graph())
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream({"topic": "t"}, chain="steps")
        first = asyncio.create_task(jobs.runner.run(body(stream_id)))
        await jobs.shows(stream_id, "two")
        first.cancel()
        assert await first == AGAIN
        steps.gate.set()
        if differs:
            steps.words[differs] = "otherwise"
        assert await jobs.runner.run(body(stream_id)) == DONE
        again = ["second", "third"] if remembers else ["first", "second", "third"]
        assert steps.ran == ["first", "second", *again]
        fold = await jobs.fold(stream_id)
        said = dict(steps.words)
        if remembers:
            said["first"] = "one"  # This text is already in the log. Its node does not run again.
        texts = [(stage.name, stage.run, stage.text) for stage in fold.stages]
        assert texts == [("steps", 1, ""), *((name, 1, text) for name, text in said.items())]
        resets = (await jobs.kinds(stream_id)).count("reset")
        assert resets == (1 if said != {"first": "one", "second": "two more words", "third": "three"} else 0)


class Counting(GenericFakeChatModel):
    """A model that streams a long answer without waiting, and counts the tokens it has made."""

    made: list[str] = Field(default_factory=list)
    is_through: threading.Event = Field(default_factory=threading.Event)

    def _stream(self, *given: Any, **options: Any) -> Any:
        for chunk in super()._stream(*given, **options):
            self.made.append("")
            yield chunk
        self.is_through.set()

    async def _astream(self, *given: Any, **options: Any) -> Any:
        for chunk in self._stream(*given):
            yield chunk


TAKEN = 10
AHEAD_SECONDS = 0.5


async def ahead(node: Callable[[Counting], Callable[[State], Any]]) -> int:
    """Return how many more than `TAKEN` tokens a model makes while the store accepts only `TAKEN` events."""
    model = Counting(messages=iter([AIMessage(" ".join(["w"] * 300))]))
    taken: list[Event] = []
    is_behind, go_on = asyncio.Event(), asyncio.Event()

    async def emit(event: Event) -> None:
        if len(taken) == TAKEN:
            is_behind.set()
            await go_on.wait()
        taken.append(event)

    task = asyncio.create_task(stream(graph_of(node(model)), {"topic": "t"}, {}, emit, HERE, Outcome()))
    async with asyncio.timeout(30):
        await is_behind.wait()
        await asyncio.to_thread(model.is_through.wait, AHEAD_SECONDS)  # An unlimited model would end now.
        before = len(model.made)
    go_on.set()
    await task
    assert len(taken) == 300 * 2 - 1 + 2  # 300 words, 299 spaces, the node's start and end.
    return before - TAKEN


async def test_a_fast_graph_waits_for_a_slow_store() -> None:
    def node(model: Counting) -> Callable[[State], Any]:
        async def fast(state: State) -> State:
            return {"text": str((await model.ainvoke("q")).content)}

        return fast

    assert await ahead(node) <= 1


async def test_a_fast_graph_in_a_thread_is_slowed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    token = replace(HERE, name="fast", run=1).text("w")
    monkeypatch.setattr(tap, "ON_THEIR_WAY_BYTES", 20 * len(sse.encode(token, 0, "")))

    def node(model: Counting) -> Callable[[State], Any]:
        def fast(state: State) -> State:
            return {"text": str(model.invoke("q").content)}

        return fast

    assert await ahead(node) <= 20 + 1


async def test_fault_109_a_graph_that_takes_too_many_steps_says_so(redis_url: str) -> None:
    graph = StateGraph(MessagesState)
    steps: list[int] = []

    async def again(state: MessagesState) -> dict[str, Any]:
        steps.append(1)
        return {}

    graph.add_node("again", again)
    graph.add_edge(START, "again")
    graph.add_edge("again", "again")
    bounded = graph.compile().with_config(recursion_limit=7)
    chain("bounded")(lambda _: bounded)
    for asked, most in ((None, 7), (3, 3), (50, 7), (0, 7), (True, 7), ("3", 7)):
        steps.clear()
        async with Jobs(redis_url) as jobs:
            params = {} if asked is None else {"recursion_limit": asked}
            start = Start("bounded", {"messages": [{"role": "user", "content": "q"}]}, params)
            stream_id = (await jobs.gateway.create(start, owner="anonymous")).id
            await jobs.runner.run(body(stream_id))
            error = (await jobs.fold(stream_id)).error
            assert error is not None
            assert (error["code"], error["retryable"], len(steps)) == ("recursion_limit", False, most)
