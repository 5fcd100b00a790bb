"""What all formats share: places in a stream, and that a resumed reader gets just what it has not seen."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import protocol
from gateway.formats.base.projection import Frame, Place, Projection, alive, events, projected
from gateway.protocol import Cursor, Event, EventType, sse
from gateway.protocol.fold import StageText

TAG = "be0f"
PLACES = st.builds(
    lambda offset, tag, frame: Place(Cursor(f"{offset}-{tag:04x}"), frame),
    st.integers(0, 2**29),
    st.integers(0, 0xFFFF),
    st.integers(0, 63),
)


class Letters(Projection):
    """A frame for each letter, so that one event has many."""

    ids = True

    def text(self, stage: StageText, delta: str) -> Iterable[Frame]:
        return [Frame([letter, len(stage.text)]) for letter in delta]

    def done(self, data: object) -> Iterable[Frame]:
        return [Frame(b"[DONE]", event="end")]


def text(delta: str) -> Event:
    return protocol.text(delta, deployment="d", stage="answer")


def log(*events: Event) -> list[bytes]:
    """The frames of a log."""
    frames: list[bytes] = []
    for event in (protocol.start("id", "chat", ["answer"], "now"), *events):
        frames.append(sse.encode(event, sum(map(len, frames)), TAG))
    return frames


async def chunks(*pieces: bytes) -> AsyncGenerator[bytes, None]:
    for piece in pieces:
        yield piece


async def read(*pieces: bytes, after: Place | None = None) -> list[bytes]:
    """The frames, without heartbeats, of a connection that carries these pieces of a log."""
    told = b"".join([made async for made in projected(chunks(*pieces), Letters(), after)])
    return sse.split_frames(told.replace(sse.HEARTBEAT, b""))


@given(PLACES)
def test_a_place_is_read_back_from_its_text_and_from_its_number(place: Place) -> None:
    assert Place.parse(str(place)) == place
    assert Place.of_number(place.number) == place


@given(PLACES, PLACES)
def test_a_later_place_has_a_larger_number_that_javascript_can_hold(one: Place, other: Place) -> None:
    def order(place: Place) -> tuple[int, str, int]:
        return place.cursor.offset, str(place.cursor)[-4:], place.frame

    assert (one.number < other.number) == (order(one) < order(other))
    assert one.number < 2**53


@pytest.mark.parametrize("wrong", ["", "0-beef", "0-beef.", "0-beef.1x", "x-beef.1", "0-beef.1\n", "-1"])
def test_what_is_no_place_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="not a place"):
        Place.parse(wrong)


@pytest.mark.parametrize("wrong", [-1, 2**53])
def test_what_is_no_number_is_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match="not a place"):
        Place.of_number(wrong)


async def test_a_reader_that_comes_back_at_any_place_gets_just_the_rest() -> None:
    pieces = log(text("abc"), text("d"), text("efgh"), Event(EventType.DONE, {}))
    whole = await read(*pieces)
    assert [frame.split(b"\n")[1] for frame in whole[:2]] == [b'data: ["a",3]', b'data: ["b",3]']
    assert whole[-1].endswith(b"event: end\ndata: [DONE]\n\n")
    assert len(whole) == 9
    for seen, frame in enumerate(whole, 1):
        place = Place.parse(sse.Decoder().feed(frame)[0].id)
        assert await read(*pieces, after=place) == whole[seen:]
        assert await read(b"".join(pieces), after=place) == whole[seen:]


async def test_heartbeats_go_through_while_nothing_is_told() -> None:
    pieces = log(text("a"))
    told = [made async for made in projected(chunks(pieces[0], sse.HEARTBEAT, pieces[1]), Letters())]
    assert told[:2] == [b"", sse.HEARTBEAT]
    assert len(told) == 3


async def test_who_is_told_nothing_for_long_though_the_log_goes_on_gets_a_heartbeat() -> None:
    pieces = log(*[protocol.custom("unseen", number, stage="answer") for number in range(3)], text("a"))
    told = alive(projected(chunks(*pieces), Letters()), heartbeat=0.0, beat=b"~")
    assert [made[:4] for made in [one async for one in told]] == [b"~", b"~", b"~", b"~", b"id: "]
    patient = alive(projected(chunks(*pieces[:2], sse.HEARTBEAT, *pieces[2:]), Letters()), heartbeat=60.0)
    assert [made[:4] for made in [one async for one in patient]] == [sse.HEARTBEAT, b"id: "]


async def test_whole_numbers_and_halves_of_pairs_are_read_as_they_can_be() -> None:
    [_, frame] = log(text("\ud83d"))
    assert [event.data["delta_content"] for _, event in events(frame)] == ["\ufffd"]
    [_, frame] = log(protocol.custom("n", 123456789012345678901234567890, stage="answer"))
    assert [event.data["data"] for _, event in events(frame)] == [123456789012345678901234567890]


async def test_nothing_follows_where_the_log_has_lost_its_tail() -> None:
    pieces = log(text("ab"), text("c"))
    assert len(await read(*pieces[:2], sse.LOG_LOST, *pieces)) == 2


async def test_a_place_whose_event_has_gone_meanwhile_ends_the_connection() -> None:
    pieces = log(text("ab"), text("c"), text("d"))
    gone = Place(Cursor(f"{len(pieces[0])}-0000"), 0)
    assert await read(*pieces, after=gone) == []


def test_what_happens_below_a_tool_is_in_no_format() -> None:
    """A conversation has the outer call alone, and the answer's text none of its words."""

    class Told(Letters):
        def tool(self, data: Mapping[str, Any]) -> Iterable[Frame]:
            return [Frame(data["name"])]

    told = Told()
    inner = protocol.tool("inner", call_id="2", stage="answer", state="started", said={})
    inner.data["within"] = "1"
    below = protocol.nested("delta", "x", within="1", stage="answer")
    outer = protocol.tool("outer", call_id="1", stage="answer", state="started", said={})
    frames = [told.feed("0-beef", event) for event in (outer, inner, below, text("a"))]
    assert [[frame.data for frame in some] for some in frames] == [["outer"], [], [], [["a", 1]]]
    assert told.fold.text == "a"
