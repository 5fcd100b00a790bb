"""LangGraph runs as pure functions: from a stream's events to frames, and from a request body to a start."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import protocol
from gateway.formats.base.projection import events
from gateway.formats.base.shared import SharedProjection
from gateway.formats.langgraph.projection import EVENTS_OF_MODE, Run
from gateway.formats.langgraph.request import begin_state, parse_run, start_of
from gateway.protocol import Event, EventType, sse
from gateway.protocol.errors import Invalid
from gateway.streams.start import DEFAULT, Start
from tests.test_formats_shared import MemoryLog

CHAINS = {"chat": ["chat"], "report": ["outline", "final"]}
HUMAN = {"type": "human", "content": "hi", "id": "1"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
MESSAGES = st.fixed_dictionaries(
    {"content": JSON},
    optional={
        "type": st.sampled_from(["human", "ai", "tool", "remove", "system"]) | JSON,
        "role": JSON,
        "id": JSON,
    },
)
BODIES = st.fixed_dictionaries(
    {"assistant_id": st.just("chat") | JSON},
    optional={
        "input": st.fixed_dictionaries({}, optional={"messages": st.lists(MESSAGES) | JSON, "x": JSON})
        | JSON,
        "config": st.fixed_dictionaries({"configurable": JSON}) | JSON,
        "context": JSON,
        "metadata": JSON,
        "stream_mode": st.lists(st.sampled_from(list(EVENTS_OF_MODE))) | JSON,
        "multitask_strategy": JSON,
        "checkpoint": st.fixed_dictionaries({"checkpoint_id": JSON}) | JSON,
        "command": JSON,
    },
)


def frames(*events: Event, modes: tuple[str, ...] = tuple(EVENTS_OF_MODE)) -> list[tuple[str, Any]]:
    """Return the frames of these events. The event ids are 0-beef, 100-beef and so on."""
    run = Run("run", "thread", {"messages": [HUMAN]}, modes)
    told = []
    for number, event in enumerate(events):
        made = run.feed(f"{number * 100}-beef", event)
        told += [(frame.event, frame.data) for frame in made if run.wants(frame)]
    return told


START = protocol.start("run", "report", ["outline", "final"], "now")
DONE = Event(EventType.DONE, {"finish_reason": "stop", "usage": {}, "attempts": 1, "duration_ms": 1})


def stage(name: str, *, finished: bool = False) -> Event:
    return protocol.stage(name, run=1, index=0, count=2, finished=finished)


def text(delta: str, name: str, run: int = 0) -> Event:
    return protocol.text(delta, deployment="d", stage=name, run=run)


def contents(values: Any) -> list[str]:
    return [one["content"] for one in values["messages"]]


def test_each_stage_says_a_message_and_the_last_one_is_the_answer() -> None:
    told = frames(
        *(START, stage("outline"), text("a", "outline"), text("b", "outline")),
        *(stage("outline", finished=True), stage("final"), text("c", "final")),
        *(stage("final", finished=True), DONE),
    )
    assert [event for event, _ in told] == [
        *("metadata", "values", "messages", "messages", "updates", "messages", "updates", "values", "end")
    ]
    ids = [data[0]["id"] for event, data in told if event == "messages"]
    assert ids == ["run:200-beef", "run:200-beef", "run:600-beef"]
    assert [
        contents(data["outline"]) for event, data in told if event == "updates" and "outline" in data
    ] == [["ab"]]
    assert contents(told[-2][1]) == ["hi", "c"]
    assert told[-2][1]["messages"][-1]["id"] == "run:600-beef"


def test_only_the_modes_that_were_asked_for_are_told_but_each_has_its_place() -> None:
    told = frames(START, stage("chat"), text("a", "chat"), DONE, modes=("updates",))
    assert [event for event, _ in told] == ["metadata", "end"]


@pytest.mark.parametrize(
    "modes", [("updates", "custom"), ("values", "messages-tuple"), ("messages", "values")]
)
async def test_a_reader_of_some_modes_gets_from_a_shared_run_what_an_own_one_makes(
    modes: tuple[str, ...],
) -> None:
    said = [START, stage("outline"), text("a", "outline"), stage("outline", finished=True)]
    log = b""
    for event in [*said, stage("final"), text("b", "final"), stage("final", finished=True), DONE]:
        log += sse.encode(event, len(log), "beef")
    own, expected = Run("run", "thread", {"messages": [HUMAN]}, modes), b""
    for event_id, event in events(log):
        for number, frame in enumerate(own.feed(event_id, event)):
            expected += frame.encode(f"{event_id}.{number}") if own.wants(frame) else b""
    first = Run("run", "thread", {"messages": [HUMAN]}, [*modes, "messages-tuple", "custom"])
    reader = Run("run", "thread", {"messages": [HUMAN]}, modes)
    assert first.shared_as() == reader.shared_as()
    shared = SharedProjection(first.unfed(), MemoryLog(log), "run")  # type: ignore[arg-type]
    assert b"".join(await shared.of(log, reader.wants)) == expected
    others = [Run("run", "other", {}, modes), Run("run", "thread", {}, modes, subgraphs=True)]
    assert all(other.shared_as() != reader.shared_as() for other in others)


def test_after_a_reset_another_message_is_said_and_what_is_void_is_gone() -> None:
    told = frames(
        *(START, stage("outline"), text("kept", "outline"), stage("outline", finished=True), stage("final")),
        *(text("void", "final"), protocol.tool("t", call_id="1", stage="final", state="started", said={})),
        protocol.reset(attempt=2, stage_name="final", discard_after="400-beef", reason="attempt_differs"),
        *(text("new", "final"), DONE),
    )
    [reset] = [data for event, data in told if event == "values"][1:2]
    assert contents(reset) == ["hi", "kept"]
    void, _, new = [data[0]["id"] for event, data in told if event == "messages"][1:]
    assert (void, new) == ("run:500-beef", "run:800-beef")
    assert contents(told[-2][1]) == ["hi", "new"]


def test_a_tool_call_is_a_models_message_and_the_tools() -> None:
    told = frames(
        *(START, stage("final")),
        protocol.tool("search", call_id="c1", stage="final", state="started", said={"q": 1}),
        protocol.tool("search", call_id="c1", stage="final", state="finished", said={"found": []}),
        protocol.tool("search", call_id="c2", stage="final", state="failed", said="no"),
    )
    call, answer, failed = (data[0] for event, data in told if event == "messages")
    assert call["tool_calls"] == [{"name": "search", "args": {"q": 1}, "id": "c1", "type": "tool_call"}]
    assert (answer["type"], answer["tool_call_id"], answer["content"]) == ("tool", "c1", '{"found":[]}')
    assert (answer["status"], failed["status"], failed["content"]) == ("success", "error", "no")
    assert len({call["id"], answer["id"], failed["id"]}) == 3


def test_what_a_stream_writer_wrote_is_bare_and_a_json_result_is_in_the_state() -> None:
    told = frames(
        *(START, stage("final")),
        protocol.custom("custom", {"x": 1}, stage="final"),
        protocol.custom("sources", [2], stage="final"),
        protocol.custom("result", {"total": 42}, stage="final"),
        DONE,
    )
    custom = [data for event, data in told if event == "custom"]
    assert custom[:2] == [{"x": 1}, {"name": "sources", "stage": "final", "data": [2]}]
    assert told[-2][1] == {"messages": [HUMAN], "total": 42, "result": {"total": 42}}


def test_a_graphs_answer_is_its_last_node_that_spoke() -> None:
    def node(name: str, run: int, *, finished: bool = False) -> Event:
        return protocol.node(name, run=run, index=0, count=1, parent="final", step=run, finished=finished)

    told = frames(
        *(START, stage("final"), node("model", 1), text("one", "model", 1), node("model", 1, finished=True)),
        *(node("model", 2), text("two", "model", 2), node("model", 2, finished=True), node("silent", 1)),
        DONE,
    )
    assert [contents(data["model"]) for event, data in told if event == "updates"] == [["one"], ["two"]]
    assert contents(told[-2][1]) == ["hi", "two"]


def test_what_a_graph_asks_is_an_interrupt() -> None:
    asked = [{"id": "i", "value": "sure?"}]
    done = protocol.done(finish_reason="interrupted", usage={}, attempts=1, duration_ms=1, interrupts=asked)
    assert frames(START, stage("final"), done)[-2][1]["__interrupt__"] == asked


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (protocol.failed("too_long", "Too long.", retryable=False), ("too_long", "Too long.")),
        (Event(EventType.CANCELLED, {}), ("UserInterrupt", "The run was cancelled.")),
    ],
)
def test_an_end_without_a_result_is_an_error(event: Event, error: tuple[str, str]) -> None:
    kind, data = frames(START, event)[-1]
    assert (kind, data) == ("error", dict(zip(("error", "message"), error, strict=True)))


def began(given: Any, before: list[dict[str, Any]] | None = None) -> tuple[dict[str, Any], Start]:
    asked = parse_run({"assistant_id": "chat", "input": given})
    state = begin_state(asked, before or [], DEFAULT)
    return state, start_of(asked, state, CHAINS, DEFAULT)


def test_messages_are_added_replaced_and_removed() -> None:
    before = began({"messages": [HUMAN, {"role": "assistant", "content": "yes", "id": "2"}]})[0]["messages"]
    more = [
        {"role": "user", "content": "new"},
        {"type": "human", "content": "other", "id": "1"},
        {"type": "remove", "id": "2", "content": ""},
    ]
    state, start = began({"messages": more}, before)
    assert contents(state) == ["other", "new"]
    assert start.input == {
        "messages": [{"role": "user", "content": "other"}, {"role": "user", "content": "new"}]
    }
    only, _ = began({"messages": [{"type": "remove", "id": "__remove_all__"}, "hello"]}, before)
    assert contents(only) == ["hello"]
    assert only["messages"][0]["id"]


CALL = {"name": "look", "args": {"q": "é"}, "id": "c1", "type": "tool_call"}
CALLING = {"type": "ai", "content": "", "id": "3", "tool_calls": [CALL]}
ASKED = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"q":"é"}'}},
    ],
}


def test_what_the_clients_tool_has_answered_is_in_the_question_and_in_the_state() -> None:
    answer = {
        "type": "tool",
        "content": "x",
        "tool_call_id": "c1",
        "name": "look",
        "status": "error",
        "id": "4",
    }
    state, start = began({"messages": [HUMAN, CALLING, answer]})
    told = {"role": "tool", "content": "x", "tool_call_id": "c1", "name": "look", "status": "error"}
    assert start.input == {"messages": [{"role": "user", "content": "hi"}, ASKED, told]}
    assert [one["type"] for one in state["messages"]] == ["human", "ai", "tool"]
    more, start = began({"messages": ["and?"]}, state["messages"])  # The tool message stays in the thread.
    assert start.input["messages"][1:3] == [ASKED, told]
    assert more["messages"][:3] == state["messages"]


@pytest.mark.parametrize(
    "calling",
    [
        {"type": "ai", "content": None, "tool_calls": [CALL]},
        {"role": "assistant", "content": "", "tool_calls": ASKED["tool_calls"]},
        {"role": "assistant", "tool_calls": [{"name": "look", "args": {"q": "é"}, "id": "c1"}]},
    ],
    ids=["LangChain's", "OpenAI's", "without a content"],
)
def test_a_call_may_be_written_as_langchain_and_as_openai_write_it(calling: dict[str, Any]) -> None:
    answer = {"role": "tool", "content": [{"type": "text", "text": "x"}], "tool_call_id": "c1"}
    _, start = began({"messages": [calling, answer], "topic": 1})
    assert start.input["input"]["messages"] == [ASKED, answer | {"status": "success"}]


def test_calls_that_nobody_has_answered_are_left_out_of_the_question() -> None:
    other = {**CALL, "id": "c2"}
    _, start = began(
        {"messages": [HUMAN, CALLING, {**CALLING, "content": "let me see", "tool_calls": [other]}]}
    )
    assert start.input["messages"][1:] == [{"role": "assistant", "content": "let me see"}]
    answer = {"type": "tool", "content": "x", "tool_call_id": "c1"}
    _, start = began({"messages": [HUMAN, {**CALLING, "tool_calls": [other, CALL]}, answer]})
    assert start.input["messages"][1] == ASKED


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([{"type": "tool", "content": "x", "tool_call_id": "c1"}], "[0].tool_call_id"),
        ([CALLING, {"type": "tool", "content": "x"}], "[1].tool_call_id"),
        ([CALLING, {"type": "tool", "content": "x", "tool_call_id": "c1", "status": "odd"}], "[1].status"),
        ([CALLING, {"type": "tool", "content": "x", "tool_call_id": "c1", "name": 1}], "[1].name"),
        ([CALLING, {"type": "tool", "content": {"x": 1}, "tool_call_id": "c1"}], "[1].content"),
        ([{**CALLING, "tool_calls": {}}, "x"], ""),
        ([{**CALLING, "tool_calls": "x"}], "[0].tool_calls"),
        ([{**CALLING, "tool_calls": [1]}], "[0].tool_calls[0]"),
        ([{**CALLING, "tool_calls": [{**CALL, "args": "{}"}]}], "[0].tool_calls[0].args"),
        ([{**CALLING, "tool_calls": [{**CALL, "id": ""}]}], "[0].tool_calls[0].id"),
        ([{**CALLING, "tool_calls": [{**CALL, "name": "x" * 201}]}], "[0].tool_calls[0].name"),
        (
            [{**CALLING, "tool_calls": [{"id": "c1", "function": {"name": "look", "arguments": "{"}}]}],
            "[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_a_tools_answer_without_its_call_and_odd_calls_are_refused(messages: Any, field: str) -> None:
    if not field:
        began({"messages": messages})
        return
    with pytest.raises(Invalid) as refused:
        began({"messages": messages})
    assert refused.value.extensions["field"] == f"input.messages{field}"


def test_a_call_that_is_left_to_the_client_is_in_the_threads_answer() -> None:
    def called(call_id: str) -> Event:
        return protocol.tool("look", call_id=call_id, stage="final", state="started", said={"q": call_id})

    def asked(call_id: str) -> dict[str, Any]:
        return {"name": "look", "args": {"q": call_id}, "id": call_id, "type": "tool_call"}

    done = Event(EventType.DONE, {**DONE.data, "finish_reason": "tool_calls"})
    silent = frames(START, stage("final"), called("c1"), called("c2"), stage("final", finished=True), done)
    [answer] = silent[-2][1]["messages"][1:]
    assert (answer["content"], answer["tool_calls"]) == ("", [asked("c1"), asked("c2")])
    assert answer["id"] == "run:200-beef"  # The id is the same as in the stream.
    spoken = frames(START, stage("final"), text("hm", "final"), called("c1"), done)
    [answer] = spoken[-2][1]["messages"][1:]
    assert (answer["content"], answer["tool_calls"], answer["id"]) == ("hm", [asked("c1")], "run:200-beef")
    answered = protocol.tool("look", call_id="c1", stage="final", state="finished", said="x")
    for last in (DONE, Event(EventType.DONE, {**DONE.data, "finish_reason": "interrupted"})):
        assert frames(START, stage("final"), called("c1"), last)[-2][1]["messages"] == [HUMAN]
    assert frames(START, stage("final"), called("c1"), answered, done)[-2][1]["messages"] == [HUMAN]


def test_other_input_goes_beside_the_messages() -> None:
    state, start = began({"topic": "x"}, [HUMAN])
    assert state == {"topic": "x", "messages": [HUMAN]}
    assert start.input == {"input": {"topic": "x", "messages": [{"role": "user", "content": "hi"}]}}
    assert began("plain")[1].input == {"input": "plain"}


def test_a_thread_has_a_bound() -> None:
    long = [{"type": "human", "content": "x" * 1000, "id": str(number)} for number in range(400)]
    with pytest.raises(Invalid, match=r"input: must be at most"):
        began({"messages": ["more"]}, long)
    many = [{"type": "human", "content": "x", "id": str(number)} for number in range(DEFAULT.messages)]
    with pytest.raises(Invalid, match=r"input.messages: must be at most"):
        began({"messages": ["more"]}, many)


@given(BODIES | JSON)
def test_whatever_is_sent_is_run_or_refused(body: Any) -> None:
    try:
        asked = parse_run(body)
        told = start_of(asked, begin_state(asked, [HUMAN], DEFAULT), CHAINS, DEFAULT).chain
    except Invalid as error:
        told = error.extensions["rule"]
    assert told


def test_fault_109_a_clients_limit_on_steps_is_taken_or_refused() -> None:
    def parsed(limit: Any) -> Any:
        body = {"assistant_id": "chat", "config": {"recursion_limit": limit, "configurable": {"a": 1}}}
        return parse_run(body).params

    assert parsed(None) == {"a": 1}
    assert parsed(25) == {"a": 1, "recursion_limit": 25}
    wrongs: list[Any] = [0, -1, True, 2.5, "25", []]
    for wrong in wrongs:
        with pytest.raises(Invalid, match=r"recursion_limit"):
            parsed(wrong)
