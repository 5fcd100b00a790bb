"""Conversations with the client's own tools, in each form of `messages`: which are accepted or refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage, convert_to_messages

from gateway.formats.openai import chat as openai_chat
from gateway.protocol.errors import Invalid
from gateway.settings import Settings
from gateway.streams.input_schemas import Inputs
from gateway.streams.messages import ARGUMENTS, MOST_ID, MOST_NAME, UNASKED, call, conversation, with_answers
from gateway.streams.service import Gateway
from gateway.streams.start import DEFAULT, Bounds, parse_start
from workers.chains.asked import ASKED, question

CHAINS = {"chat": ("chat",)}
UNOPENED = Gateway(Settings(), CHAINS)
HI = {"role": "user", "content": "hi"}
CALL = call("c1", "look", '{"q": [1, "é"]}')
CALLING = {"role": "assistant", "content": "let me see", "tool_calls": [CALL]}
ANSWER = {"role": "tool", "content": "sunny", "tool_call_id": "c1"}


def start(*messages: Any, bounds: Bounds = DEFAULT) -> list[dict[str, Any]]:
    """Return the messages that a chain receives from a `POST /stream`."""
    told: list[dict[str, Any]] = parse_start({"messages": list(messages)}, CHAINS, bounds).input["messages"]
    return told


def chat(*messages: Any) -> list[dict[str, Any]]:
    """Return the messages that a chain receives from a request of OpenAI's chat completions."""
    asked = openai_chat.parse({"model": "chat", "messages": list(messages)}, UNOPENED)
    told: list[dict[str, Any]] = asked.start.input["messages"]
    return told


FORMS = pytest.mark.parametrize("asked", [start, chat])


@FORMS
def test_a_tools_answer_reaches_langchain_as_its_own_messages(asked: Callable[..., Any]) -> None:
    told = asked(HI, CALLING, ANSWER)
    assert told == [HI, CALLING, ANSWER]
    made = convert_to_messages(told)
    calls = [{"name": "look", "args": {"q": [1, "é"]}, "id": "c1", "type": "tool_call"}]
    assert made == [
        HumanMessage("hi"),
        AIMessage("let me see", tool_calls=calls),
        ToolMessage("sunny", tool_call_id="c1"),
    ]


@FORMS
@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": ""}])
def test_a_message_with_calls_needs_no_content(asked: Callable[..., Any], content: Any) -> None:
    told = asked(HI, {"role": "assistant", "tool_calls": [CALL], **content}, ANSWER)
    assert told[1] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    convert_to_messages(told)


def test_that_a_tool_has_failed_is_told_and_its_name() -> None:
    [*_, made] = convert_to_messages(start(HI, CALLING, {**ANSWER, "status": "error", "name": "look"}))
    assert made == ToolMessage("sunny", tool_call_id="c1", status="error", name="look")


@FORMS
def test_an_answer_may_have_content_parts_and_come_after_other_answers(asked: Callable[..., Any]) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    two = {**CALLING, "tool_calls": [CALL, call("c2", "look", "{}")]}
    told = asked(HI, two, {**ANSWER, "tool_call_id": "c2"}, {**ANSWER, "content": parts}, HI)
    assert [one.get("tool_call_id") for one in told] == [None, None, "c2", "c1", None]


def test_the_shipped_chains_take_it_and_answer_the_question() -> None:
    inputs = Inputs({"chat": ASKED})
    inputs.check(parse_start({"messages": [HI, CALLING, ANSWER]}, CHAINS))
    assert question([HI, CALLING, ANSWER]) == "hi"
    with pytest.raises(Invalid):
        inputs.check(parse_start({"input": [{**HI, "role": "odd"}]}, CHAINS))


def with_call(**changed: Any) -> dict[str, Any]:
    return {**CALLING, "tool_calls": [{**CALL, **changed}]}


def with_arguments(arguments: Any) -> dict[str, Any]:
    return with_call(function={"name": "look", "arguments": arguments})


REFUSED: dict[str, tuple[list[Any], str, str]] = {
    "an answer to nothing": ([ANSWER], "[0].tool_call_id", UNASKED),
    "an answer to another call": ([CALLING, {**ANSWER, "tool_call_id": "c2"}], "[1].tool_call_id", UNASKED),
    "an answer before its call": ([ANSWER, CALLING], "[0].tool_call_id", UNASKED),
    "no id": ([CALLING, {"role": "tool", "content": "x"}], "[1].tool_call_id", "must be a string"),
    "an id of another type": (
        [CALLING, {**ANSWER, "tool_call_id": 1}],
        "[1].tool_call_id",
        "must be a string",
    ),
    "half a character": ([CALLING, {**ANSWER, "content": "\ud800"}], "[1].content", "half a surrogate"),
    "no content": ([CALLING, {"role": "tool", "tool_call_id": "c1"}], "[1]", "role and content"),
    "an image of a bad address": (
        [CALLING, {**ANSWER, "content": [{"type": "image_url", "image_url": {"url": "file:///x"}}]}],
        "[1].content[0].image_url.url",
        "https",
    ),
    "an odd status": ([CALLING, {**ANSWER, "status": "x"}], "[1].status", "success, error"),
    "an empty name": ([CALLING, {**ANSWER, "name": ""}], "[1].name", f"1 to {MOST_NAME}"),
    "another field": ([CALLING, {**ANSWER, "artifact": 1}], "[1]", "nothing else"),
    "calls of a user": ([{**CALLING, "role": "user"}], "[0]", "nothing else"),
    "calls that are none": ([{**CALLING, "tool_calls": []}], "[0].tool_calls", "not empty"),
    "calls of another type": ([{**CALLING, "tool_calls": {}}], "[0].tool_calls", "not empty"),
    "no calls and no content": ([{"role": "assistant", "content": None}], "[0].content", "must be a string"),
    "a call that is none": ([{**CALLING, "tool_calls": [CALL, 1]}], "[0].tool_calls", "[1] is none"),
    "a call of more": ([with_call(index=0)], "[0].tool_calls", "nothing else"),
    "a call of another kind": ([with_call(type="custom")], "[0].tool_calls[0].type", "function"),
    "a long id": ([with_call(id="x" * (MOST_ID + 1))], "[0].tool_calls[0].id", f"1 to {MOST_ID}"),
    "no name": (
        [with_call(function={"arguments": "{}"})],
        "[0].tool_calls[0].function",
        "name and arguments",
    ),
    "a name that is none": (
        [with_call(function={"name": None, "arguments": "{}"})],
        "[0].tool_calls[0].function.name",
        "must be a string",
    ),
    "arguments as an object": ([with_arguments({})], "[0].tool_calls[0].function.arguments", ARGUMENTS),
    "arguments that are cut": ([with_arguments('{"q":')], "[0].tool_calls[0].function.arguments", ARGUMENTS),
    "arguments as a list": ([with_arguments("[]")], "[0].tool_calls[0].function.arguments", ARGUMENTS),
    "arguments with NaN": ([with_arguments('{"q": NaN}')], "[0].tool_calls[0].function.arguments", ARGUMENTS),
    "deep arguments": (
        [with_arguments('{"q":' + "[" * 40 + "]" * 40 + "}")],
        "[0].tool_calls[0].function.arguments",
        "may be nested",
    ),
    "very deep arguments": (
        [with_arguments('{"q":' + "[" * 100_000 + "]" * 100_000 + "}")],
        "[0].tool_calls[0].function.arguments",
        "may be nested",
    ),
    "half a character, spelled": (
        [with_arguments('{"q": "\\ud800"}')],
        "[0].tool_calls[0].function.arguments",
        "half a surrogate",
    ),
}


@pytest.mark.parametrize(("messages", "field", "rule"), REFUSED.values(), ids=REFUSED)
def test_what_no_model_could_be_sent_is_refused_by_its_field(
    messages: list[Any], field: str, rule: str
) -> None:
    with pytest.raises(Invalid) as refused:
        start(*messages)
    assert refused.value.extensions["field"] == f"messages{field}"
    assert rule in refused.value.extensions["rule"]


def test_calls_and_answers_count_as_messages_do() -> None:
    bounds = Bounds(bytes=10_000, depth=8, items=100, messages=3, name=50)
    start(HI, CALLING, ANSWER, bounds=bounds)
    with pytest.raises(Invalid, match="messages: must be at most 3"):
        start(HI, CALLING, ANSWER, HI, bounds=bounds)
    with pytest.raises(Invalid, match="a name may have 50 characters"):
        start(with_arguments('{"%s": 1}' % ("x" * 51)), bounds=bounds)


def test_what_was_kept_loses_calls_without_an_answer() -> None:
    two = {**CALLING, "tool_calls": [CALL, call("c2", "look", "{}")]}
    assert with_answers([HI, two], [ANSWER]) == [HI, CALLING]
    assert with_answers([HI, two, ANSWER]) == [HI, CALLING, ANSWER]
    assert with_answers([HI, two]) == [HI, {"role": "assistant", "content": "let me see"}]
    assert with_answers([HI, {**two, "content": ""}]) == [HI]


JSON = st.recursive(st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner, max_size=2))
ODD = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "tool"]) | JSON,
        "content": st.text() | JSON,
        "tool_call_id": st.sampled_from(["c1"]) | JSON,
        "name": JSON,
        "status": JSON,
        "tool_calls": st.lists(
            st.fixed_dictionaries(
                {"id": st.just("c1") | JSON, "type": st.just("function") | JSON},
                optional={
                    "function": JSON
                    | st.fixed_dictionaries({"name": st.just("x") | JSON, "arguments": st.just("{}") | JSON})
                },
            ),
            max_size=2,
        )
        | JSON,
    },
)


@given(st.lists(ODD | JSON, max_size=3))
def test_whatever_is_sent_is_what_langchain_reads_or_refused(messages: list[Any]) -> None:
    told: list[dict[str, Any]] = []
    with suppress(Invalid):
        told = conversation("messages", messages)
        assert len(told) == len(messages)
    made = convert_to_messages(told)
    kinds = {"user": "human", "assistant": "ai", "tool": "tool"}
    assert [one.type for one in made] == [kinds[one["role"]] for one in told]
