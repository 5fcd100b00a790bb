"""The AI SDK's messages as input for a chain: every rule, and random JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.formats.ai_sdk.messages import parse_chat
from gateway.formats.ai_sdk.standing import standing
from gateway.protocol.errors import Invalid, Malformed
from gateway.streams.start import DEFAULT, Start

CHAINS = {"chat": ("chat",), "report": ("outline",)}
PNG = "data:image/png;base64,iVBORw0KGgo="


def user(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"id": "m", "role": "user", "parts": list(parts), **more}


def said(*parts: Any) -> dict[str, Any]:
    return {"id": "m", "role": "assistant", "parts": list(parts)}


def text(words: str, part: str = "") -> dict[str, Any]:
    known = {"providerMetadata": {"holdfast": {"part": part}}} if part else {}
    return {"type": "text", "text": words, "state": "done", **known}


def file(url: Any = PNG, kind: Any = "image/png") -> dict[str, Any]:
    return {"type": "file", "mediaType": kind, "url": url}


def body(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"id": "c", "messages": list(messages or [user(text("q"))]), **more}


def started(value: Any) -> tuple[str, Start]:
    """Parse the body. Return the chat's id and the start."""
    chat, start = parse_chat(value, CHAINS)
    assert isinstance(start, Start)
    return chat, start


def asked(*messages: Any, **more: Any) -> Any:
    """Return the messages that the chain receives."""
    return started(body(*messages, **more))[1].input["messages"]


def test_a_request_of_the_client_is_taken_whole() -> None:
    whole = body(
        {"id": "s", "role": "system", "parts": [text("be"), text(" brief")], "metadata": {"x": 1}},
        user(text("q"), {"type": "data-place", "data": [1]}, createdAt="now"),
        trigger="regenerate-message",
        messageId=None,
        chain="report",
        params={"tone": "dry"},
    )
    chat, start = started(whole)
    assert (chat, start.chain, start.params) == ("c", "report", {"tone": "dry"})
    assert (start.metadata, start.sent) == ({"chat": "c"}, "messages")
    assert start.input["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "q"},
    ]


def test_images_are_content_parts_in_their_order() -> None:
    there = "https://example.com/a.png"
    [message] = asked(user(text("a"), file(), text(""), file(there, "image"), text("b")))
    assert message["content"] == [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": PNG}},
        {"type": "image_url", "image_url": {"url": there}},
        {"type": "text", "text": "b"},
    ]
    [message] = asked(user(file()))
    assert len(message["content"]) == 1


def test_of_an_answer_only_the_text_that_stands_is_said_again() -> None:
    answer = said(
        {"type": "step-start"},
        {"type": "reasoning", "text": "hm"},
        text("void", "1"),
        {"type": "dynamic-tool", "toolCallId": "t", "toolName": "x", "state": "output-available"},
        {"type": "data-reset", "data": {"parts": ["1", "t"]}},
        text("a", "1"),  # This part has the name again, after the reset.
        text("b"),
        file(),
        {"type": "data-custom", "data": {"part": "9"}},
    )
    assert asked(user(text("q")), answer, user(text("r")))[1] == {"role": "assistant", "content": "ab"}
    replayed = said(*answer["parts"], {"type": "data-replay", "data": {}}, text("c", "1"))
    assert asked(user(text("q")), replayed, user(text("r")))[1]["content"] == "c"
    silent = said({"type": "step-start"})
    assert [one["content"] for one in asked(user(text("q")), silent, user(text("r")))] == ["q", "r"]


def ran(call_id: str = "c1", **more: Any) -> dict[str, Any]:
    """Return a tool part that the client itself has run."""
    known = {"type": "dynamic-tool", "toolName": "look", "state": "output-available"}
    return {**known, "toolCallId": call_id, "input": {"q": "é"}, "output": "sunny", **more}


def called(*ids: str, words: str = "") -> dict[str, Any]:
    function = {"name": "look", "arguments": '{"q":"é"}'}
    calls = [{"id": one, "type": "function", "function": function} for one in ids]
    return {"role": "assistant", "content": words, "tool_calls": calls}


STEP = {"type": "step-start"}


def test_what_the_clients_tools_have_answered_is_asked_in_its_steps() -> None:
    answer = said(
        *(STEP, text("let me "), text("see"), ran(), ran("c2", output={"t": [1]}, providerExecuted=False)),
        *(STEP, text("and"), STEP, ran("c3", type="tool-look", state="output-error", errorText="no")),
        *(STEP, text("so it is")),
    )
    assert asked(user(text("q")), answer, user(text("r")))[1:-1] == [
        called("c1", "c2", words="let me see"),
        {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
        {"role": "tool", "content": '{"t":[1]}', "tool_call_id": "c2"},
        called("c3", words="and"),
        {"role": "tool", "content": "no", "tool_call_id": "c3", "status": "error"},
        {"role": "assistant", "content": "so it is"},
    ]


def test_a_conversation_may_end_in_answers_of_the_clients_tools() -> None:
    told = asked(user(text("q")), said(STEP, text("a"), STEP, ran()))
    assert [one["role"] for one in told] == ["user", "assistant", "tool"]
    assert told[1] == called("c1", words="a")
    for other in (ran(providerExecuted=True), ran(state="input-available"), ran(type="data-x")):
        with pytest.raises(Invalid, match=r"messages\[1\].role"):
            asked(user(text("q")), said(STEP, other))
    with pytest.raises(Invalid, match=r"messages\[1\].role"):  # The client would continue after this text.
        asked(user(text("q")), said(STEP, ran(), STEP, text("x")))


def test_a_tool_that_a_reset_names_has_not_been_called() -> None:
    reset = {"type": "data-reset", "data": {"parts": ["c1"]}}
    told = asked(user(text("q")), said(STEP, ran(), reset, STEP, ran("c2")))
    assert told[1:] == [called("c2"), {"role": "tool", "content": "sunny", "tool_call_id": "c2"}]


@pytest.mark.parametrize(
    ("part", "field"),
    [
        (ran(toolCallId=1), "toolCallId"),
        (ran(toolCallId="x" * 257), "toolCallId"),
        (ran(toolName=""), "toolName"),
        (ran(type="tool-", toolName="x"), "type"),
        (ran(input=None), "input"),
        (ran(input={"q": "\ud800"}), "input"),
        (ran(output="\ud800"), "output"),
        (ran(state="output-error", errorText="\ud800"), "errorText"),
    ],
)
def test_an_odd_tool_is_refused_by_its_field(part: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        asked(user(text("q")), said(STEP, text("a"), part))
    assert refused.value.extensions["field"] == f"messages[1].parts[2].{field}"


ODD: tuple[Any, ...] = (None, 1, "x", [], {}, {"parts": 1}, {"parts": [1, [], {}, None]})


@pytest.mark.parametrize("data", ODD, ids=repr)
def test_what_only_looks_like_a_reset_voids_nothing(data: Any) -> None:
    odd = [{"type": "text", "text": "a", "providerMetadata": value} for value in (data, {"holdfast": data})]
    assert len(standing([*odd, {"type": "data-reset", "data": data}])) == 2


REFUSED: dict[str, tuple[Any, str]] = {
    "no object": ([], "body"),
    "another field": (body(model="x"), "model"),
    "a field that is not printed": (body(**{"\n": 1}), "?"),
    "an id of another type": (body() | {"id": 1}, "id"),
    "an id with a slash": (body() | {"id": "a/b"}, "id"),
    "an id that is a place": (body() | {"id": ".."}, "id"),
    "a long id": (body() | {"id": "x" * 129}, "id"),
    "another trigger": (body(trigger="x"), "trigger"),
    "a trigger of another type": (body(trigger=[]), "trigger"),
    "a message's id of another type": (body(messageId=1), "messageId"),
    "no messages": ({"id": "c"}, "messages"),
    "messages of another type": ({"id": "c", "messages": {}}, "messages"),
    "an empty conversation": ({"id": "c", "messages": []}, "messages"),
    "too many messages": (body(*[user(text("q"))] * (DEFAULT.messages + 1)), "messages"),
    "a message of another type": (body("x"), "messages[0]"),
    "no role": (body({"parts": [text("q")]}), "messages[0].role"),
    "another role": (body({"role": "tool", "parts": []}), "messages[0].role"),
    "a role of another type": (body({"role": [], "parts": []}), "messages[0].role"),
    "no parts": (body({"role": "user", "content": "q"}), "messages[0].parts"),
    "nothing said": (body(user()), "messages[0].parts"),
    "only data": (body(user({"type": "data-x"})), "messages[0].parts"),
    "an empty text": (body(user(text(""))), "messages[0].parts"),
    "a part of another type": (body(user(1)), "messages[0].parts[0]"),
    "a part without a type": (body(user({})), "messages[0].parts[0]"),
    "a part whose type is none": (body(user({"type": 1})), "messages[0].parts[0]"),
    "a part that a user has not": (body(user({"type": "reasoning"})), "messages[0].parts[0].type"),
    "a text of another type": (body(user({"type": "text", "text": 1})), "messages[0].parts[0].text"),
    "half a surrogate pair": (body(user(text("\ud800"))), "messages[0].parts[0].text"),
    "half of one in an answer": (body(said(text("\udc00")), user(text("q"))), "messages[0].parts[0].text"),
    "half of one in an address": (body(user(file(PNG + "\ud800"))), "messages[0].parts[0].url"),
    "a file that is no image": (body(user(file(kind="text/html"))), "messages[0].parts[0].mediaType"),
    "a file of no type": (body(user(file(kind=None))), "messages[0].parts[0].mediaType"),
    "a file that is nowhere": (body(user(file(None))), "messages[0].parts[0].url"),
    "a file of another place": (body(user(file("file:///etc/passwd"))), "messages[0].parts[0].url"),
    "an image of the system's": (
        body({"role": "system", "parts": [file()]}, user(text("q"))),
        "messages[0].parts[0].type",
    ),
    "an answer to go on with": (body(user(text("q")), said(text("a"))), "messages[1].role"),
    "another chain": (body(chain="x"), "chain"),
    "a chain of another type": (body(chain=None), "chain"),
    "params of another type": (body(params=[]), "params"),
}


@pytest.mark.parametrize(("value", "named"), REFUSED.values(), ids=REFUSED)
def test_a_broken_rule_names_the_clients_field(value: Any, named: str) -> None:
    with pytest.raises(Invalid) as error:
        parse_chat(value, CHAINS)
    assert error.value.extensions["field"] == named


WORDS = st.sampled_from(
    [
        "text",
        "file",
        "image/png",
        PNG,
        "user",
        "assistant",
        "system",
        "data-reset",
        "data-replay",
        "chat",
        "c",
    ]
)
NAMES = st.sampled_from(
    [
        *("id", "messages", "trigger", "messageId", "chain", "params", "role", "parts", "type", "text"),
        *("url", "mediaType", "data", "providerMetadata", "holdfast", "part"),
    ]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | WORDS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=6)
    ),
)
PARTS = st.lists(
    st.fixed_dictionaries(
        {"type": WORDS}, optional=dict.fromkeys(("text", "url", "mediaType", "data"), ANYTHING)
    )
    | ANYTHING,
    max_size=4,
)
MESSAGES = st.lists(st.fixed_dictionaries({"role": WORDS, "parts": PARTS}) | ANYTHING, max_size=4)


@given(st.fixed_dictionaries({"id": WORDS, "messages": MESSAGES}) | ANYTHING)
def test_any_json_is_taken_or_refused_and_nothing_else(value: Any) -> None:
    try:
        _, start = parse_chat(value, CHAINS)
    except (Malformed, Invalid):  # The status is 400 or 422.
        return
    assert isinstance(start, Start)
    json.dumps(start.input, ensure_ascii=False).encode()
    for message in start.input["messages"]:
        assert message["content"]
