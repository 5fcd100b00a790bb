"""Where a producer is within its stages: what is written for its words, and going on in another process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway import protocol
from gateway.producer.course import Course
from gateway.protocol import Event, EventType
from gateway.protocol.errors import Invalid, TooLarge
from gateway.store.record import Record
from gateway.writing.matcher import Published


def record(course: str = "", attempt: int = 2, **results: Any) -> Record:
    kept = {f"ckpt:{stage} 1": json.dumps({"result": value}).encode() for stage, value in results.items()}
    raw = {
        "status": b"running",
        "stages": b'["a","b"]',
        "attempt": b"%d" % attempt,
        "course": course.encode(),
    }
    return Record.of("i", raw | kept)


def text(delta: str) -> Event:
    return protocol.text(delta, deployment="c", stage="a")


def tool(call_id: str, state: str) -> Event:
    return protocol.tool("t", call_id=call_id, stage="a", state=state, said=1)


def published(*events: Event) -> Published:
    return Published(stage="a", run=1, started_id="9-aaaa", events=list(events))


def kinds(events: list[Event]) -> list[str]:
    return [event.data.get("delta_content") or event.data.get("call_id") or event.type for event in events]


def test_stages_begin_and_end_in_their_order() -> None:
    course = Course(record(), Published())
    [begun] = course.begin("a")
    assert begun.data == {"name": "a", "run": 1, "index": 0, "count": 2, "state": "started"}
    assert course.take(text("x")) == [text("x")]
    [ended] = course.end()
    assert ended.data["state"] == "finished"
    assert course.finished("x", 100) == {"ckpt:a 1": b'{"result":"x","usage":{}}'}
    assert not course.is_whole
    course.begin("b")
    course.end()
    course.finished(None, 100)
    assert course.is_whole
    assert course.begin("a") == course.take(text("y")) == course.end() == []
    assert course.finished("y", 0) == {}


@pytest.mark.parametrize("stage", ["b", "c", ""])
def test_a_stage_whose_turn_it_is_not_is_refused(stage: str) -> None:
    with pytest.raises(Invalid):
        Course(record(), Published()).begin(stage)
    course = Course(record(), Published())
    course.begin("a")
    with pytest.raises(Invalid):
        course.begin("a")


def test_results_are_bounded_in_all() -> None:
    course = Course(record(a="x" * 60), Published())
    course.begin("b")
    with pytest.raises(TooLarge):
        course.finished("y" * 60, 150)
    assert course.stage == "b"


def test_what_stands_is_left_out_and_the_first_difference_is_a_reset() -> None:
    course = Course(record(), published(text("x"), text("y"), text("z")))
    assert course.is_within
    assert course.begin("a") == course.take(text("x")) == course.take(text("y")) == []
    assert kinds(course.take(text("other"))) == ["reset", "x", "y", "other"]
    assert kinds(course.take(text("z"))) == ["z"]


SAID = [text("x"), tool("own", "started"), text("y"), tool("own", "finished"), text("z"), text("end")]
STANDS = [text("x"), tool("old", "started"), text("y"), tool("old", "finished"), text("Z"), text("more")]


@pytest.mark.parametrize("standing", range(len(STANDS) + 1))
def test_another_process_at_any_point_writes_the_same(standing: int) -> None:
    before = published(*STANDS[:standing])
    whole, apart = Course(record(), before), Course(record(), before)
    written: list[list[Event]] = [[], []]
    written[0] += whole.begin("a")
    written[1] += apart.begin("a")
    for event in SAID:
        written[0] += whole.take(event)
        apart = Course.read(record(course=apart.state()), before)
        written[1] += apart.take(event)
    apart = Course.read(record(course=apart.state()), before)
    written[0] += whole.end()
    written[1] += apart.end()
    assert written[0] == written[1]
    ids = {event.data["call_id"] for event in written[1] if event.type is EventType.TOOL}
    assert len(ids) <= 1


def test_another_process_passes_a_finished_stage_over_too() -> None:
    course = Course(record(a="r"), Published())
    course.begin("a")
    again = Course.read(record(course=course.state(), a="r"), Published())
    assert again.passes_over
    assert again.result("a") == "r"
    assert again.take(text("x")) == again.end() == []
