"""The log of the process (not of a stream): one line for each request and for each attempt.

An entry is always one line: JSON escapes line ends. The text form escapes them too, and also control
characters of terminals. Invariant: values are ids, names, numbers and words of the gateway. They are never a
query, a header's value, a token, or content of users or models.
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

MOST_CHARACTERS = 200  # limit for one value: the name of an owner may come from another system
_TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
# C0, DEL, C1, the separators that count as line ends in some programs, and characters that reverse the
# direction of text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
# printable ASCII without space, quotation mark and equals sign
_PLAIN = re.compile(r"[\x21\x23-\x3c\x3e-\x7e]+")
_notes: ContextVar[dict[str, object]] = ContextVar("notes")


@dataclass(frozen=True, slots=True)
class Told:
    """A message with named values.

    Its text form is `what name=value …`, which the logging of a platform shows.
    """

    what: str
    values: Mapping[str, object]

    def __str__(self) -> str:
        return " ".join([self.what, *(f"{name}={_shown(value)}" for name, value in self.values.items())])


class Text(logging.Formatter):
    """Formats lines for people."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, including a stack trace."""
        return one_line(super().format(record))


class Json(logging.Formatter):
    """Formats lines for programs: JSON objects with `time`, `level`, `logger`, `message` and the values."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, including a stack trace."""
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
        return json.dumps(line, default=str)  # ASCII only, so no character can end the line


def set_up(level: str, form: str) -> None:
    """Set up the log of this process, which is written to stderr. `form` is `text` or `json`."""
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if form == "json" else Text())
    logging.basicConfig(level=level.upper(), handlers=[handler])


def tell(log: logging.Logger, level: int, what: str, **values: object) -> None:
    """Write a line. Empty values are left out."""
    kept = {name: _bounded(value) for name, value in values.items() if value not in ("", None, {})}
    log.log(level, Told(what, kept))


def note(**values: object) -> None:
    """Add values to the log line of the present request. Outside of a request this does nothing."""
    if (notes := _notes.get(None)) is not None:
        notes.update(values)


@contextmanager
def noting() -> Iterator[dict[str, object]]:
    """Begin a request. Yield the mapping to which `note` adds values until the block ends."""
    notes: dict[str, object] = {}
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def trace_id(traceparent: str) -> str:
    """Return the trace id in a valid `traceparent`."""
    return traceparent[3:35]


def one_line(text: str) -> str:
    """Return the text with every control character escaped."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _bounded(value: object) -> object:
    return value[:MOST_CHARACTERS] if isinstance(value, str) else value


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else sse.dumps(value).decode()
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
