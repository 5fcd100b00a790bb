"""Questions that ask for permission to call a tool, and the results of the answers yes and no."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import protocol
from gateway.formats.ai_sdk.approvals import answers_in
from gateway.formats.ai_sdk.messages import parse_chat
from gateway.formats.ai_sdk.projection import AnsweredCall, UIMessageStream
from gateway.formats.base.approvals import Decision, answered_by, approvals_in, check_allowed
from gateway.formats.openai.approvals import decisions_in
from gateway.formats.openai.output import Responses
from gateway.protocol.errors import Invalid

STREAM = "9blrQMXkG8KbrlwH92Ggpd0w"
ONE, TWO = "a" * 32, "b" * 32
CALLS = [{"name": "send", "args": {"to": "Ann"}, "description": "?"}, {"name": "burn", "args": {}}]
BATCHED = {"id": ONE, "value": {"action_requests": CALLS, "review_configs": []}}
SINGLE = {"id": TWO, "value": {"type": "tool_approval", "tool_call_id": "c1", "name": "send", "args": {}}}
DOUBT = {"id": TWO, "value": {"reason": "tool_unknown", "tool": "pay", "call_id": "c", "input": {"x": 1}}}
FREE = {"id": TWO, "value": "Which one?"}


def decided(*answers: tuple[str, bool, str]) -> list[Decision]:
    return [Decision(f"at[{number}]", *answer) for number, answer in enumerate(answers)]


def ids(*questions: dict[str, Any]) -> list[str]:
    return [one.id(STREAM) for one in approvals_in(questions)]


def test_a_question_about_several_calls_is_answered_in_their_order() -> None:
    assert [(one.name, one.input) for one in approvals_in([BATCHED])] == [
        ("send", {"to": "Ann"}),
        ("burn", {}),
    ]
    first, second = ids(BATCHED)
    stream, answer = answered_by(decided((second, False, "too hot"), (first, True, "as you like")))
    wanted = [{"type": "approve"}, {"type": "reject", "message": "too hot"}]
    assert (stream, answer.responses) == (STREAM, {ONE: {"decisions": wanted}})


def test_a_question_about_one_call_and_one_about_a_doubt() -> None:
    for question, yes, no in (
        (SINGLE, {"type": "approve"}, {"type": "reject"}),
        (DOUBT, "retry", None),
    ):
        [name] = ids(question)
        assert answered_by(decided((name, True, "")))[1].responses == {TWO: yes}
        refused = answered_by(decided((name, False, "")))[1]
        assert refused.responses == {TWO: no}
        assert refused.cancelled == ({TWO} if no is None else set())


def test_several_questions_are_one_answer() -> None:
    given = decided(*((name, True, "") for name in ids(BATCHED, SINGLE)))
    assert set(answered_by(given)[1].responses) == {ONE, TWO}


@pytest.mark.parametrize(
    "question",
    [
        FREE,
        {"id": TWO, "value": {"action_requests": []}},
        {"id": TWO, "value": {"action_requests": [{"name": 1}]}},
        {"id": TWO, "value": {"type": "tool_approval", "name": None}},
        {"id": "with.a.dot", "value": SINGLE["value"]},
        {"id": TWO},
    ],
)
def test_beside_a_question_that_takes_no_yes_or_no_nothing_is_asked_leave_for(
    question: dict[str, Any],
) -> None:
    assert approvals_in([question]) == approvals_in([BATCHED, question]) == []
    assert approvals_in(None) == []


A, B = ids(BATCHED)
OTHER = approvals_in([BATCHED])[1].id("another")


@pytest.mark.parametrize(
    ("answers", "at"),
    [
        ([A], 0),
        ([A, B, A], 2),
        ([A, OTHER], 1),
        ([A, B, f"{STREAM}.{ONE}.call"], 2),
        ([f"{STREAM}.{ONE}.0-1"], 0),
        (["x"], 0),
        ([f"{STREAM}.{ONE}.1-99999"], 0),
    ],
)
def test_an_answer_is_whole_and_of_one_stream(answers: Sequence[str], at: int) -> None:
    with pytest.raises(Invalid) as refused:
        answered_by(decided(*((name, True, "") for name in answers)))
    assert refused.value.extensions["field"] == f"at[{at}]"


def test_a_decision_that_the_tool_does_not_take_is_refused_while_the_question_is_open() -> None:
    config = {"action_name": "burn", "allowed_decisions": ["approve", "edit"]}
    question = {"id": ONE, "value": {"action_requests": CALLS, "review_configs": [config]}}
    no = decided((A, False, ""), (B, False, ""))
    with pytest.raises(Invalid) as refused:
        check_allowed(STREAM, [question], no)
    assert refused.value.extensions["field"] == "at[1]"
    check_allowed(STREAM, None, no)
    check_allowed(STREAM, [question], decided((A, False, ""), (B, True, "")))


@given(st.lists(st.text(max_size=99) | st.sampled_from([A, B, OTHER, *ids(SINGLE), *ids(DOUBT)]), min_size=1))
def test_any_ids_are_an_answer_or_refused(names: list[str]) -> None:
    try:
        stream, answer = answered_by(decided(*((name, True, "") for name in names)))
    except Invalid:
        return
    assert (bool(stream), bool(answer.responses)) == (True, True)


def done(projection: Any, *questions: dict[str, Any]) -> list[Any]:
    """Return the frames that a client receives from a stream that ends with these questions."""
    projection.feed("0-be0f", protocol.start(STREAM, "c", ["c"], "2026-01-01T00:00:00Z"))
    how: Any = {"finish_reason": "interrupted", "usage": {}, "attempts": 1, "duration_ms": 1}
    event = protocol.done(**how, interrupts=questions)
    return [frame.data for frame in projection.feed("9-be0f", event)]


def test_the_ai_sdk_is_asked_only_where_its_version_knows_how() -> None:
    asked = [one for one in done(UIMessageStream(STREAM, approvals=True), BATCHED) if isinstance(one, dict)]
    kinds = [one["type"] for one in asked]
    assert kinds == ["tool-input-available", "tool-approval-request"] * 2 + ["finish"]
    assert [one["approvalId"] for one in asked if "approvalId" in one] == [A, B]
    assert {one.get("providerExecuted", True) for one in asked} == {True}  # No client runs the tool.
    for knows, questions in ((False, [BATCHED]), (True, [BATCHED, FREE])):
        frames = done(UIMessageStream(STREAM, approvals=knows), *questions)
        told = [one for one in frames if isinstance(one, dict)]
        assert [one["type"] for one in told] == ["finish"]
        assert told[0]["messageMetadata"]["interrupts"] == questions


def test_what_was_answered_is_settled_in_the_copy_before_it_is_void() -> None:
    settled = [AnsweredCall("yes", "send", True, {"to": "Ann"}), AnsweredCall("no", "burn", False)]
    stream = UIMessageStream(STREAM, again=True, settled=settled)
    frames = stream.feed("0-be0f", protocol.start(STREAM, "c", ["c"], "2026-01-01T00:00:00Z"))
    _, first, second, last = (frame.data for frame in frames)
    assert (first["type"], first["toolCallId"]) == ("tool-input-available", "yes")
    assert (first["providerExecuted"], first["input"]) == (True, {"to": "Ann"})
    assert second == {"type": "tool-output-denied", "toolCallId": "no"}
    assert last["type"] == "data-replay"


def part(name: str, state: str = "approval-responded", **approval: Any) -> dict[str, Any]:
    known = {"type": "dynamic-tool", "toolName": "send", "toolCallId": name, "input": {}, "state": state}
    return {**known, "approval": {"id": name, "approved": True, **approval}}


def chat(*parts: Any, role: str = "assistant") -> dict[str, Any]:
    return {"id": "c", "messages": [{"id": "m", "role": role, "parts": list(parts)}]}


def test_answers_are_those_of_the_last_message_that_stand() -> None:
    _, found = parse_chat(chat(part("old"), {"type": "data-replay", "data": {}}, part(A), part(B)), {"c": ()})
    assert [one.approval for one in found.decisions] == [A, B]  # type: ignore[union-attr]
    for messages in (
        *([], None, [1], [{"role": "assistant", "parts": 1}], [{"role": "assistant", "parts": [1]}]),
        chat(part(A), role="user")["messages"],
        chat(part(A, "approval-requested"))["messages"],
        [*chat(part(A))["messages"], {"role": "user", "parts": []}],
    ):
        assert answers_in(messages) is None


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        ({"approval": 1}, "approval"),
        ({"approval": {"approved": True}}, "approval.id"),
        ({"approval": {"id": A, "approved": 1}}, "approval.approved"),
        ({"approval": {"id": A, "approved": True, "reason": 1}}, "approval.reason"),
        ({"approval": {"id": A, "approved": True, "reason": "\ud83d"}}, "approval.reason"),
        ({"toolCallId": ""}, "toolCallId"),
        ({"toolName": 1}, "toolName"),
    ],
)
def test_an_answer_of_another_form_names_its_field(broken: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_chat(chat({**part(A), **broken}), {"c": ()})
    assert refused.value.extensions["field"] == f"messages[0].parts[0].{field}"


def test_a_page_says_whether_it_knows_approvals() -> None:
    asked = {"id": "c", "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "q"}]}]}
    _, start = parse_chat({**asked, "approvals": True}, {"chat": ("chat",)})
    assert start.metadata == {"chat": "c", "approvals": True}  # type: ignore[union-attr]
    with pytest.raises(Invalid):
        parse_chat({**asked, "approvals": 1}, {"chat": ("chat",)})


def test_openais_responses_have_an_item_for_each_call() -> None:
    told = Responses()
    done(told, BATCHED)
    document = told.document()
    assert document["status"] == "completed"
    assert [(one["type"], one["id"], one["arguments"]) for one in document["output"]] == [
        ("mcp_approval_request", f"mcpr_{A}", '{"to":"Ann"}'),
        ("mcp_approval_request", f"mcpr_{B}", "{}"),
    ]


YES = {"type": "mcp_approval_response", "approval_request_id": f"mcpr_{A}", "approve": True}
ASKED = {"type": "mcp_approval_request", "id": f"mcpr_{A}"}
SAID = {"role": "user", "content": "q"}


def test_openais_answers_end_the_input() -> None:
    for items, has_previous in (([YES], True), ([YES], False), ([SAID, ASKED, YES], False)):
        [one] = decisions_in(items, has_previous)
        assert (one.approval, one.is_approved) == (A, True)
    for history in ("q", None, [SAID], [1], [SAID, ASKED, YES, SAID]):
        assert decisions_in(history, False) == []


@pytest.mark.parametrize(
    ("items", "has_previous", "field"),
    [
        ([YES, SAID], True, "input[0]"),
        ([SAID, ASKED, YES], True, "input[1]"),
        ([ASKED, SAID, YES], False, "input[1]"),
        ([{**YES, "approve": "yes"}], False, "input[0].approve"),
        ([{**YES, "approval_request_id": A}], False, "input[0].approval_request_id"),
        ([{**YES, "reason": 1}], False, "input[0].reason"),
    ],
)
def test_what_is_no_answer_of_openais_names_its_field(items: Any, has_previous: bool, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        decisions_in(items, has_previous)
    assert refused.value.extensions["field"] == field
