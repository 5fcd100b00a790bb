"""OpenAI's formats as pure functions of a log, compared with what the official clients read from them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai._models import construct_type
from openai._types import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent

from gateway import protocol
from gateway.formats.base.projection import Frame, Projection
from gateway.formats.openai.chat import Chat, Void, until_over
from gateway.formats.openai.output import MOST_OPEN, Responses
from gateway.protocol import Cursor, Event, EventType, sse
from tests.support.programs import node

STREAM = "35nFsOmsIv0eCNtSIGjMqbyA"
CREATED = "2026-11-22T18:06:53.800Z"
USAGE = {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}
MOST_FRAMES = 64  # Of one event: a frame number has six bits.


@dataclass
class Tape:
    """A log that a test writes, as events with their ids."""

    stages: tuple[str, ...] = ("answer",)
    events: list[tuple[str, Event]] = field(default_factory=list)
    length: int = 0

    def __post_init__(self) -> None:
        self.add(protocol.start(STREAM, "chain", self.stages, CREATED))

    def add(self, event: Event) -> str:
        event_id = f"{self.length}-be0f"
        self.length += len(sse.encode(event, self.length, "be0f"))
        self.events.append((event_id, event))
        return event_id

    def began(self, name: str = "answer", run: int = 1, parent: str = "") -> str:
        return self.add(self._stage(name, run, parent, finished=False))

    def finished(self, name: str = "answer", run: int = 1, parent: str = "") -> str:
        return self.add(self._stage(name, run, parent, finished=True))

    def _stage(self, name: str, run: int, parent: str, *, finished: bool) -> Event:
        if parent:
            return protocol.node(name, run=run, index=0, count=1, parent=parent, step=1, finished=finished)
        return protocol.stage(name, run=run, index=0, count=1, finished=finished)

    def said(self, delta: str, stage: str = "answer", run: int = 0) -> str:
        return self.add(protocol.text(delta, deployment="d", stage=stage, run=run))

    def thought(self, delta: Any, stage: str = "answer", run: int = 0) -> str:
        return self.add(protocol.custom("reasoning", {"delta": delta}, stage=stage, run=run))

    def tool(self, state: str, said: Any, call: str = "c", stage: str = "answer", run: int = 0) -> str:
        return self.add(protocol.tool("sum", call_id=call, stage=stage, state=state, said=said, run=run))

    def reset(self, after: str, stage: str = "answer") -> str:
        return self.add(protocol.reset(attempt=2, stage_name=stage, discard_after=after, reason="other"))

    def done(self, reason: str = "stop") -> str:
        return self.add(protocol.done(finish_reason=reason, usage=USAGE, attempts=1, duration_ms=1))

    def failed(self) -> str:
        return self.add(protocol.failed("model_error", "The model's server failed.", retryable=True))

    def cancelled(self) -> str:
        return self.add(Event(EventType.CANCELLED, {}))

    def frames(self, projection: Projection) -> list[Frame]:
        """Return the frames that a reader gets."""
        told = []
        for event_id, event in self.events:
            made = projection.feed(event_id, event)
            assert len(made) <= MOST_FRAMES
            told += made
        return told


def kinds(frames: list[Frame]) -> list[str]:
    """Return the event types without the prefix `response.`."""
    return [frame.data["type"].removeprefix("response.") for frame in frames]


def last(frames: list[Frame]) -> dict[str, Any]:
    response: dict[str, Any] = frames[-1].data["response"]
    return response


def output_text(response: dict[str, Any]) -> str:
    """Return the whole text, added up as both clients do it."""
    messages = [item for item in response["output"] if item["type"] == "message"]
    return "".join(part["text"] for item in messages for part in item["content"])


def by_client(frames: list[Frame]) -> Any:
    """Read these events with the Python client's own helper, which raises for an invalid event."""
    state: Any = ResponseStreamState(input_tools=omit, text_format=omit)
    for frame in frames:
        event: Any = construct_type(value=json.loads(sse.dumps(frame.data)), type_=ResponseStreamEvent)
        assert type(event).__name__ != "BaseModel", frame.data["type"]
        state.handle_event(event)
    return state._completed_response


def test_a_text_is_a_message_in_openais_order() -> None:
    tape = Tape()
    tape.began()
    tape.said("a")
    tape.said("b")
    tape.finished()
    tape.done()
    frames = tape.frames(Responses())
    opening = ["output_item.added", "content_part.added"]
    closing = ["output_text.done", "content_part.done", "output_item.done"]
    assert kinds(frames) == [
        *("created", "in_progress", *opening, "output_text.delta", "output_text.delta", *closing),
        "completed",
    ]
    assert [frame.event for frame in frames] == [frame.data["type"] for frame in frames]
    response = last(frames)
    assert (response["id"], response["model"], response["created_at"]) == (
        f"resp_{STREAM}",
        "chain",
        1795370813,
    )
    assert (response["status"], response["usage"]["total_tokens"]) == ("completed", 9)
    assert [frame.data["response"]["status"] for frame in frames[:2]] == ["queued", "in_progress"]
    assert by_client(frames).output_text == "ab"


def test_a_number_is_an_events_place_and_grows() -> None:
    tape = Tape()
    tape.began()
    tape.said("a")
    tape.done()
    frames = tape.frames(Responses())
    numbers = [frame.data["sequence_number"] for frame in frames]
    assert numbers == sorted(set(numbers))
    assert all(0 <= number < 2**53 for number in numbers)


def test_other_stages_are_reasoning_and_their_runs_apart() -> None:
    tape = Tape(("outline", "sections", "final"))
    for name, run in (("outline", 1), ("sections", 1), ("sections", 2), ("final", 1)):
        tape.began(name, run)
        tape.said(f"{name} {run}", name, run)
        tape.finished(name, run)
    tape.done()
    frames = tape.frames(Responses())
    items = last(frames)["output"]
    assert [item["type"] for item in items] == ["reasoning", "reasoning", "reasoning", "message"]
    said = [part["text"] for item in items[:3] for part in item["summary"]]
    assert said == ["outline 1", "sections 1", "sections 2"]
    assert [item["status"] for item in items] == ["completed"] * 4
    assert by_client(frames).output_text == "final 1"


def test_of_a_graph_the_node_that_has_said_something_last_is_the_answer() -> None:
    tape = Tape()
    projection = Responses()
    tape.began()
    for run, text in ((1, "let me see"), (2, "42"), (3, "")):
        tape.began("model", run, "answer")
        if text:
            tape.said(text, "model", run)
        tape.finished("model", run, "answer")
    tape.finished()
    tape.done()
    frames = tape.frames(projection)
    assert [item["type"] for item in last(frames)["output"]] == ["reasoning", "message"]
    assert by_client(frames).output_text == "42" == projection.fold.text
    assert len({item["id"] for item in last(frames)["output"]}) == 2


def test_nodes_that_speak_at_once_have_an_item_each() -> None:
    tape = Tape()
    tape.began()
    for run in (1, 2):
        tape.began("each", run, "answer")
    for delta, run in (("a", 1), ("x", 2), ("b", 1), ("y", 2)):
        tape.said(delta, "each", run)
    tape.failed()
    frames = tape.frames(Responses())
    texts = [item["content"][0]["text"] for item in last(frames)["output"]]
    assert texts == ["ab", "xy"]
    assert last(frames)["error"] == {"code": "model_error", "message": "The model's server failed."}


def test_a_tool_call_is_one_that_the_server_makes() -> None:
    tape = Tape()
    tape.began()
    tape.tool("started", {"of": [1, "é"]})
    tape.tool("finished", {"sum": 1})
    tape.tool("started", "text", "d")
    tape.tool("failed", "The tool failed.", "d")
    tape.tool("started", {}, "e")  # The client should run it, but cannot here.
    tape.finished()
    tape.done()
    frames = tape.frames(Responses())
    begun = [
        "output_item.added",
        "mcp_call.in_progress",
        "mcp_call_arguments.delta",
        "mcp_call_arguments.done",
    ]
    assert kinds(frames)[2:8] == [*begun, "mcp_call.completed", "output_item.done"]
    one, other, open_one = last(frames)["output"]
    assert (one["arguments"], one["output"], one["status"]) == ('{"of":[1,"é"]}', '{"sum":1}', "completed")
    assert (other["arguments"], other["output"], other["status"]) == ("text", None, "failed")
    assert other["error"]["content"] == [{"type": "text", "text": "The tool failed."}]
    assert (open_one["status"], open_one["server_label"], open_one["name"]) == ("incomplete", "answer", "sum")
    assert by_client(frames).output[0].output == '{"sum":1}'


def test_a_models_reasoning_is_said_and_other_custom_events_are_not() -> None:
    tape = Tape()
    tape.began()
    tape.thought("first ")
    tape.thought("this")
    tape.thought(7)
    tape.add(protocol.custom("reasoning", "words", stage="answer"))
    tape.add(protocol.custom("reasoning", {"delta": "x"}, stage="nobody's"))
    tape.add(protocol.custom("sources", {"documents": []}, stage="answer"))
    tape.said("a")
    tape.thought("then")
    tape.done()
    frames = tape.frames(Responses())
    items = last(frames)["output"]
    assert [item["type"] for item in items] == ["reasoning", "message", "reasoning"]
    assert [items[place]["summary"][0]["text"] for place in (0, 2)] == ["first this", "then"]
    assert by_client(frames).output_text == "a"


def test_after_a_reset_the_text_goes_on_in_a_new_item_and_the_response_has_only_that() -> None:
    tape = Tape(("outline", "answer"))
    tape.began("outline")
    tape.said("kept", "outline")
    tape.finished("outline")
    began = tape.began()
    tape.began("model", 1, "answer")
    tape.said("whole", "model", 1)
    tape.finished("model", 1, "answer")
    tape.began("model", 2, "answer")
    tape.said("void", "model", 2)
    tape.tool("started", {}, stage="model", run=2)
    tape.reset(began)
    tape.began("model", 1, "answer")
    tape.said("right", "model", 1)
    tape.finished("model", 1, "answer")
    tape.finished()
    tape.done()
    frames = tape.frames(Responses())
    ended = [frame.data for frame in frames if frame.data["type"] == "response.output_item.done"]
    assert [(one["output_index"], one["item"]["status"]) for one in ended] == [
        *((0, "completed"), (1, "completed"), (2, "incomplete"), (3, "incomplete"), (4, "completed")),
    ]
    assert [item["id"][-1] for item in last(frames)["output"]] == ["0", "4"]
    assert by_client(frames).output_text == output_text(last(frames)) == "right"


@pytest.mark.parametrize(
    ("end", "kind", "status"),
    [
        (Tape.failed, "response.failed", "failed"),
        (Tape.cancelled, "response.incomplete", "cancelled"),
    ],
)
def test_what_was_open_when_it_ended_early_is_incomplete(
    end: Callable[[Tape], str], kind: str, status: str
) -> None:
    tape = Tape()
    tape.began()
    tape.said("a")
    tape.tool("started", {})
    end(tape)
    frames = tape.frames(Responses())
    assert frames[-1].event == kind
    assert last(frames)["status"] == status
    assert [item["status"] for item in last(frames)["output"]] == ["incomplete", "incomplete"]
    assert output_text(last(frames)) == "a"
    by_client(frames)


@pytest.mark.parametrize(
    ("reason", "why"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_fault_102_an_answer_whose_model_was_stopped_is_incomplete(reason: str, why: str) -> None:
    tape = Tape()
    tape.began()
    tape.said("a")
    tape.finished()
    tape.done(reason)
    frames = tape.frames(Responses())
    assert frames[-1].event == "response.incomplete"
    assert (last(frames)["status"], last(frames)["incomplete_details"]) == ("incomplete", {"reason": why})
    assert output_text(last(frames)) == "a"
    by_client(frames)


def test_one_that_is_cancelled_before_it_runs_has_nothing() -> None:
    tape = Tape()
    tape.cancelled()
    assert kinds(tape.frames(Responses())) == ["created", "incomplete"]


def test_however_many_are_open_one_event_closes_them_in_its_bounds() -> None:
    tape, many = Tape(), 3 * MOST_OPEN
    began = tape.began()
    for run in range(1, many + 1):
        tape.began("each", run, "answer")
        tape.said("a", "each", run)
        tape.tool("started", {}, f"c{run}", "each", run)
    for run in range(1, many + 1):
        tape.said("b", "each", run)
    for run in range(1, many + 1):
        tape.tool("finished", "x", f"c{run}", "each", run)
    assert len(tape.frames(Responses())) > many
    tape.reset(began)
    for run in range(1, many + 1):
        tape.began("each", run, "answer")
        tape.said("c", "each", run)
    tape.done()
    frames = tape.frames(Responses())
    assert by_client(frames).output_text == "c"


def test_calls_that_are_left_to_the_client_are_its_to_run() -> None:
    tape = Tape()
    tape.began()
    tape.said("hm")
    tape.tool("started", {"q": "é"}, "mine")
    tape.tool("finished", "x", "mine")
    tape.tool("started", {"q": "é"}, "c1")
    tape.tool("started", "text", "c2")
    tape.finished()
    tape.done("tool_calls")
    frames = tape.frames(Responses())
    assert [item["type"] for item in last(frames)["output"]] == [
        "message",
        "mcp_call",
        *["function_call"] * 2,
    ]
    asked = [(item.call_id, item.name, item.arguments) for item in by_client(frames).output[2:]]
    assert asked == [("c1", "sum", '{"q":"é"}'), ("c2", "sum", '{"input":"text"}')]
    assert kinds(frames)[-9:-5] == [
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.done"),
        "output_item.done",
    ]
    *_, told, end, _ = chunks(tape.frames(Chat()))
    calls = told["choices"][0]["delta"]["tool_calls"]
    assert [(one["index"], one["id"], one["function"]["arguments"]) for one in calls] == [
        (number, call_id, arguments) for number, (call_id, _, arguments) in enumerate(asked)
    ]
    assert end["choices"][0]["finish_reason"] == "tool_calls"


def test_however_many_calls_are_left_to_the_client_one_event_tells_them() -> None:
    tape, many = Tape(), 100
    began = tape.began()
    tape.tool("started", {}, "void")
    tape.reset(began)
    for number in range(many):
        tape.tool("started", {}, f"c{number}")
    tape.finished()
    tape.done("tool_calls")
    frames = tape.frames(Responses())  # This also counts each event's frames.
    assert [item["call_id"] for item in last(frames)["output"]] == [f"c{number}" for number in range(many)]
    assert len({item["id"] for item in last(frames)["output"]}) == many
    assert len(by_client(frames).output) == many


def test_of_other_stages_and_nodes_no_call_is_the_clients() -> None:
    tape = Tape(("outline", "answer"))
    tape.began("outline")
    tape.tool("started", {}, "c1", "outline")
    tape.finished("outline")
    tape.began()
    tape.began("model", 1, "answer")
    tape.tool("started", {}, "c2", "model", 1)
    tape.done("tool_calls")
    assert {item["type"] for item in last(tape.frames(Responses()))["output"]} == {"mcp_call"}
    assert tape.frames(Chat())[-2].data["choices"][0]["finish_reason"] == "stop"


def chunks(frames: list[Frame]) -> list[Any]:
    return [frame.data for frame in frames]


def test_a_chat_says_the_last_stage_alone_and_its_nodes_too() -> None:
    tape = Tape(("outline", "answer"))
    tape.began("outline")
    tape.said("no", "outline")
    tape.tool("started", {}, stage="outline")
    tape.finished("outline")
    tape.began()
    tape.said("a")
    tape.began("model", 1, "answer")
    tape.said("b", "model", 1)
    tape.thought("no", "model", 1)
    tape.done("length")
    role, a, b, end, usage, mark = chunks(tape.frames(Chat(usage=True)))
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert [one["choices"][0]["delta"] for one in (a, b, end)] == [{"content": "a"}, {"content": "b"}, {}]
    assert end["choices"][0]["finish_reason"] == "length"
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    assert mark == b"[DONE]"
    assert {one["id"] for one in (role, a, usage)} == {f"chatcmpl-{STREAM}"}
    assert "usage" not in chunks(tape.frames(Chat()))[0]
    assert len(tape.frames(Chat())) == 5


@pytest.mark.parametrize("reason", ["tool_calls", "interrupted", "anything"])
def test_a_reason_that_is_the_chains_own_affair_is_told_as_stop(reason: str) -> None:
    tape = Tape()
    tape.done(reason)
    assert tape.frames(Chat())[-2].data["choices"][0]["finish_reason"] == "stop"


def test_a_chat_that_has_said_what_is_void_ends_with_an_error_and_nothing_follows() -> None:
    tape = Tape()
    began = tape.began()
    tape.said("void")
    tape.reset(began)
    tape.said("right")
    tape.done()
    frames = chunks(tape.frames(chat := Chat()))
    assert [list(one) for one in frames[2:]] == [["error"]]
    assert frames[-1]["error"]["code"] == "reset"
    assert chat.over


async def test_and_its_connection_ends_there_though_the_run_goes_on() -> None:
    tape, closed = Tape(), []
    began = tape.began()
    tape.said("void")
    tape.reset(began)

    async def live() -> AsyncGenerator[bytes, None]:
        length = 0
        try:
            for _, event in tape.events:
                yield sse.encode(event, length, "be0f")
                length += len(sse.encode(event, length, "be0f"))
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    frames = [frame async for frame in until_over(live(), Chat(), 15.0)]
    assert b'"code":"reset"' in frames[-1]
    assert closed


def test_a_chat_whose_void_text_was_never_sent_goes_on() -> None:
    tape = Tape(("outline", "answer"))
    began = tape.began("outline")
    tape.said("void", "outline")
    tape.reset(began, "outline")
    tape.finished("outline")
    began = tape.began()
    tape.reset(began)
    tape.said("right")
    tape.done()
    told = chunks(tape.frames(Chat()))
    assert [one["choices"][0]["delta"].get("content") for one in told[:-1]] == ["", "right", None]


def test_a_chat_asked_for_again_is_spared_what_is_known_to_be_void() -> None:
    tape = Tape(("outline", "answer"))
    tape.began("outline")
    tape.said("kept", "outline")
    began = tape.began()
    tape.said("void")
    tape.reset(began)
    tape.said("right")
    tape.done()
    tape.frames(void := Void())
    told = chunks(tape.frames(Chat(void=frozenset(void.void))))
    assert [one["choices"][0]["delta"].get("content") for one in told[:-1]] == ["", "right", None]


@pytest.mark.parametrize(("end", "code"), [(Tape.failed, "model_error"), (Tape.cancelled, "cancelled")])
def test_a_chat_that_ends_early_ends_with_an_error(end: Callable[[Tape], str], code: str) -> None:
    tape = Tape()
    end(tape)
    error = tape.frames(Chat())[-1].data["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code


OPS = st.lists(
    st.tuples(
        st.sampled_from(["say", "node", "leave", "think", "call", "answer", "reset"]), st.integers(1, 3)
    ),
    max_size=25,
)


def program(ops: list[tuple[str, int]], end: int) -> Tape:
    """Return a log as a worker might write it: stages in sequence, each with overlapping nodes."""
    tape = Tape(("outline", "answer"))
    half = len(ops) // 2
    for name, part in (("outline", ops[:half]), ("answer", ops[half:])):
        began, runs = tape.began(name), 0
        nodes: list[tuple[str, int]] = []
        for op, number in part:
            stage, run = nodes[number % len(nodes)] if nodes else (name, 0)
            match op:
                case "say":
                    tape.said(f"{stage}{run}{number}\n", stage, run)
                case "node":
                    runs += 1
                    nodes.append((name if number == 3 else "node", runs))
                    tape.began(*nodes[-1], name)
                case "leave" if nodes:
                    tape.finished(*nodes.pop(number % len(nodes)), name)
                case "think":
                    tape.thought("hm", stage, run)
                case "call":
                    tape.tool("started", {"n": number}, f"c{number}", stage, run)
                case "answer":
                    tape.tool("finished", number, f"c{number}", stage, run)
                case "reset":
                    nodes, runs = [], 0
                    tape.reset(began, name)
        if end == 3 and name == "outline":
            tape.failed()
            return tape
        tape.finished(name)
    (tape.done, tape.failed, tape.cancelled)[end % 3]()
    return tape


@settings(max_examples=100, deadline=None)
@given(OPS, st.integers(0, 3))
def test_whatever_happens_the_python_client_takes_it_and_its_text_is_the_status(
    ops: list[tuple[str, int]], end: int
) -> None:
    tape, projection = program(ops, end), Responses()
    frames = tape.frames(projection)
    response = by_client(frames)
    numbers = [frame.data["sequence_number"] for frame in frames]
    assert numbers == sorted(set(numbers))
    added = [frame.data["output_index"] for frame in frames if frame.event == "response.output_item.added"]
    assert added == list(range(len(added)))
    assert projection.document() == last(frames)
    if end == 0:
        assert response.output_text == output_text(last(frames)) == projection.fold.text
    voided = Void()
    tape.frames(voided)
    assert Cursor.parse(tape.events[-1][0]).offset > 0
    told = chunks(tape.frames(Chat(void=frozenset(voided.void))))
    assert not any(isinstance(one, dict) and one.get("error", {}).get("code") == "reset" for one in told)


async def test_whatever_happens_the_javascript_client_takes_it(tmp_path: Path) -> None:
    wanted, lines = [], []

    @settings(max_examples=40, deadline=None)
    @given(OPS, st.integers(0, 3))
    def collect(ops: list[tuple[str, int]], end: int) -> None:
        frames = program(ops, end).frames(Responses())
        lines.append(sse.dumps([frame.data for frame in frames]))
        wanted.append(output_text(last(frames)))

    collect()
    (tmp_path / "streams").write_bytes(b"\n".join(lines))
    [said] = await node("openai.mjs", "-", "-", json.dumps({"replay": {"file": str(tmp_path / "streams")}}))
    assert said == {"result": wanted}
