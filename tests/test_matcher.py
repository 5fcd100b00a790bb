"""A new attempt continues a stage: which events it writes after those that an earlier attempt published."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway import protocol
from gateway.protocol import Event, EventType, sse
from gateway.protocol.fold import Fold
from gateway.writing.matcher import Matcher, Published

START = protocol.start("aa" + "x" * 22, "c", ["s"], "now")
DELTAS = st.lists(st.text(max_size=3), max_size=6)


def text(delta: str, stage: str = "s") -> Event:
    return protocol.text(delta, deployment="d", stage=stage)


def tool(call_id: str, output: Any = "ok") -> Event:
    data = {"name": "t", "call_id": call_id, "stage": "s", "state": "finished", "output": output}
    return Event(EventType.TOOL, data)


def began(name: str = "s", run: int = 1) -> Event:
    return protocol.stage(name, run=run, index=0, count=1)


def ended(name: str = "s", run: int = 1) -> Event:
    return protocol.stage(name, run=run, index=0, count=1, finished=True)


class Wire:
    """A log in memory. Its frames have real ids."""

    def __init__(self, *events: Event) -> None:
        self.frames = b""
        self.write(list(events))

    def write(self, events: list[Event]) -> None:
        for event in events:
            self.frames += sse.encode(event, len(self.frames), "abcd")

    def messages(self) -> list[sse.Message]:
        return sse.Decoder().feed(self.frames)

    def text(self) -> str:
        fold = Fold()
        for message in self.messages():
            fold.feed(message.id, message.event())
        return fold.text

    def attempt(self, events: list[Event], number: int = 2, *, ends: bool = True) -> list[list[Event]]:
        """Run another attempt with these events. Return its puts that are not empty.

        A put is a list of events. Each put is also written to the wire.
        """
        matcher = Matcher(Published.read(self.messages()), number)
        puts = [matcher.take(event) for event in events] + ([matcher.end()] if ends else [])
        for put in puts:
            self.write(put)
        return [put for put in puts if put]


def test_the_same_again_writes_nothing() -> None:
    events = [text("a"), tool("1"), text("b")]
    assert Wire(START, began(), *events).attempt(events) == []


def test_what_comes_after_the_published_goes_out_one_by_one() -> None:
    wire = Wire(START, began(), text("a"))
    assert wire.attempt([text("a"), text("b"), text("c")]) == [[text("b")], [text("c")]]


def test_the_first_attempt_writes_everything() -> None:
    assert Wire(START, began()).attempt([text("a"), text("b")]) == [[text("a")], [text("b")]]


def test_the_first_difference_writes_one_reset_with_all_of_the_stage_in_the_same_put() -> None:
    wire = Wire(START, began(), text("a"), text("b"), text("c"))
    put, *rest = wire.attempt([text("a"), text("X"), text("c"), text("d")])
    assert [event.type for event in put] == ["reset", "", ""]
    assert put[1:] == [text("a"), text("X")]
    assert rest == [[text("c")], [text("d")]]
    assert wire.text() == "aXcd"


def test_the_reset_names_attempt_stage_and_the_started_event() -> None:
    wire = Wire(START, began(), text("a"))
    started = wire.messages()[1].id
    [[reset, *_]] = wire.attempt([text("b")], 7)
    assert reset.data == {
        "attempt": 7,
        "stage": "s",
        "discard_after": started,
        "reason": "attempt_differs",
    }


def test_an_end_with_published_events_unmatched_resets() -> None:
    wire = Wire(START, began(), text("a"), text("b"))
    assert [[event.type for event in put] for put in wire.attempt([text("a")])] == [["reset", ""]]
    assert wire.text() == "a"


def test_an_end_without_any_event_resets_to_nothing() -> None:
    wire = Wire(START, began(), text("a"))
    assert [len(put) for put in wire.attempt([])] == [1]
    assert wire.text() == ""


def test_call_ids_may_differ_and_nothing_else_of_a_tool_call() -> None:
    wire = Wire(START, began(), tool("1"), text("a"))
    assert wire.attempt([tool("2"), text("a")]) == []
    assert len(wire.attempt([tool("2", "other"), text("a")])) == 2


def test_the_same_data_of_another_type_differs() -> None:
    data = text("a").data
    wire = Wire(START, began(), Event(EventType.CUSTOM, data))
    assert [event.type for event in wire.attempt([text("a")])[0]] == ["reset", ""]


def test_an_attempt_is_compared_with_what_stands_after_the_resets() -> None:
    wire = Wire(START, began(), text("a"), text("b"))
    wire.attempt([text("X"), text("Y")], 2)
    assert wire.attempt([text("X"), text("Y"), text("Z")], 3) == [[text("Z")]]
    assert len(wire.attempt([text("a"), text("b")], 4)) == 2


def test_published_reads_the_unfinished_stage_alone() -> None:
    wire = Wire(START, began("one"), text("1", "one"), ended("one"), began("two"), text("2", "two"))
    published = Published.read(wire.messages())
    assert (published.stage, published.run) == ("two", 1)
    assert published.started_id == wire.messages()[4].id
    assert published.finished == [("one", 1)]
    assert published.events == [text("2", "two")]


def test_published_tells_runs_of_one_stage_apart() -> None:
    wire = Wire(START, began("s", 1), text("1"), ended("s", 1), began("s", 2), text("2"))
    published = Published.read(wire.messages())
    assert (published.run, published.events) == (2, [text("2")])


def test_published_between_stages_has_none() -> None:
    for events in ([START], [START, began(), text("a"), ended()]):
        published = Published.read(Wire(*events).messages())
        assert (published.stage, published.started_id, published.events) == ("", "", [])


def test_published_keeps_what_a_reset_of_another_stage_does_not_void() -> None:
    elsewhere = protocol.reset(attempt=2, stage_name="x", discard_after="7-abcd", reason="r")
    assert Published.read(Wire(START, began(), text("a"), elsewhere).messages()).events == [text("a")]


@given(st.lists(st.tuples(DELTAS, st.integers(0, 6)), min_size=1, max_size=4), DELTAS)
def test_a_reader_has_the_last_attempts_text(attempts: list[tuple[list[str], int]], last: list[str]) -> None:
    """This holds for any text of the earlier attempts, and wherever each of them was cut off."""
    wire = Wire(START, began())
    for number, (deltas, reached) in enumerate(attempts, 1):
        wire.attempt([text(delta) for delta in deltas[:reached]], number, ends=False)
    puts = wire.attempt([text(delta) for delta in last], len(attempts) + 1)
    assert wire.text() == "".join(last)
    assert sum(event.type is EventType.RESET for put in puts for event in put) <= 1


@given(DELTAS, st.integers(0, 6), st.integers(0, 6))
def test_a_deterministic_chain_never_resets(deltas: list[str], first: int, second: int) -> None:
    wire, events = Wire(START, began()), [text(delta) for delta in deltas]
    wire.attempt(events[:first], 1, ends=False)
    wire.attempt(events[:second], 2, ends=False)
    wire.attempt(events, 3)
    assert [message.event() for message in wire.messages()[2:]] == events


def test_a_call_that_has_begun_ends_under_the_id_that_readers_know() -> None:
    def begins(call_id: str, said: str) -> Event:
        return protocol.tool("t", call_id=call_id, stage="s", state="started", said=said)

    wire = Wire(START, began(), begins("old-1", "a"), begins("old-2", "b"), tool("old-2"))
    puts = wire.attempt(
        [begins("new-1", "a"), begins("new-2", "b"), tool("new-2"), tool("new-1"), begins("new-3", "c")],
        ends=False,
    )
    assert [event.data["call_id"] for put in puts for event in put] == ["old-1", "new-3"]
    differs = Wire(START, began(), begins("old-1", "a"), text("x"))
    puts = differs.attempt([begins("new-1", "a"), text("y"), tool("new-1")], number=3)
    told = [event.data["call_id"] for put in puts for event in put if event.type is EventType.TOOL]
    assert told == ["new-1", "new-1"]  # The reset discards old-1, and all events are written again.


def test_what_is_marked_as_below_a_tools_call_bears_the_calls_id_in_the_log() -> None:
    """The ids of calls may differ between attempts. Later events use the ids that are in the log."""

    def said(call_id: str, word: str) -> Event:
        return protocol.nested("delta", word, within=call_id, stage="s")

    def begins(call_id: str) -> Event:
        return protocol.tool("t", call_id=call_id, stage="s", state="started", said={})

    wire = Wire(START, began(), begins("old"), said("old", "a"))
    puts = wire.attempt([begins("new"), said("new", "a"), said("new", "b"), tool("new"), text("end")])
    assert [event.type for put in puts for event in put] == ["nested", "tool", ""]
    last = [message.event().data for message in wire.messages()][-3:-1]
    assert (last[0]["within"], last[1]["call_id"]) == ("old", "old")
    assert wire.text() == "end"
