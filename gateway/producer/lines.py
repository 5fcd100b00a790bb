"""The lines that a producer sends by HTTP: NDJSON with one event per line. Each line is checked. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.protocol.errors import Invalid, Malformed
from gateway.streams.strict_json import Bounds, parse_json, shown

# For each type of line: the required fields, then the optional fields.
FIELDS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "stage": (("name", "state"), ("result",)),
    "text": (("stage", "text"), ()),
    "tool": (("stage", "name", "call_id", "state"), ("input", "output")),
    "custom": (("stage", "name", "data"), ()),
    "done": ((), ("finish_reason", "usage")),
    "failed": (("code",), ("message", "retryable")),
}
# types of lines that end the stream, and the status of the stream after that
ENDS = {"done": "done", "failed": "failed"}


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `number` counts from 1 within its request."""

    number: int
    type: str
    given: Mapping[str, Any] = field(repr=False)

    @property
    def ends(self) -> str:
        """The status of the stream after this line; empty if the line does not end the stream."""
        return ENDS.get(self.type, "")

    def broken(self, error: Invalid) -> Invalid:
        """Return the same error, with the number of this line."""
        return Invalid(f"line {self.number}: {error.extensions['field']}", str(error.extensions["rule"]))


def parse(body: bytes, bounds: Bounds) -> list[Line]:
    """Parse all lines of a body.

    The last line may lack its line feed. Raises Invalid, which names the line.
    """
    whole = body.removesuffix(b"\n").split(b"\n") if body else []
    if len(whole) > bounds.items:
        raise Invalid("body", f"may have {bounds.items} lines")
    lines = [_line(number, raw, bounds) for number, raw in enumerate(whole, 1)]
    for line in lines[:-1]:
        if line.ends:
            raise Invalid(f"line {line.number + 1}", "nothing may follow the end")
    return lines


def _line(number: int, raw: bytes, bounds: Bounds) -> Line:
    try:
        value = parse_json(raw, bounds)
    except Malformed:
        raise Invalid(f"line {number}", "is not JSON in UTF-8") from None
    except Invalid as error:
        raise Line(number, "", {}).broken(error) from None
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in FIELDS:
        raise Invalid(f"line {number}: type", f"must be one of {', '.join(FIELDS)}")
    needed, others = FIELDS[kind]
    for name in value:
        if name not in ("type", *needed, *others):
            raise Invalid(f"line {number}: {shown(name)}", f"is not a field of type {kind}")
    for name in needed:
        if name not in value:
            raise Invalid(f"line {number}: {name}", "must be given")
    return Line(number, kind, value)
