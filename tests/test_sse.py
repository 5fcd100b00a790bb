"""Frames: what we write, and a decoder that takes everything WHATWG's rules allow (HTML, 9.2.5 and 9.2.6)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import protocol
from gateway.protocol import Event, EventType, sse
from gateway.protocol.sse import Decoder, Message

STREAMS = Path(__file__).parent / "streams.json"
SPLIT_EVERYWHERE_BYTES = 1000  # longer streams are split into pieces of these sizes instead
PIECES_BYTES = (1, 1000, 4096, 65_537)


@dataclass(frozen=True)
class Case:
    """A byte stream, the messages in it, and what the decoder knows after it."""

    stream: bytes
    messages: list[Message]
    last_id: str = ""
    retry_ms: int | None = None


def message(data: str, *, type: str = "message", id: str = "") -> Message:
    return Message(id, type, data)


def whole(given: str | list[Any]) -> str:
    """A string of the table: itself, or pieces, of which `[piece, times]` is repeated."""
    if isinstance(given, str):
        return given
    return "".join(part if isinstance(part, str) else part[0] * part[1] for part in given)


def case_of(row: dict[str, Any]) -> Case:
    messages = [Message(m.get("id", ""), m.get("type", "message"), whole(m["data"])) for m in row["messages"]]
    stream = whole(row["stream"]).encode("latin-1")  # in the table a character is a byte
    return Case(stream, messages, row.get("last_id", ""), row.get("retry_ms"))


# The examples and rules of the standard, and the groups of LaunchDarkly's suite for clients of event streams.
# tests/node/client.mjs reads the same table for the JavaScript client.
CASES = {
    f"{group}: {name}": case_of(row)
    for group, rows in json.loads(STREAMS.read_text()).items()
    for name, row in rows.items()
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
    if len(stream) <= SPLIT_EVERYWHERE_BYTES:
        for at in range(len(stream) + 1):
            assert decode(stream[:at], stream[at:]) == expected, at
            assert decode(stream[:at], b"", stream[at:], b"") == expected, at
    for size in PIECES_BYTES[len(stream) > SPLIT_EVERYWHERE_BYTES :]:
        assert decode(*(stream[at : at + size] for at in range(0, len(stream), size))) == expected, size


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
    assert len(line.decode().splitlines()) == 1  # also to readers that know more ends of lines than SSE does
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
