"""The rules for a request body, tested without a host.

Checked: what is parsed, the result, and which bodies are equal.
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.errors import Invalid, Malformed
from gateway.streams.start import (
    DEFAULT,
    MAX_METADATA_BYTES,
    Bounds,
    Start,
    parse_json,
    parse_sample,
    parse_start,
)

CHAINS = {"chat": ("chat",), "other": ("one", "two")}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=200), inner, max_size=4),
    max_leaves=12,
)
SURROGATES = st.text(st.characters(categories=("Cs", "Ll")))


def start(**body: Any) -> Start:
    return parse_start(body, CHAINS)


@given(JSON)
def test_any_json_is_read_as_it_is(value: Any) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=64))
def test_any_other_bytes_are_refused_in_our_own_words(body: bytes) -> None:
    try:
        json.loads(body.decode())
    except ValueError:
        with pytest.raises(Malformed, match="the body is not JSON in UTF-8"):
            parse_json(body)


@given(SURROGATES)
def test_a_lone_surrogate_is_read_and_has_a_digest(text: str) -> None:
    value = parse_json(json.dumps({"input": "x" + text, "metadata": {text: text}}).encode())
    assert len(parse_start(value, CHAINS).digest) == 64


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"user": "a\ud800b"}, "user"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "\udc00"}]},
            "messages[1]",
        ),
    ],
)
def test_a_text_that_no_model_can_be_sent_is_refused(body: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid, match="half a surrogate pair") as refused:
        parse_start(body, CHAINS)
    assert str(refused.value).startswith(field)
    assert start(user="\U0001f600")  # A complete surrogate pair is accepted.


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "[1e400]", "1" * 5000])
def test_numbers_that_are_not_finite_are_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        parse_json(text.encode())


@pytest.mark.parametrize("text", ["1e308", "1e-999", "-0.0", str(2**70)])
def test_every_finite_number_is_read(text: str) -> None:
    assert parse_json(text.encode()) == json.loads(text)


SMALL = Bounds(bytes=10_000, depth=4, items=3, messages=2, name=5)


@pytest.mark.parametrize(
    ("fits", "does_not", "rule"),
    [
        ("[[[[1]]]]", "[[[[[1]]]]]", "may be nested 4 deep"),
        ("[1,[1,2,3],3]", "[1,[1,2,3,4]]", "may have 3 members"),
        ('{"a":1,"b":2,"c":3}', '[{"a":1,"b":2,"c":3,"d":4}]', "may have 3 members"),
        ('{"abcde":"a long value"}', '[{"abcdef":1}]', "a name may have 5 characters"),
    ],
)
def test_bounds_are_those_that_are_set(fits: str, does_not: str, rule: str) -> None:
    assert parse_json(fits.encode(), SMALL) == json.loads(fits)
    with pytest.raises(Invalid, match=rule):
        parse_json(does_not.encode(), SMALL)


def test_a_conversation_has_the_bound_that_is_set() -> None:
    hi = {"role": "user", "content": "x"}
    parse_start({"messages": [hi] * 2}, CHAINS, SMALL)
    with pytest.raises(Invalid, match="messages: must be at most 2"):
        parse_start({"messages": [hi] * 3}, CHAINS, SMALL)


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
def test_depth_is_bounded_however_it_is_made(opening: str) -> None:
    closing = opening.replace('"a":', "")[::-1].translate(str.maketrans("[{", "]}"))
    fits = DEFAULT.depth // len(closing)
    parse_json((opening * fits + "1" + closing * fits).encode())
    for depth in (fits + 1, 50_000):
        with pytest.raises(Invalid) as caught:
            parse_json((opening * depth + "1" + closing * depth).encode())
        assert caught.value.extensions["field"] == "body"


def test_user_becomes_messages_and_messages_stay_and_input_is_kept_apart() -> None:
    messages = [{"role": "user", "content": "hi"}]
    assert start(user="hi").input == {"messages": messages}
    assert start(messages=messages).input == {"messages": messages}
    assert start(input=messages).input == {"input": messages}


def test_the_defaults() -> None:
    assert (start(user="x").chain, start(user="x").params, start(user="x").metadata) == ("chat", {}, None)
    assert start(user="x", metadata=None) == start(user="x")


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
def test_the_roles(role: str) -> None:
    assert start(messages=[{"role": role, "content": "x"}])


def test_metadata_is_measured_in_bytes_of_utf_8() -> None:
    room = MAX_METADATA_BYTES - len('{"a":""}')
    start(user="x", metadata={"a": "\u20ac" * (room // 3)})
    for filling in ("x" * (room + 1), "\u20ac" * (room // 3 + 1), "\ud800" * (room // 3 + 1)):
        with pytest.raises(Invalid, match="metadata"):
            start(user="x", metadata={"a": filling})


def test_the_digest_is_of_what_is_asked_and_not_of_its_spelling() -> None:
    one = start(user="x", params={"a": 1, "b": 2})
    assert one.digest == start(params={"b": 2, "a": 1}, chain="chat", user="x").digest
    others = [
        start(user="y", params={"a": 1, "b": 2}),
        start(user="x", params={"a": 1, "b": 3}),
        start(user="x", params={"a": 1, "b": 2}, chain="other"),
        start(user="x", params={"a": 1, "b": 2}, metadata={}),
        start(input="x", params={"a": 1, "b": 2}),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 6


def test_what_was_asked_is_not_in_its_repr() -> None:
    assert "canary" not in repr(start(user="canary", params={"key": "canary"}))


def test_a_field_of_the_clients_own_is_shown_short_and_printable() -> None:
    with pytest.raises(Invalid) as caught:
        start(**{"user": "x", "\r\n\ud800<" + "y" * 100: 1})
    assert caught.value.extensions["field"] == "???<" + "y" * 60


@pytest.mark.parametrize("body", [{"user": "x", "params": {}}, {"input": "x"}, {}, [], "x", None])
def test_the_samples_body_is_user_and_nothing_else(body: Any) -> None:
    assert parse_sample({"user": "x"}, CHAINS) == start(user="x")
    with pytest.raises(Invalid):
        parse_sample(body, CHAINS)
