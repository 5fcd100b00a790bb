"""Frames: what we write, and a decoder that takes everything WHATWG's rules allow (HTML, 9.2.5 and 9.2.6)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import protocol, sse
from gateway.protocol import Event, EventType
from gateway.sse import Decoder, Message

BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Case:
    """A byte stream, the messages in it, and what the decoder knows after it."""

    stream: bytes
    messages: list[Message]
    last_id: str = ""
    retry_ms: int | None = None


def message(data: str, *, type: str = "message", id: str = "") -> Message:
    return Message(id, type, data)


CASES = {
    # The examples of the standard, 9.2.6.
    "standard_stocks": Case(b"data: YHOO\ndata: +2\ndata: 10\n\n", [message("YHOO\n+2\n10")]),
    "standard_four_blocks": Case(
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [message("first event", id="1"), message("second event"), message(" third event")],
    ),
    "standard_two_events_and_a_rest": Case(b"data\n\ndata\ndata\n\ndata:", [message(""), message("\n")]),
    "standard_space_after_colon": Case(b"data:test\n\ndata: test\n\n", [message("test"), message("test")]),
    "standard_types": Case(
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\n",
        [message("73857293", type="add"), message("2153", type="remove")],
    ),
    # Lines.
    "cr": Case(b"data: a\rdata: b\r\rdata: c\r\r", [message("a\nb"), message("c")]),
    "crlf": Case(b"data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", [message("a\nb"), message("c")]),
    "mixed_ends": Case(b"data: a\r\n\ndata: b\n\rdata: c\r\r\n", [message(t) for t in "abc"]),
    "cr_then_crlf_is_two_ends": Case(b"data: a\r\r\ndata: b\n\n", [message("a"), message("b")]),
    "no_end_no_event": Case(b"data: a\n", []),
    "line_separator_is_text": Case(
        "data: a\u2028b\u0085c\x0bd\n\n".encode(), [message("a\u2028b\u0085c\x0bd")]
    ),
    # The byte-order mark.
    "bom_is_dropped": Case(BOM + b"data: a\n\n", [message("a")]),
    "bom_is_dropped_once": Case(BOM + BOM + b"data: a\n\ndata: b\n\n", [message("b")]),
    "bom_later_is_text": Case(b"data: a\n\n" + BOM + b"data: b\n\n", [message("a")]),
    "half_a_bom_is_text": Case(b"\xef\xbbdata: a\n\ndata: b\n\n", [message("b")]),
    # Fields.
    "colons_in_value": Case(b"data: a: b:c\n\n", [message("a: b:c")]),
    "one_space_only": Case(b"data:  a \n\n", [message(" a ")]),
    "empty_data": Case(b"data:\n\n", [message("")]),
    "comments": Case(b":\n:x\ndata: a\n: y\n\n", [message("a")]),
    "unknown_fields": Case(b"Data: x\n data: y\ndatum: z\nfoo\ndata: a\n\n", [message("a")]),
    "type_is_the_last_given": Case(b"event: x\nevent: y\ndata: a\n\n", [message("a", type="y")]),
    "empty_type_is_message": Case(b"event: x\nevent:\ndata: a\n\n", [message("a")]),
    "type_without_data_is_forgotten": Case(b"event: x\n\ndata: a\n\n", [message("a")]),
    "utf8_is_replaced_where_broken": Case(b"data: \xff\xe2\x82\n\n", [message("\ufffd\ufffd")]),
    # Ids.
    "id_stays": Case(b"id: 1\ndata: a\n\ndata: b\n\n", [message("a", id="1"), message("b", id="1")], "1"),
    "id_alone_is_no_event_but_counts": Case(b"id: 7\n\n", [], "7"),
    "id_counts_from_the_blank_line_on": Case(b"id: 7\n\nid: 8\n", [], "7"),
    "id_empty_resets": Case(b"id: 7\n\nid:\ndata: a\n\n", [message("a")], ""),
    "id_with_nul_is_ignored": Case(b"id: 7\n\nid: 8\0\ndata: a\n\n", [message("a", id="7")], "7"),
    # Retry.
    "retry": Case(b"retry: 1500\n", [], retry_ms=1500),
    "retry_zeros": Case(b"retry: 0000000001500\n", [], retry_ms=1500),
    "retry_zero": Case(b"retry: 0\n", [], retry_ms=0),
    "retry_keeps_the_good_one": Case(
        b"retry: 5\nretry: 1e3\nretry:\nretry\nretry: -1\nretry: +1\n", [], "", 5
    ),
    "retry_only_ascii_digits": Case("retry: ٣\nretry: ²\nretry: 1 \nretry:  1\n".encode(), []),
    "retry_alone_is_no_event": Case(b"retry: 5\n\n", [], retry_ms=5),
    "retry_is_bounded": Case(b"retry: " + b"9" * 5000 + b"\n", [], retry_ms=999_999_999),
}


def decode(*feeds: bytes) -> tuple[list[Message], str, int | None]:
    decoder = Decoder()
    messages = [found for feed in feeds for found in decoder.feed(feed)]
    return messages, decoder.last_id, decoder.retry_ms


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_decoder_obeys_the_standard(case: Case) -> None:
    assert decode(case.stream) == (case.messages, case.last_id, case.retry_ms)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_decoder_obeys_the_standard_whatever_the_split(case: Case) -> None:
    expected = (case.messages, case.last_id, case.retry_ms)
    stream = case.stream
    for at in range(len(stream) + 1):
        assert decode(stream[:at], stream[at:]) == expected, at
        assert decode(stream[:at], b"", stream[at:], b"") == expected, at
    assert decode(*(stream[at : at + 1] for at in range(len(stream)))) == expected


def test_an_event_is_given_as_soon_as_its_last_byte_is_there() -> None:
    decoder = Decoder()
    assert decoder.feed(b"data: a\r\n") == []
    assert decoder.feed(b"\r") == [message("a")]  # whether or not an LF follows
    assert decoder.feed(b"\n") == []


@pytest.mark.parametrize("line", [b"data: ", b"event: ", b": ", b""])
def test_a_line_without_end_is_bounded(line: bytes) -> None:
    decoder = Decoder(limit=1000)
    assert decoder.feed(line + b"x" * 900) == []
    with pytest.raises(ValueError, match="bound"):
        decoder.feed(b"x" * 200)


def test_a_line_in_many_pieces_costs_its_length() -> None:
    decoder, piece = Decoder(), b"x" * 512  # looking at all of it again each time would take many minutes
    decoder.feed(b"data: ")
    assert sum(len(decoder.feed(piece)) for _ in range(15 * 2048)) == 0
    [found] = decoder.feed(b"\n\n")
    assert len(found.data) == 15 * 1024 * 1024


@pytest.mark.parametrize("line", [b"event: ", b"id: "])
def test_a_type_and_an_id_count_in_the_bound(line: bytes) -> None:
    with pytest.raises(ValueError, match="bound"):
        Decoder(limit=1000).feed(line + b"x" * 1001 + b"\n")


@pytest.mark.parametrize("line", [b"data: 0123456789\n", b"data\n"])
def test_an_event_without_end_is_bounded(line: bytes) -> None:
    decoder = Decoder(limit=1000)
    for _ in range(1000 // len(line)):
        assert decoder.feed(line) == []
    with pytest.raises(ValueError, match="bound"):
        decoder.feed(line * 100)


def test_the_bound_holds_for_what_is_unfinished_behind_a_finished_event() -> None:
    with pytest.raises(ValueError, match="bound"):
        Decoder(limit=1000).feed(b"data: a\n\ndata: " + b"x" * 1001)


def test_the_bound_is_for_one_event_not_for_a_stream() -> None:
    decoder = Decoder(limit=1000)
    block = b"data: " + b"x" * 900 + b"\n\n"
    assert sum(len(decoder.feed(block)) for _ in range(100)) == 100


def test_a_frame_is_id_type_and_one_line_of_data() -> None:
    frame = sse.encode(protocol.Event(EventType.CUSTOM, {"a": 1}), 17, "beef")
    assert frame == b'id: 17-beef\nevent: custom\ndata: {"a":1}\n\n'


def test_a_text_event_has_no_event_line() -> None:
    frame = sse.encode(protocol.text("hi", deployment="m", stage="s"), 0, "beef")
    assert frame == b'id: 0-beef\ndata: {"deployment":"m","delta_content":"hi","stage":"s"}\n\n'


# Everything that was ever used to forge a frame, surrogates included.
HOSTILE = st.text(
    st.sampled_from("\r\n\0:\u2028\u2029\u0085\ufeff\ud800\udfff ax\x7f\U0001f600")
) | st.sampled_from(
    ["data: x\n\n", "\n\nevent: done\ndata: {}\n\n", "id: 1", "\r\rid: 0-beef\r", "event: failed", "\ud83d"]
)
# Two surrogates that make a pair are one character to JSON, which knows UTF-16 only.
ANY_TEXT = (st.text(st.characters(codec=None)) | HOSTILE).map(
    lambda text: text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=6,
)


@given(
    st.lists(st.tuples(st.sampled_from(EventType), JSON_VALUES), min_size=1, max_size=4), st.integers(1, 40)
)
def test_fault_20_any_data_is_exactly_one_event_and_exact(
    given_events: list[tuple[EventType, object]], size: int
) -> None:
    events = [Event(kind, data) for kind, data in given_events]
    log = b""
    for event in events:
        log += sse.encode(event, len(log), "beef")
    found, last_id, _ = decode(*(log[at : at + size] for at in range(0, len(log), size)))
    assert [each.event() for each in found] == events
    assert last_id == found[-1].id
    assert [len(frame) for frame in sse.split_frames(log)] == _sizes(found, len(log))
    assert b"".join(sse.split_frames(log)) == log


def _sizes(found: list[Message], end: int) -> list[int]:
    """The ids are the frames' offsets."""
    offsets = [int(each.id.split("-")[0]) for each in found] + [end]
    return [after - before for before, after in pairwise(offsets)]


@given(JSON_VALUES)
def test_fault_20_data_is_one_line_of_utf8_json(value: object) -> None:
    line = sse.dumps(value)
    assert b"\n" not in line
    assert b"\r" not in line
    assert b"\0" not in line
    assert json.loads(line.decode()) == value


@pytest.mark.parametrize("kind", list(EventType))
def test_only_a_terminal_event_ends_a_stream(kind: EventType) -> None:
    frame = sse.encode(Event(kind, {"delta_content": "event: done"}), 0, "beef")
    assert sse.is_terminal(frame) == (kind in protocol.TERMINAL_EVENTS)
    assert sse.frame_kind(frame) == (b"event: " + kind.encode() if kind else b"")


def test_the_two_other_things_on_the_wire_are_no_events() -> None:
    log = sse.encode(protocol.text("a", deployment="m", stage="s"), 0, "beef")
    found, last_id, retry_ms = decode(sse.retry(1200) + log + sse.HEARTBEAT + sse.HEARTBEAT)
    assert (len(found), last_id, retry_ms) == (1, "0-beef", 1200)


def test_log_lost_is_a_reset_that_leaves_no_cursor() -> None:
    [found] = decode(sse.LOG_LOST)[0]
    assert (found.id, found.event()) == ("0", Event(EventType.RESET, {"reason": "log_lost"}))


@pytest.mark.parametrize("foreign", [Message("", "error", "{}"), Message("", "message", "not json")])
def test_what_no_log_of_ours_holds_is_refused(foreign: Message) -> None:
    with pytest.raises(ValueError, match=r"error|Expecting"):
        foreign.event()
