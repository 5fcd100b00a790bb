"""A character that a model sent as two halves is joined in every event, result and document."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessageChunk

from gateway import protocol
from gateway.protocol import Event
from tests.test_adapter import HERE, events, yielding
from workers.langchain import Outcome, halves
from workers.langchain.halves import Halves
from workers.langchain.tap import Tap

SMILE = "\U0001f600"
HIGH, LOW = "\ud83d", "\ude00"


def texts(told: Sequence[Event]) -> list[str]:
    return [event.data["delta_content"] for event in told if event.type == ""]


def through(*told: Event) -> list[Event]:
    """Return the events that `Halves` emits for these events of a stage, and those that waited to the end."""
    kept = Halves()
    made = [one for event in told for one in (kept.joined(event) if kept.concern(event) else [event])]
    return [*made, *kept.rest()]


def said(delta: str, **marks: Any) -> Event:
    event = protocol.text(delta, deployment="d", stage=marks.pop("stage", "s"), run=marks.pop("run", 0))
    event.data.update(marks)
    return event


@pytest.mark.parametrize(
    ("chunks", "wanted"),
    [
        (["a" + HIGH, LOW + "b"], ["a", SMILE + "b"]),
        ([HIGH, LOW], [SMILE]),
        ([HIGH, LOW + HIGH, LOW], [SMILE, SMILE]),
        ([HIGH, "b"], [HIGH + "b"]),
        (["a", LOW], ["a", LOW]),
        (["a" + HIGH], ["a", HIGH]),
        ([HIGH, HIGH, LOW], [HIGH, SMILE]),
    ],
)
async def test_halves_in_two_chunks_are_one_character(chunks: list[str], wanted: list[str]) -> None:
    told, outcome = await events(yielding(*(AIMessageChunk(content=chunk) for chunk in chunks)))
    assert texts(told) == wanted
    assert outcome.result == halves.paired("".join(chunks))


async def test_a_half_waits_for_its_own_text_whatever_comes_between() -> None:
    tool = protocol.tool("t", call_id="1", stage="s", state="started", said={})
    told = through(
        said(HIGH), tool, said("x", message=2), said(HIGH, member="m"), said(LOW), said(LOW, member="m")
    )
    assert told == [tool, said("x", message=2), said(SMILE), said(SMILE, member="m")]


@pytest.mark.parametrize(
    "made",
    [
        lambda text: protocol.refusal(text, stage="s"),
        lambda text: protocol.nested("delta", text, within="c", stage="s"),
        lambda text: protocol.nested("reasoning", text, within="c", stage="s"),
        lambda text: protocol.custom("reasoning", {"delta": text}, stage="s"),
    ],
    ids=["refusal", "nested text", "nested reasoning", "reasoning"],
)
def test_of_every_event_that_bears_a_piece_of_text(made: Any) -> None:
    assert through(made("a" + HIGH), made(LOW)) == [made("a"), made(SMILE)]


@pytest.mark.parametrize("data", [{"delta": 1}, "reasoning", {}, {"delta": ""}])
def test_a_reasoning_of_a_chains_own_form_goes_by_as_it_is(data: Any) -> None:
    odd = protocol.custom("reasoning", data, stage="s")
    assert through(said(HIGH), odd, said(LOW)) == [odd, said(SMILE)]


def test_a_half_is_told_alone_before_its_node_ends() -> None:
    def node(name: str, run: int) -> Event:
        return protocol.node(name, run=run, index=0, count=1, parent="s", step=1, finished=True)

    told = through(said(HIGH, stage="n", run=1), said(HIGH, stage="n", run=2), node("n", 1), node("n", 2))
    assert told == [said(HIGH, stage="n", run=1), node("n", 1), said(HIGH, stage="n", run=2), node("n", 2)]


def test_only_so_many_wait() -> None:
    kept = Halves()
    told = [one for number in range(3 * halves.MOST) for one in kept.joined(said(HIGH, message=number))]
    assert told == [said(HIGH, message=number) for number in range(2 * halves.MOST)]
    assert len(list(kept.rest())) == halves.MOST


@given(st.lists(st.sampled_from(["a", HIGH, LOW, "é", HIGH + LOW, SMILE]), max_size=12))
def test_a_text_is_what_the_model_has_sent_and_its_pairs_are_whole(chunks: list[str]) -> None:
    told = texts(through(*map(said, chunks)))
    assert halves.paired("".join(told)) == halves.paired("".join(chunks))
    assert not any(one[-1] == HIGH and after[0] == LOW for one, after in pairwise(told))


async def test_an_events_text_without_halves_goes_on_as_the_very_event() -> None:
    told: list[Event] = []

    async def emit(event: Event) -> None:
        told.append(event)

    tap, given_ = Tap(emit, HERE), [said("plain"), said("é\u2028"), said(SMILE)]
    for event in given_:
        await tap.emit(event)
    assert all(one is other for one, other in zip(told, given_, strict=True))


async def test_a_half_from_another_thread_is_joined_and_one_alone_is_told_at_the_end() -> None:
    told: list[Event] = []

    async def emit(event: Event) -> None:
        told.append(event)

    tap = Tap(emit, HERE)
    async with tap.listening(Outcome()):
        for delta in (HIGH, LOW + HIGH):
            await asyncio.to_thread(tap.emit_now, said(delta))
    assert told == [said(SMILE), said(HIGH)]
