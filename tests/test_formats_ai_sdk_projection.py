"""Events as the AI SDK's frames: after any cut, the client has the same valid parts as the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import protocol
from gateway.formats.ai_sdk.projection import UIMessageStream
from gateway.formats.ai_sdk.standing import standing
from gateway.protocol import Event, EventType, sse
from gateway.protocol.fold import Fold
from tests.support.ai_sdk import Opens

pytest_plugins = ("tests.support.ai_sdk",)

TAG = "be0f"
KNOWN = {  # All three versions know these frame types.
    *("start", "start-step", "finish-step", "finish", "abort", "error", "message-metadata"),
    *("text-start", "text-delta", "text-end", "reasoning-start", "reasoning-delta", "reasoning-end"),
    *("tool-input-available", "tool-output-available", "tool-output-error"),
    *("data-stage", "data-custom", "data-reset", "data-replay"),
}


KEPT = ("text", "reasoning", "dynamic-tool", "data-custom")


class Log:
    """A stream's log that a test builds: a list of event ids and events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Event]] = []
        self._end = 0
        self.add(protocol.start("id", "g", ["g"], "now"))

    def add(self, event: Event) -> str:
        """Add an event and return its id."""
        frame = sse.encode(event, self._end, TAG)
        self.events.append((f"{self._end}-{TAG}", event))
        self._end += len(frame)
        return self.events[-1][0]

    def stage(self, name: str, run: int = 1, *, ends: bool = False) -> str:
        return self.add(protocol.stage(name, run=run, index=0, count=1, finished=ends))

    def node(self, name: str, run: int = 1, *, ends: bool = False) -> str:
        return self.add(protocol.node(name, run=run, index=0, count=2, parent="g", step=1, finished=ends))

    def text(self, delta: str, stage: str, run: int = 0) -> str:
        return self.add(protocol.text(delta, deployment="d", stage=stage, run=run))

    def thought(self, delta: str, stage: str, run: int = 0) -> str:
        return self.add(protocol.custom("reasoning", {"delta": delta}, stage=stage, run=run))

    def tool(self, call_id: str, state: str, said: Any, stage: str = "a") -> str:
        return self.add(protocol.tool("t", call_id=call_id, stage=stage, state=state, said=said, run=1))

    def reset(self, after: str) -> str:
        return self.add(
            protocol.reset(attempt=2, stage_name="g", discard_after=after, reason="attempt_differs")
        )

    def done(self, reason: str = "stop", **more: Any) -> str:
        return self.add(protocol.done(finish_reason=reason, usage={}, attempts=2, duration_ms=1, **more))

    def fold(self) -> Fold:
        fold = Fold()
        for event_id, event in self.events:
            fold.feed(event_id, event)
        return fold

    def texts(self) -> list[tuple[str, int, str]]:
        """Return the text of each run that has valid text."""
        return sorted((stage.name, stage.run, stage.text) for stage in self.fold().stages if stage.text)


def frames(log: Log, *, again: bool = False) -> list[bytes]:
    projection = UIMessageStream("id", again=again)
    return [frame.encode() for event in log.events for frame in projection.feed(*event)]


def chunks(log: Log, *, again: bool = False) -> list[dict[str, Any]]:
    """Return the frames as JSON, without transient frames and without the final `[DONE]`."""
    made = [frame.removeprefix(b"data: ").rstrip(b"\n") for frame in frames(log, again=again)]
    loaded = [orjson.loads(one) for one in made if one != b"[DONE]"]
    return [one for one in loaded if not one.get("transient")]


def kinds(log: Log) -> list[str]:
    return [chunk["type"] for chunk in chunks(log)]


class Reader:
    """A reader with the rules common to all clients. A frame that is fatal to one client fails here."""

    def __init__(self) -> None:
        self.parts: list[dict[str, Any]] = []
        self._open: dict[tuple[str, str], dict[str, Any]] = {}
        self._steps = 0

    def feed(self, chunk: dict[str, Any]) -> None:
        kind, _, verb = chunk["type"].partition("-")
        assert chunk["type"] in KNOWN
        if chunk["type"].startswith("data-"):
            self.parts.append(chunk)
        elif chunk["type"] == "tool-input-available":
            assert chunk["toolCallId"] not in [part.get("toolCallId") for part in self.parts]
            self.parts.append(chunk | {"type": "dynamic-tool"})
        elif kind == "tool":
            [call] = [part for part in self.parts if part.get("toolCallId") == chunk["toolCallId"]]
            call |= {"state": verb, "output": chunk.get("output", chunk.get("errorText"))}
        elif kind in ("text", "reasoning"):
            self._say(kind, verb, chunk)
        elif verb == "step":
            self._steps += 1 if kind == "start" else -1
            assert self._steps in (0, 1)
            assert not self._open
        elif kind in ("finish", "abort", "error"):
            assert not self._open
            assert self._steps == 0

    def _say(self, kind: str, verb: str, chunk: dict[str, Any]) -> None:
        key = (kind, chunk["id"])
        if verb == "start":
            assert key not in self._open
            self._open[key] = {**chunk, "type": kind, "text": ""}
            self.parts.append(self._open[key])
        elif verb == "delta":
            self._open[key]["text"] += chunk["delta"]
        else:
            del self._open[key]


def read(log: Log, *, again: bool = False) -> list[dict[str, Any]]:
    """Return all parts that a client of this log has."""
    reader = Reader()
    for chunk in chunks(log, again=again):
        reader.feed(chunk)
    return reader.parts


def seen(made: Sequence[bytes]) -> list[tuple[str, int, str]]:
    """Return the text that a client has after these frames."""
    reader = Reader()
    for frame in made:
        chunk = orjson.loads(frame.removeprefix(b"data: "))
        if not chunk.get("transient"):
            reader.feed(chunk)
    return texts(reader.parts)


def texts(parts: Sequence[dict[str, Any]]) -> list[tuple[str, int, str]]:
    """Return the text of each run, from the parts that are still valid."""
    said: dict[tuple[str, int], str] = {}
    for part in standing(list(parts)):
        if part["type"] == "text":
            of = part["providerMetadata"]["holdfast"]
            assert (of["stage"], of["run"]) not in said, "one run, one part"
            said[of["stage"], of["run"]] = part["text"]
    return sorted((*of, text) for of, text in said.items())


def eventful() -> Log:
    """Return a log with every kind of event: a stage, then a graph whose first attempt is void."""
    log = Log()
    log.stage("before")
    log.text("o1", "before")
    log.text("o2", "before")
    log.stage("before", ends=True)
    begun = log.stage("g")
    log.node("a")
    log.node("b")
    log.text("a1", "a", 1)
    log.text("b1", "b", 1)
    log.thought("hm", "a", 1)
    log.tool("c1", "started", {"x": 1})
    log.add(protocol.custom("chart", [1], stage="a", run=1))
    log.reset(begun)
    log.node("a")
    log.thought("so ", "a", 1)
    log.thought("then", "a", 1)
    log.text("A", "a", 1)
    log.node("b")
    log.text("B", "b", 1)
    log.tool("c1", "started", {"x": 2})  # The same id again.
    log.tool("c7", "finished", "four")  # A new id: a third attempt has matched the log.
    log.tool("", "started", None)
    log.tool("", "failed", "The tool failed.")
    log.add(protocol.custom("chart", [2], stage="a", run=1))
    log.text("A2", "a", 1)
    log.node("a", ends=True)
    log.node("b", ends=True)
    log.text("whole", "g")
    log.stage("g", ends=True)
    log.done("length", interrupts=[{"id": "i"}])
    return log


def test_a_chain_of_one_stage_is_one_text_part() -> None:
    log = Log()
    log.stage("chat")
    log.text("a", "chat")
    log.text("b", "chat")
    log.stage("chat", ends=True)
    log.done()
    made = chunks(log)
    assert made[0] == {
        "type": "start",
        "messageId": "id",
        "messageMetadata": {"chain": "g", "created_at": "now"},
    }
    part = made[2]["id"]
    assert made[1:6] == [
        {"type": "start-step"},
        {
            "type": "text-start",
            "id": part,
            "providerMetadata": {"holdfast": {"part": part, "stage": "chat", "run": 1}},
        },
        {"type": "text-delta", "id": part, "delta": "a"},
        {"type": "text-delta", "id": part, "delta": "b"},
        {"type": "text-end", "id": part},
    ]
    assert made[6] == {"type": "finish-step"}
    known = {"finish_reason": "stop", "usage": {}, "attempts": 2, "duration_ms": 1}
    assert made[7:] == [
        {"type": "finish", "finishReason": "stop", "messageMetadata": {"status": "done", **known}}
    ]
    assert frames(log)[-1] == b"data: [DONE]\n\n"


def test_stages_are_told_as_they_come_and_not_kept() -> None:
    log = Log()
    log.stage("g")
    log.node("a")
    told = [orjson.loads(frame.removeprefix(b"data: ")) for frame in frames(log)]
    assert [one["data"]["name"] for one in told if one["type"] == "data-stage"] == ["g", "a"]
    assert all(one["transient"] for one in told if one["type"] == "data-stage")


def test_what_happens_to_a_run_that_begins_anew() -> None:
    parts = read(eventful())
    stand = standing(parts)
    assert texts(parts) == [("a", 1, "AA2"), ("b", 1, "B"), ("before", 1, "o1o2"), ("g", 1, "whole")]
    [void] = [part["data"] for part in parts if part["type"] == "data-reset"]
    assert (void["stage"], void["attempt"], void["reason"]) == ("g", 2, "attempt_differs")
    names = [
        part.get("toolCallId") or part.get("id") or part["data"]["part"]
        for part in parts
        if part["type"] != "data-reset"
    ]
    assert len(void["parts"]) == 5  # Two texts, a thought, a call, a chart.
    assert set(void["parts"]) < set(names)
    assert len(set(names)) == len(names)
    assert [part["text"] for part in stand if part["type"] == "reasoning"] == ["so then"]


def test_a_call_is_known_by_one_name_whoever_ends_it() -> None:
    calls = [part for part in read(eventful()) if part["type"] == "dynamic-tool"]
    assert [(call["input"], call.get("state"), call.get("output")) for call in calls] == [
        ({"x": 1}, None, None),
        ({"x": 2}, "output-available", "four"),
        (None, "output-error", "The tool failed."),
    ]
    assert calls[0]["toolCallId"] == "c1"
    assert all(call["dynamic"] and call["providerExecuted"] for call in calls)


def test_a_call_that_ends_without_a_beginning_is_shown_whole() -> None:
    log = Log()
    log.stage("a")
    log.tool("c1", "failed", {"odd": 1})
    [call] = read(log)
    assert (call["toolCallId"], call["input"], call["output"]) == ("c1", None, "The tool failed.")


def test_of_two_calls_the_one_that_is_named_ends() -> None:
    log = Log()
    log.stage("a")
    log.tool("c1", "started", 1)
    log.tool("c2", "started", 2)
    log.tool("c2", "finished", "b")
    log.tool("c1", "finished", "a")
    assert [(call["input"], call["output"]) for call in read(log)] == [(1, "a"), (2, "b")]


def test_a_chains_own_events_are_parts_whatever_they_are_named() -> None:
    log = Log()
    log.stage("g")
    for name in ("reset", "replay", "reasoning"):
        log.add(protocol.custom(name, {"delta": 1, "parts": []}, stage="g"))
    parts = read(log)
    assert [part["type"] for part in parts] == ["data-custom"] * 3
    assert [part["data"]["name"] for part in parts] == ["reset", "replay", "reasoning"]
    assert "id" not in parts[0]


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        *(("stop", "stop"), ("STOP", "stop"), ("length", "length"), ("max_tokens", "length")),
        *(("content_filter", "content-filter"), ("tool_calls", "tool-calls")),
        *(("interrupted", "other"), ("", "other"), ("é", "other")),
    ],
)
def test_a_reason_is_one_that_every_version_knows(reason: str, told: str) -> None:
    log = Log()
    log.done(reason)
    assert chunks(log)[-1]["finishReason"] == told
    assert chunks(log)[-1]["messageMetadata"]["finish_reason"] == reason


def test_a_failure_and_a_cancellation_close_what_is_open() -> None:
    log = Log()
    log.stage("g")
    log.text("a", "g")
    beginning = kinds(log)
    log.add(protocol.failed("model_error", "The model failed.", retryable=False))
    error = {"code": "model_error", "message": "The model failed.", "retryable": False}
    assert chunks(log)[len(beginning) :] == [
        {"type": "text-end", "id": chunks(log)[3]["id"]},
        {"type": "finish-step"},
        {"type": "message-metadata", "messageMetadata": {"status": "failed", "error": error}},
        {"type": "error", "errorText": "The model failed."},
        {"type": "finish", "finishReason": "error"},
    ]
    log.events[-1] = (log.events[-1][0], Event(EventType.CANCELLED, {}))
    assert kinds(log)[len(beginning) :] == ["text-end", "finish-step", "message-metadata", "abort", "finish"]
    assert chunks(log)[-3]["messageMetadata"] == {"status": "cancelled"}
    assert frames(log)[-1] == b"data: [DONE]\n\n"


def test_a_stream_that_never_began_to_run_is_a_message_too() -> None:
    log = Log()
    log.add(Event(EventType.CANCELLED, {}))
    assert kinds(log) == ["start", "message-metadata", "abort", "finish"]


def test_a_replay_is_the_same_behind_a_word_that_it_is_one() -> None:
    first, second, *rest = chunks(eventful(), again=True)
    assert second == {"type": "data-replay", "data": {}}
    assert [first, *rest] == chunks(eventful())


class Life:
    """A log made from random numbers. Each number selects one of the events that may come next."""

    def __init__(self, choices: Sequence[tuple[int, int]]) -> None:
        self.log = Log()
        self.begun = ""  # The stage that runs.
        self.stages = self.runs = 0
        self.nodes: list[tuple[str, int]] = []
        for choice, which in choices:
            may = [self.say, self.think, self.call, self.enter, self.end, self.again]
            may = [*may, self.leave] if self.nodes else may
            (may[choice % len(may)] if self.begun else self.begin)(which)
        self.log.done()

    def begin(self, which: int) -> None:
        self.stages += 1
        self.begun = self.log.stage("g", self.stages)

    def end(self, which: int) -> None:
        while self.nodes:
            self.leave(0)
        self.log.stage("g", self.stages, ends=True)
        self.begun = ""

    def again(self, which: int) -> None:
        self.log.reset(self.begun)
        self.nodes.clear()

    def enter(self, which: int) -> None:
        self.runs += 1
        self.nodes.append(("ab"[which % 2], self.runs))
        self.log.node(*self.nodes[-1])

    def leave(self, which: int) -> None:
        self.log.node(*self.nodes.pop(which % len(self.nodes)), ends=True)

    def say(self, which: int) -> None:
        self.log.text(f"{which} ", *self._speaker(which))

    def think(self, which: int) -> None:
        self.log.thought(f"{which} ", *self._speaker(which))

    def call(self, which: int) -> None:
        state = ("started", "finished", "failed")[which % 3]
        self.log.tool(f"c{which % 2}", state, "x", self._speaker(which)[0])

    def _speaker(self, which: int) -> tuple[str, int]:
        return self.nodes[which % len(self.nodes)] if self.nodes else ("g", 0)


@given(st.lists(st.tuples(st.integers(0, 13), st.integers(0, 5)), max_size=60))
def test_whatever_happens_what_stands_in_the_client_is_what_stands_in_the_log(
    choices: list[tuple[int, int]],
) -> None:
    log = Life(choices).log
    parts = read(log)
    assert texts(parts) == log.texts()
    assert standing(parts + read(log, again=True)) == standing(parts)  # Version 5 does this after a cut.


@pytest.mark.parametrize(
    ("words", "step"), [("network error", 2), ("terminated", 8)], ids=["browser", "node"]
)
@pytest.mark.asyncio(loop_scope="session")
async def test_every_version_has_what_stands_wherever_it_was_cut(
    opens: Opens, version: int, words: str, step: int
) -> None:
    """In a browser, version 5 continues with the parts that it had."""
    log = eventful()
    first, again = frames(log), frames(log, again=True)
    for at in range(1, len(first) - 3, step):  # A later cut comes after the end.
        beginning, more = first[:at], again[: len(first) - 2 - at]
        chat = await opens(
            "http://nowhere",
            version,
            answers=[
                {"text": b"".join(beginning).decode(), "cut": words},
                {"text": b"".join(more).decode(), "cut": words},
                {"text": b"".join(again).decode()},
            ],
        )
        told = await chat.does("send", text="q")
        assert (told["error"], texts(told["parts"])) == (words, seen(beginning))
        told = await chat.does("resume")
        assert (told["error"], texts(told["parts"])) == (words, seen(more))
        told = await chat.does("resume")
        assert (told["status"], told["error"], len(told["messages"])) == ("ready", None, 2)
        message = told["messages"][1]
        assert (message["id"], message["metadata"]["finish_reason"]) == ("id", "length")
        assert texts(message["parts"]) == texts(told["parts"]) == log.texts()
        parts = {kind: [part for part in told["parts"] if part["type"] == kind] for kind in KEPT}
        calls = [(call["input"], call["state"]) for call in parts["dynamic-tool"]]
        assert calls == [({"x": 2}, "output-available"), (None, "output-error")]
        assert [part["data"]["data"] for part in parts["data-custom"]] == [[2]]
        assert [part["text"] for part in parts["reasoning"]] == ["so then"]
        assert {part["state"] for part in parts["text"]} == {"done"}
