"""A log entry of the process is one line, whatever text it contains, with exactly the logged values."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from gateway.observe import loglines
from gateway.observe.loglines import MOST_CHARACTERS, Json, Text, Told

HOSTILE = 'a\r\nb\x00\x1b[2J\x7f\x85\u2028\u2029\u202ec="d" é'
LINE_ENDS = ("\r", "\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029")


def record(message: object, *arguments: object, **more: Any) -> logging.LogRecord:
    return logging.LogRecord("holdfast.test", logging.INFO, "", 0, message, arguments, None, **more)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "holdfast.test")
    return caplog


@pytest.mark.parametrize("message", [HOSTILE, Told("what", {"value": HOSTILE}), Told(HOSTILE, {})], ids=str)
def test_text_is_one_line_whatever_stands_in_it(message: object) -> None:
    line = Text().format(record(message))
    assert line.splitlines() == [line]
    assert line.isprintable()


@pytest.mark.parametrize("message", [HOSTILE, Told("what", {"value": HOSTILE}), Told(HOSTILE, {})], ids=str)
def test_json_is_one_line_and_gives_back_what_was_told(message: object) -> None:
    line = Json().format(record(message))
    assert line.splitlines() == [line]
    assert line.isascii()
    assert HOSTILE in json.loads(line).values()


@pytest.mark.parametrize("end", LINE_ENDS)
def test_no_character_ends_a_line_of_either_kind(end: str) -> None:
    for formatter in (Text(), Json()):
        line = formatter.format(record(f"a{end}b"))
        assert end not in line
        assert len(line.splitlines()) == 1


def test_a_stack_is_told_in_one_line() -> None:
    try:
        raise ValueError("x")
    except ValueError:
        info = sys.exc_info()
    failing = logging.LogRecord("holdfast.test", logging.ERROR, "", 0, "failed", (), info)
    assert len(Text().format(failing).splitlines()) == 1
    assert "test_journal.py" in Text().format(failing)
    failing.exc_text = None
    assert "test_journal.py" in json.loads(Json().format(failing))["stack"]


def test_the_text_form_quotes_what_would_be_taken_for_another_value() -> None:
    values = {"plain": "a/{b}-c", "spaced": "a b", "forged": "a status=200", "number": 1.5, "usage": {"n": 1}}
    said = str(Told("request", values))
    assert said == ('request plain=a/{b}-c spaced="a b" forged="a status=200" number=1.5 usage="{\\"n\\":1}"')


def test_json_carries_time_level_logger_and_each_value() -> None:
    line = json.loads(Json().format(record(Told("request", {"status": 200, "usage": {"n": 1}}))))
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "holdfast.test",
        "message": "request",
        "status": 200,
        "usage": {"n": 1},
    }


def test_empty_values_are_left_out_and_long_ones_cut(told: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("holdfast.test")
    loglines.tell(log, logging.INFO, "x", none=None, empty="", nothing={}, zero=0, long="y" * 10_000)
    [line] = told.records
    assert isinstance(line.msg, Told)
    assert line.msg.values == {"zero": 0, "long": "y" * MOST_CHARACTERS}


def test_notes_belong_to_the_request_that_is_being_answered() -> None:
    loglines.note(lost=1)
    with loglines.noting() as outer:
        loglines.note(a=1)
        with loglines.noting() as inner:
            loglines.note(a=2, b=3)
        loglines.note(c=4)
    loglines.note(lost=2)
    assert (outer, inner) == ({"a": 1, "c": 4}, {"a": 2, "b": 3})


def test_a_trace_is_named_by_its_id_alone() -> None:
    assert loglines.trace_id(f"00-{'a' * 32}-{'b' * 16}-01") == "a" * 32
    assert loglines.trace_id("") == ""
