"""Take choices, texts and values from a fuzzer's bytes. Missing bytes are read as zeros or as empty
values."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from typing import Any


class Source:
    """Bytes that are read from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def empty(self) -> bool:
        return self._at >= len(self._data)

    def byte(self) -> int:
        return (self.take(1) or b"\0")[0]

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def field(self) -> bytes:
        """Return the bytes up to a NUL and skip the NUL, so that a mutation can move and join fields."""
        found = self._data[self._at :].partition(b"\0")[0]
        self._at += len(found) + 1
        return found

    def text(self) -> str:
        """Return a field as text; bytes that are not UTF-8 become lone surrogates."""
        return self.field().decode("utf-8", "surrogateescape")

    def json(self) -> Any:
        """Return a field as JSON if it is valid JSON, else as text."""
        text = self.text()
        try:
            return json.loads(text, parse_constant=lambda _: None, parse_float=_finite)
        except (ValueError, RecursionError):
            return text

    def rest(self) -> bytes:
        return self.take(len(self._data))


def _finite(text: str) -> float | str:
    number = float(text)
    return text if number in (float("inf"), float("-inf")) else number


def pieces(data: bytes, size: int) -> list[bytes]:
    """Split the bytes into pieces of `size`."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waited")


def same(one: Any, other: Any) -> bool:
    """Return whether values and types are equal. A pair of surrogates equals its character."""
    spell = [json.dumps(value, sort_keys=True) for value in (one, other)]
    return spell[0] == spell[1]
