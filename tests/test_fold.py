"""Events are folded to text. A client and the status document must give the same text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import protocol
from gateway.protocol import Event, EventType, Status, sse
from gateway.protocol.fold import Fold, StageText

LOST = Event(EventType.RESET, {"reason": "log_lost"})
FAILED = protocol.failed("model_error", "The model failed.", retryable=True)
USAGE = {"total_tokens": 3}
DONE = protocol.done(finish_reason="stop", usage=USAGE, attempts=1, duration_ms=5)


def began(name: str, run: int = 1) -> Event:
    return protocol.stage(name, run=run, index=0, count=2)


def node(name: str, state: str = "started", parent: str = "draft") -> Event:
    data = {"name": name, "run": 1, "index": 0, "count": 2, "state": state, "parent": parent, "step": 1}
    return Event(EventType.STAGE, data)


def finished(name: str, run: int = 1) -> Event:
    return protocol.stage(name, run=run, index=0, count=2, finished=True)


def said(text: str, stage: str = "draft") -> Event:
    return protocol.text(text, deployment="m", stage=stage)


def void(discard_after: str, stage: str = "draft") -> Event:
    return protocol.reset(attempt=2, stage_name=stage, discard_after=discard_after, reason="attempt_differs")


def fold_of(*events: Event) -> Fold:
    """Fold these events. Each event's id is its number: `0`, `1`, …"""
    fold = Fold()
    for number, event in enumerate(events):
        fold.feed(str(number), event)
    return fold


def texts(fold: Fold) -> list[tuple[str, int, str, str]]:
    return [(s.name, s.run, s.state, s.text) for s in fold.stages]


def test_nothing_is_empty() -> None:
    assert (Fold().text, Fold().last_id, Fold().stages, Fold().ended) == ("", "", [], None)


def test_a_stages_text_is_its_pieces_and_the_text_is_the_last_stages() -> None:
    fold = fold_of(began("draft"), said("a"), said("b"), finished("draft"), began("edit"), said("c", "edit"))
    assert texts(fold) == [("draft", 1, "finished", "ab"), ("edit", 1, "started", "c")]
    assert (fold.text, fold.last_id) == ("c", "5")


def test_the_text_of_a_graph_is_that_of_its_last_node_that_has_said_something() -> None:
    answered = [began("draft"), node("answer"), said("a", "answer"), node("answer", "finished"), node("save")]
    assert (
        fold_of(*answered).text == fold_of(*answered, node("save", "finished"), finished("draft")).text == "a"
    )
    assert fold_of(*answered, finished("draft"), began("edit")).text == ""  # This text is in a new stage.
    assert fold_of(began("draft"), node("answer")).text == ""


def test_a_node_may_have_its_chains_name() -> None:
    fold = fold_of(
        *(began("draft"), node("draft"), said("a"), node("draft", "finished"), finished("draft"), DONE)
    )
    assert texts(fold) == [("draft", 1, "finished", ""), ("draft", 1, "finished", "a")]
    assert fold.text == "a"


def test_the_end_of_a_stage_that_began_before_the_reader_did_hides_no_text() -> None:
    fold = fold_of(said("b", "answer"), node("answer", "finished"), finished("draft"))
    assert fold.text == "b"


def test_a_stage_as_the_status_document_shows_it() -> None:
    [stage] = fold_of(began("draft"), said("a")).stages
    assert stage.document() == {"name": "draft", "run": 1, "state": "started", "text": "a"}


def test_a_reset_voids_the_stages_text_and_what_follows_replaces_it() -> None:
    fold = fold_of(began("draft"), said("a"), said("b"), void("0"), said("c"))
    assert texts(fold) == [("draft", 1, "started", "c")]


def test_a_reset_leaves_other_stages_alone() -> None:
    fold = fold_of(
        began("draft"), said("a"), finished("draft"), began("edit"), said("b", "edit"), void("3", "edit")
    )
    assert texts(fold) == [("draft", 1, "finished", "a"), ("edit", 1, "started", "")]


def test_each_run_of_a_repeated_stage_has_its_own_text() -> None:
    fold = fold_of(
        began("draft"), said("a"), finished("draft"), began("draft", 2), said("b"), void("3"), said("c")
    )
    assert texts(fold) == [("draft", 1, "finished", "a"), ("draft", 2, "started", "c")]


def test_a_reset_of_every_attempt_leaves_the_last_ones_text() -> None:
    fold = fold_of(began("draft"), said("a"), void("0"), said("b"), void("0"), said("c"), finished("draft"))
    assert texts(fold) == [("draft", 1, "finished", "c")]


def test_fault_8_log_lost_forgets_everything() -> None:
    fold = fold_of(began("draft"), said("a"), DONE, LOST)
    assert fold == Fold()
    for number, event in enumerate([began("draft"), said("b")]):
        fold.feed(str(number), event)
    assert (texts(fold), fold.last_id) == ([("draft", 1, "started", "b")], "1")


@pytest.mark.parametrize(
    ("event", "status", "usage", "error"),
    [
        (DONE, Status.DONE, USAGE, None),
        (FAILED, Status.FAILED, None, FAILED.data),
        (Event(EventType.CANCELLED, {}), Status.CANCELLED, None, None),
    ],
)
def test_a_terminal_event_ends_it_and_the_partial_text_stays(
    event: Event, status: Status, usage: Any, error: Any
) -> None:
    fold = fold_of(began("draft"), said("a"), event)
    assert (fold.ended, fold.usage, fold.error, fold.text) == (status, usage, error, "a")


def test_start_tool_and_custom_add_no_text() -> None:
    tool = {"name": "t", "call_id": "1", "stage": "draft", "state": "started", "input": "x"}
    custom = {"name": "n", "stage": "draft", "data": {"delta_content": "x"}}
    fold = fold_of(
        protocol.start("id", "chat", ["draft"], "now"),
        began("draft"),
        Event(EventType.TOOL, tool),
        Event(EventType.CUSTOM, custom),
    )
    assert (fold.text, fold.last_id) == ("", "3")


def test_text_without_a_started_stage_is_kept_under_its_name() -> None:
    assert texts(fold_of(said("a"), said("b"))) == [("draft", 1, "started", "ab")]


NAMES = st.sampled_from(["draft", "edit"])
EVENTS = st.lists(
    st.one_of(
        st.builds(began, NAMES, st.integers(1, 3)),
        st.builds(finished, NAMES),
        st.builds(said, st.text(max_size=3), NAMES),
        st.builds(said, st.text(max_size=3), NAMES),
        st.builds(void, st.integers(0, 12).map(str), NAMES),
        st.sampled_from([LOST, DONE, FAILED]),
    ),
    max_size=12,
)


@given(EVENTS, st.integers(1, 300))
def test_the_fold_of_any_split_of_a_log_is_the_same(events: list[Event], size: int) -> None:
    """The result is the same over the wire with a cut at any byte, or event by event."""
    frames = b"".join(
        sse.encode(event, number, "beef").replace(b"-beef", b"", 1) for number, event in enumerate(events)
    )
    decoder, fold = sse.Decoder(), Fold()
    for at in range(0, len(frames), size):
        for message in decoder.feed(frames[at : at + size]):
            fold.feed(message.id, message.event())
    assert fold == fold_of(*events)


@given(EVENTS)
def test_a_stages_text_is_what_no_later_reset_voids(events: list[Event]) -> None:
    """Check the contract's own sentence, word by word, for the events after the last `log_lost`."""
    first = max((number + 1 for number, event in enumerate(events) if event == LOST), default=0)
    runs: list[tuple[str, int]] = []  # name, number of its started event
    pieces: list[tuple[int, int, str]] = []  # run, number, text
    for number, event in enumerate(events[first:], first):
        latest = [run for run, (name, _) in enumerate(runs) if name == event.data.get("stage")]
        if event.type is EventType.STAGE and event.data["state"] == "started":
            runs.append((event.data["name"], number))
        elif event.type is EventType.MESSAGE:
            if not latest:
                runs.append((event.data["stage"], number))
                latest = [len(runs) - 1]
            pieces.append((latest[-1], number, event.data["delta_content"]))
    expected = [
        "".join(text for run, number, text in pieces if run == index and not _voided(events, number, begun))
        for index, (_, begun) in enumerate(runs)
    ]
    assert [stage.text for stage in fold_of(*events).stages] == expected


def _voided(events: list[Event], number: int, begun: int) -> bool:
    return any(
        later.type is EventType.RESET and later.data.get("discard_after") == str(begun)
        for later in events[number + 1 :]
    )


def test_a_text_of_many_pieces_is_kept_in_few() -> None:
    stage = StageText("s", 1, "0-beef")
    for number in range(10_000):
        stage.add(str(number % 10))
    assert stage.text == "0123456789" * 1000
    assert len(stage.pieces) < 20
