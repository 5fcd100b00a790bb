"""Check what a producer sends, and convert it to events.

The rules are the same in process and over HTTP. No I/O.

Each function raises Invalid, which names the field and the rule.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway import protocol
from gateway.producer.course import Course
from gateway.protocol import Event, sse
from gateway.protocol.errors import Invalid
from gateway.streams.messages import MOST_ID
from gateway.streams.strict_json import check_text

CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
WORD = re.compile(r"[a-z][a-z0-9_]{0,63}")
MOST_MESSAGE = 2000  # in characters
STATES = ("started", "finished", "failed")
MOST_TOKENS = 2**53 - 1


def text(value: Any, *, chain: str, stage: str) -> Event:
    """Make an event with a piece of text.

    Its `deployment`, a field of the original sample, is the name of the chain.
    """
    if not isinstance(value, str):
        raise Invalid("text", "must be a string")
    return protocol.text(value, deployment=chain, stage=stage)


def tool(name: Any, call_id: Any, state: Any, value: Any, *, stage: str) -> Event:
    """Make the event of a tool call's start or end.

    `value` is the input at the start, and the output at the end.
    """
    if not isinstance(call_id, str) or not 0 < len(call_id) <= MOST_ID:
        raise Invalid("call_id", f"must be a string of 1 to {MOST_ID} characters")
    if state not in STATES:
        raise Invalid("state", "must be started, finished or failed")
    return _json(protocol.tool(_name(name), call_id=call_id, stage=stage, state=state, said=value))


def custom(name: Any, data: Any, *, stage: str) -> Event:
    """Make a `custom` event. The producer and its readers define its name and data."""
    return _json(protocol.custom(_name(name), data, stage=stage))


def done(finish_reason: Any, usage: Any, *, attempts: int, duration_ms: int) -> Event:
    """Make the event of a stream's successful end."""
    if not isinstance(finish_reason, str) or not WORD.fullmatch(finish_reason):
        raise Invalid("finish_reason", "must be a word of lower-case letters, digits and _")
    if not isinstance(usage, Mapping) or not all(map(_is_count, usage.values())):
        raise Invalid("usage", "must be an object of numbers of tokens")
    for name in usage:
        _name(name, "usage")
    return protocol.done(
        finish_reason=finish_reason, usage=usage, attempts=attempts, duration_ms=max(0, duration_ms)
    )


def failed(code: Any, message: Any = "", retryable: Any = False) -> Event:
    """Make the event of a stream's end without a result."""
    if not isinstance(code, str) or not CODE.fullmatch(code):
        raise Invalid("code", "must be a word of lower-case letters, digits and _")
    if not isinstance(message, str) or len(message) > MOST_MESSAGE:
        raise Invalid("message", f"must be a string of at most {MOST_MESSAGE} characters")
    check_text("message", message)
    if not isinstance(retryable, bool):
        raise Invalid("retryable", "must be true or false")
    return protocol.failed(code, message, retryable=retryable)


def may_end(course: Course) -> None:
    """Raise Invalid if the stream may not be done, because a stage is not finished."""
    if course.stage or course.is_within:
        raise Invalid("stage", "must be finished before the stream is done")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS


def _name(value: Any, field: str = "name") -> str:
    if not isinstance(value, str) or not value:
        raise Invalid(field, "must be a name that is not empty")
    check_text(field, value)
    try:
        return protocol.name(value)
    except ValueError:
        raise Invalid(field, "may hold no CR, LF or NUL, nor more than 200 characters") from None


def _json(event: Event) -> Event:
    try:
        sse.dumps(event.data)
    except (TypeError, ValueError, RecursionError):
        raise Invalid("data", "must be JSON") from None
    return event
