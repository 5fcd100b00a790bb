"""Takes choices, texts and values out of a fuzzer's bytes; what is missing reads as zeros and nothing."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from typing import Any


class Source:
    """Bytes, read from the front."""

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
        """Up to a NUL, which is taken too, so that fields can be moved and joined by a mutation."""
        found = self._data[self._at :].partition(b"\0")[0]
        self._at += len(found) + 1
        return found

    def text(self) -> str:
        """A field as text; what is not UTF-8 becomes lone surrogates."""
        return self.field().decode("utf-8", "surrogateescape")

    def json(self) -> Any:
        """A field as the JSON that it spells, else as the text that it is."""
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
    """The same bytes, `size` at a time."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waited")


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types; a pair of surrogates is the character that it spells."""
    spell = [json.dumps(value, sort_keys=True) for value in (one, other)]
    return spell[0] == spell[1]
