"""AG-UI's projection alone: when each part ends, and what remains after a reset."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.formats.agui.projection import RunEvents
from gateway.protocol import Event, EventType
from tests.support.agui import checked

ASKED = {"id": "u", "role": "user", "content": "q"}
KEPT = {"thread": "t", "run": "r", "messages": [ASKED]}
START = (EventType.START, {"id": "s", "chain": "c", "stages": ["first", "last"], "created_at": "now"})
DONE = (EventType.DONE, {"finish_reason": "stop", "usage": {}})


def staged(name: str, state: str = "started", run: int = 1, **more: Any) -> tuple[EventType, dict[str, Any]]:
    return EventType.STAGE, {"name": name, "run": run, "index": 0, "count": 1, "state": state, **more}


def text(stage: str, delta: str, **more: Any) -> tuple[EventType, dict[str, Any]]:
    return EventType.MESSAGE, {"stage": stage, "delta_content": delta, **more}


def tool(stage: str, call_id: str, state: str = "started", **more: Any) -> tuple[EventType, dict[str, Any]]:
    told: dict[str, Any] = {"input": {}} if state == "started" else {"output": "seen"}
    return EventType.TOOL, {
        "stage": stage,
        "name": "look",
        "call_id": call_id,
        "state": state,
        **told,
        **more,
    }


def fed(*events: tuple[EventType, dict[str, Any]], kept: Any = KEPT) -> list[dict[str, Any]]:
    """Return the AG-UI events for a run with these events.

    `discard_after` is given as the number of an event.
    """
    projection = copy.deepcopy(RunEvents("s", kept))  # The shared projection begins as a copy, too.
    told: list[dict[str, Any]] = []
    for number, (kind, data) in enumerate(events):
        if kind is EventType.RESET:
            data = {**data, "discard_after": f"{data['discard_after'] * 10}-aaaa"}
        told += [frame.data for frame in projection.feed(f"{number * 10}-aaaa", Event(kind, data))]
    return told


def test_text_behind_a_tool_is_another_message() -> None:
    told = fed(
        START,
        staged("last"),
        text("last", "a"),
        tool("last", "c"),
        tool("last", "c", "finished"),
        text("last", "b"),
        staged("last", "finished"),
        DONE,
    )
    kinds = checked(told)
    assert kinds.index("TEXT_MESSAGE_END") < kinds.index("TOOL_CALL_START")
    begun = [event["messageId"] for event in told if event["type"] == "TEXT_MESSAGE_START"]
    assert len(set(begun)) == 2
    [call] = [event for event in told if event["type"] == "TOOL_CALL_START"]
    assert call["parentMessageId"] == begun[0]


def test_two_calls_of_one_number_are_two_to_the_client() -> None:
    calls = [tool("last", "c"), tool("last", "c", "finished")]
    told = fed(START, staged("last"), *calls, *calls, staged("last", "finished"), DONE)
    checked(told)
    begun = [event["toolCallId"] for event in told if event["type"] == "TOOL_CALL_START"]
    ended = [event["toolCallId"] for event in told if event["type"] == "TOOL_CALL_RESULT"]
    assert len(set(begun)) == 2
    assert begun == ended


def test_a_reset_leaves_what_stood_before_the_stage() -> None:
    told = fed(
        START,
        staged("first"),
        text("first", "kept"),
        staged("first", "finished"),
        staged("last"),
        staged("node", parent="last"),
        text("node", "void", run=1),
        tool("node", "c", run=1),
        (EventType.CUSTOM, {"name": "state", "stage": "last", "data": {"a": 1}}),
        (EventType.NESTED, {"within": "c", "stage": "last", "delta": "below"}),
        (EventType.RESET, {"stage": "last", "attempt": 2, "reason": "attempt_differs", "discard_after": 4}),
        text("last", "new"),
        staged("last", "finished"),
        DONE,
    )
    checked(told)
    *_, snapshot = [event for event in told if event["type"] == "MESSAGES_SNAPSHOT"]
    assert [(one["role"], one["content"]) for one in snapshot["messages"]] == [
        ("user", "q"),
        ("reasoning", "kept"),
    ]
    *_, state = [event for event in told if event["type"] == "STATE_SNAPSHOT"]
    assert state["snapshot"] == {}
    said = {event["messageId"]: event["delta"] for event in told if event["type"] == "TEXT_MESSAGE_CONTENT"}
    assert list(said.values()) == ["void", "below", "new"]


def test_a_breakpoint_is_an_interrupt_too() -> None:
    told = fed(START, staged("last"), (EventType.DONE, {"finish_reason": "interrupted", "next": ["x"]}))
    checked(told)
    [interrupt] = told[-1]["outcome"]["interrupts"]
    assert (interrupt["id"], interrupt["metadata"]) == ("breakpoint", {"next": ["x"]})


def test_whatever_is_cut_short_is_whole() -> None:
    open_ones = [staged("last"), staged("last", run=2), text("last", "a", run=2), tool("last", "c")]
    for end in (
        (EventType.FAILED, {"code": "x", "message": "m", "retryable": True}),
        (EventType.CANCELLED, {}),
        DONE,
    ):
        told = fed(START, *open_ones, end)
        kinds = checked(told)
        assert kinds.count("STEP_STARTED") == kinds.count("STEP_FINISHED") == 2


NAMES, CALLS = st.sampled_from(["first", "last", "node"]), st.sampled_from(["c", "d"])


def _events() -> Iterator[st.SearchStrategy[Any]]:
    parents = st.sampled_from([{}, {"parent": "last"}])
    states, runs = st.sampled_from(["started", "finished"]), st.integers(1, 2)
    yield st.builds(lambda n, s, r, p: staged(n, s, r, **p), NAMES, states, runs, parents)
    asides = st.sampled_from([{}, {"aside": "on_the_way"}, {"aside": "hand_over"}])
    yield st.builds(lambda n, r, more: text(n, "x", run=r, **more), NAMES, runs, asides)
    withins = st.sampled_from([{}, {"within": "c"}, {"within": "d"}])
    ends = st.sampled_from(["started", "finished", "failed"])
    yield st.builds(lambda n, c, s, more: tool(n, c, s, **more), NAMES, CALLS, ends, withins)
    said = st.sampled_from([{"delta": "x"}, {"reasoning": "y"}])
    yield st.builds(lambda c, one: (EventType.NESTED, {"within": c, "stage": "last", **one}), CALLS, said)
    customs = st.sampled_from(["reasoning", "state", "result", "other"])
    yield st.builds(
        lambda n, name: (EventType.CUSTOM, {"name": name, "stage": n, "data": {"delta": "z"}}), NAMES, customs
    )
    void = {"stage": "last", "attempt": 2, "reason": "retried"}
    yield st.builds(lambda at: (EventType.RESET, {**void, "discard_after": at}), st.integers(0, 5))


@given(st.lists(st.one_of(*_events()), max_size=20))
def test_any_log_is_a_right_run(events: list[Any]) -> None:
    told = fed(START, *events, DONE)
    checked(told)
    ids = [
        event["messageId"] for event in told if event["type"] in ("TEXT_MESSAGE_START", "TOOL_CALL_RESULT")
    ]
    assert len(set(ids)) == len(ids)
