"""The wire format of Durable Streams, as pure functions: messages, offsets, control events, cursors."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from gateway import protocol
from gateway.formats.durable import wire
from gateway.protocol import Cursor, Event, EventType, sse
from gateway.protocol.errors import Malformed
from gateway.protocol.fold import Fold
from gateway.relay.block import Block
from gateway.relay.reader import Subscription

TAG = "beef"
TEXTS = ["plain", "a\nb", "\r\n\r\n", "data: x\n\nid: 9\n\n", "\u2028\u2029\u0085", "\0", "\U0001f600", " "]


def logged(*events: Event) -> bytes:
    """Return a log with these events, written by one claim."""
    frames = b""
    for event in events:
        frames += sse.encode(event, len(frames), TAG)
    return frames


def text(delta: str, stage: str = "chat", run: int = 0) -> Event:
    return protocol.text(delta, deployment="test", stage=stage, run=run)


def stage(name: str, index: int = 0, *, finished: bool = False) -> Event:
    return protocol.stage(name, run=1, index=index, count=2, finished=finished)


def node(name: str, *, finished: bool = False) -> Event:
    return protocol.node(name, run=1, index=0, count=1, parent="agent", step=1, finished=finished)


def folded(messages: list[dict[str, Any]]) -> Fold:
    """Fold the messages as a client does, by the documented rules alone."""
    fold = Fold()
    for said in messages:
        kind = EventType.MESSAGE if said["type"] == "message" else EventType(said["type"])
        fold.feed(said["id"], Event(kind, said["data"]))
    return fold


def folded_log(frames: bytes) -> Fold:
    """Fold the log itself."""
    fold, decoder = Fold(), sse.Decoder()
    for said in decoder.feed(frames):
        fold.feed(said.id, said.event())
    return fold


REPORT = [
    protocol.start("ab" + "A" * 22, "report", ["outline", "answer"], "now"),
    stage("outline"),
    text("one", "outline"),
    stage("outline", finished=True),
    stage("answer", 1),
    text("two ", "answer"),
    text("three", "answer"),
    stage("answer", 1, finished=True),
    protocol.done(finish_reason="stop", usage={"total_tokens": 3}, attempts=1, duration_ms=5),
]
AGENT = [
    protocol.start("ab" + "A" * 22, "agent", ["agent"], "now"),
    stage("agent"),
    node("plan"),
    text("let me see", "plan", 1),
    protocol.tool("search", call_id="c1", stage="plan", state="started", said={"q": "é"}, run=1),
    protocol.tool("search", call_id="c1", stage="plan", state="finished", said="found", run=1),
    node("plan", finished=True),
    protocol.custom("sources", [1, None, {"a": "b"}], stage="agent"),
    stage("agent", finished=True),
    protocol.failed("model_refused", "The model refuses.", retryable=False),
]


def reset_after(events: list[Event]) -> list[Event]:
    """Return these events, followed by a reset of the first stage and other text."""
    started = f"{len(logged(*events[:1]))}-{TAG}"
    void = protocol.reset(attempt=2, stage_name="chat", discard_after=started, reason="other")
    return [*events, void, text("anew"), stage("chat", finished=True), Event(EventType.CANCELLED, {})]


CHAT = [protocol.start("ab" + "A" * 22, "chat", ["chat"], "now"), stage("chat"), text("old "), text("text")]


@pytest.mark.parametrize(
    "events",
    [REPORT, AGENT, reset_after(CHAT), [text(t) for t in TEXTS]],
    ids=["report", "agent", "reset", "texts"],
)
def test_each_event_is_one_message_with_its_id_and_its_data(events: list[Event]) -> None:
    frames = logged(*events)
    said = json.loads(wire.array(frames))
    assert [(one["type"], one["data"]) for one in said] == [(e.type or "message", e.data) for e in events]
    assert [one["id"] for one in said] == [m.id for m in sse.Decoder().feed(frames)]
    assert [list(one) for one in said] == [["type", "id", "data"]] * len(events)
    assert folded(said) == folded_log(frames)


def test_a_reset_voids_what_a_client_has_of_the_stage() -> None:
    said = json.loads(wire.array(logged(*reset_after(CHAT))))
    assert folded(said[:4]).text == "old text"
    assert folded(said).text == "anew"
    assert folded(said).ended is protocol.Status.CANCELLED


def test_no_messages_are_an_empty_array() -> None:
    assert wire.array(b"") == b"[]"


def test_half_a_surrogate_pair_comes_through() -> None:
    [said] = json.loads(wire.array(logged(text("\ud800"))))
    assert said["data"]["delta_content"] == "\ud800"


@given(st.integers(0, 10**10 - 1), st.integers(0, 10**10 - 1), st.integers(0, 0xFFFF))
def test_offsets_sort_as_text_like_the_events_that_they_stand_after(one: int, other: int, tag: int) -> None:
    first, second = (wire.offset(f"{number}-{tag:04x}") for number in (one, other))
    assert (first < second) == (one < other)
    assert str(wire.event_id(first)) == f"{one}-{tag:04x}"
    assert not set(first) & set(",&=?/")
    assert first not in (wire.BEGINNING, wire.NOW)


@given(st.text())
def test_any_other_text_is_no_offset(given_text: str) -> None:
    with pytest.raises(Malformed):
        wire.event_id(given_text)


@pytest.mark.parametrize(
    "given_text",
    [
        "",
        "0",
        "12-beef",
        "00000000012-beef",
        "0000000012-BEEF",
        "0000000012-beef\n",
        "\uff10000000012-beef",
        "0000000012",
    ],
)
def test_nearly_an_offset_is_none(given_text: str) -> None:
    with pytest.raises(Malformed):
        wire.event_id(given_text)


def test_a_parameter_may_be_given_once() -> None:
    assert wire.one(QueryParams("a=1&b="), "b") == ""
    assert wire.one(QueryParams("a=1"), "b") is None
    with pytest.raises(Malformed):
        wire.one(QueryParams("a=1&a=1"), "a")


def test_a_cursor_is_always_later_than_the_one_that_came() -> None:
    first = int(wire.next_cursor(""))
    random.seed(1)
    for echoed in (first - 5, first, first + 1, 10**15 - 1):
        later = int(wire.next_cursor(str(echoed)))
        assert echoed < later <= max(echoed + 180, first + 1)
    for none in ("x", "-1", "1e5", "9" * 16, "\uff19", ""):
        assert int(wire.next_cursor(none)) - first in (0, 1)


def test_the_headers_tell_where_an_answer_leaves_its_reader() -> None:
    assert wire.place("12-beef", up_to_date=False, closed=False, cursor="7") == {
        "stream-next-offset": "0000000012-beef",
        "stream-cursor": "7",
    }
    assert wire.place("12-beef", up_to_date=True, closed=True, cursor="7") == {
        "stream-next-offset": "0000000012-beef",
        "stream-up-to-date": "true",
        "stream-closed": "true",
    }


def parsed(sent: bytes) -> list[tuple[str, Any]]:
    """Parse SSE events as a client does."""
    return [(said.type, json.loads(said.data)) for said in sse.Decoder().feed(sent)]


@pytest.mark.parametrize("up_to_date", [True, False])
def test_a_batch_is_one_data_event_and_its_control(up_to_date: bool) -> None:
    frames = logged(*CHAT)
    said = parsed(wire.batch(frames, up_to_date=up_to_date, cursor="7"))
    last = json.loads(wire.array(frames))[-1]["id"]
    told = {"streamNextOffset": wire.offset(last), "streamCursor": "7"}
    assert said == [
        ("data", json.loads(wire.array(frames))),
        ("control", told | ({"upToDate": True} if up_to_date else {})),
    ]


@pytest.mark.parametrize("events", [REPORT, AGENT, reset_after(CHAT)], ids=["done", "failed", "cancelled"])
def test_a_terminal_event_closes_the_stream_and_needs_no_cursor(events: list[Event]) -> None:
    *_, (kind, told) = parsed(wire.batch(logged(*events), up_to_date=False, cursor="7"))
    assert kind == "control"
    assert set(told) == {"streamNextOffset", "upToDate", "streamClosed"}
    assert told["streamClosed"] is told["upToDate"] is True


def test_an_etag_tells_a_page_that_is_the_end_from_one_that_was() -> None:
    told = wire.place("12-beef", up_to_date=True, closed=False)
    more = wire.place("12-beef", up_to_date=False, closed=False)
    assert wire.etag("id", "-1", told) == '"id:-1:0000000012-beef:end"'
    assert wire.etag("id", "-1", told) != wire.etag("id", "-1", more)


def test_a_reader_is_behind_while_blocks_wait_or_the_log_is_known_to_have_more() -> None:
    reader = Subscription(1000, Cursor("7-0001"))
    reader.begin_read()
    assert not reader.behind
    frame = logged(*CHAT[:1])
    for older in ("3-0001", "7-0001"):
        reader.offer(Block("0-0001", older, False, 0, frame))  # A read of the log has already returned it.
        assert not reader.behind
    reader.offer(Block("7-0001", f"9-{TAG}", False, 0, frame))
    assert reader.behind
    assert reader.take() == frame
    assert not reader.behind
    reader.offer(Block(f"9-{TAG}", f"99-{TAG}", False, 0, b"x" * 1001))  # Over the limit, so it is dropped.
    assert (reader.behind, reader.doubt) == (True, True)
    reader.begin_read()
    assert not reader.behind
