"""The process's own log, to be told from a stream's: one line for each request and for each attempt.

A line is one line whatever stands in it: JSON escapes, and so does the text form, terminals' control
characters included. Invariant: values are ids, names, numbers and words of our own; never a query, a
header's value, a token, or what anybody said.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.protocol import sse

MOST_CHARACTERS = 200  # of one value: an owner's name may come from elsewhere
_TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
# C0, DEL, C1, the separators that count as line ends in places, and directions that turn a line around.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_PLAIN = re.compile(r"[\x21\x23-\x3c\x3e-\x7e]+")  # printable ASCII but space, quotation mark, equals sign
_notes: ContextVar[dict[str, object]] = ContextVar("notes")


@dataclass(frozen=True, slots=True)
class Told:
    """A message with values by name; as text it is `what name=value …`, as a platform's logging shows it."""

    what: str
    values: Mapping[str, object]

    def __str__(self) -> str:
        return " ".join([self.what, *(f"{name}={_shown(value)}" for name, value in self.values.items())])


class Text(logging.Formatter):
    """Lines for people."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def format(self, record: logging.LogRecord) -> str:
        """One line, a stack too."""
        return one_line(super().format(record))


class Json(logging.Formatter):
    """Lines for machines: an object each, with `time`, `level`, `logger`, `message` and the values."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, a stack too."""
        told = record.msg if isinstance(record.msg, Told) else Told(record.getMessage(), {})
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": told.what,
            **told.values,
        }
        if record.exc_info:
            line["stack"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)  # ASCII, so no character is a line's end by accident


def set_up(level: str, form: str) -> None:
    """This process's log, to stderr; `form` is `text` or `json`."""
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if form == "json" else Text())
    logging.basicConfig(level=level.upper(), handlers=[handler])


def tell(log: logging.Logger, level: int, what: str, **values: object) -> None:
    """Write a line; values that are empty are left out."""
    kept = {name: _bounded(value) for name, value in values.items() if value not in ("", None, {})}
    log.log(level, Told(what, kept))


def note(**values: object) -> None:
    """Add to the line of the request that is being answered; outside of one nothing happens."""
    if (notes := _notes.get(None)) is not None:
        notes.update(values)


@contextmanager
def noting() -> Iterator[dict[str, object]]:
    """A request is being answered; what is noted meanwhile."""
    notes: dict[str, object] = {}
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def trace_id(traceparent: str) -> str:
    """The trace that a `traceparent` of the right form belongs to."""
    return traceparent[3:35]


def one_line(text: str) -> str:
    """The text with every control character escaped."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _bounded(value: object) -> object:
    return value[:MOST_CHARACTERS] if isinstance(value, str) else value


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else sse.dumps(value).decode()
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
