"""What a chain yields beside text: names and values as events may bear them, and sums of chunks, bounded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from gateway import sse
from gateway.writing.writer import TooLong

NOTHING = object()
DEEPEST = 100  # levels of lists and mappings, one within the other, that an event may bear
CUT = "…"  # what stands for a value below that
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


def clean(name: Any) -> str:
    """A name from a chain, as an event may bear it: without control characters, 200 characters at most."""
    return _CONTROLS.sub(" ", str(name)[:200])


def plain(value: Any, levels: int = DEEPEST) -> Any:
    """A value as it is read back from JSON; it never raises.

    Messages, models of pydantic and dataclasses are told by their fields, sets as lists in an order of their
    own, names of mappings as text. What is no JSON is its text. Below `levels` a value is cut, so a value
    that holds itself has an end.
    """
    if value is None or type(value) in (str, bool, int):
        return value
    if isinstance(value, str):
        return str(value)
    if levels == 0:
        return CUT
    if isinstance(value, Mapping):
        return {_text(name): plain(item, levels - 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, levels - 1) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item, levels - 1) for item in value), key=sse.dumps)
    if (own := _fields(value)) is not None:
        return plain(own, levels - 1)
    try:
        return json.loads(sse.dumps(value))
    except (TypeError, ValueError, RecursionError):
        return _text(value)


def _fields(value: Any) -> Mapping[str, Any] | None:
    """The fields of a model of pydantic's or of a dataclass; None for anything else."""
    if isinstance(value, type):
        return None
    if is_dataclass(value):
        return {field.name: getattr(value, field.name, None) for field in fields(value)}
    if hasattr(value, "model_dump"):
        try:
            own = value.model_dump(warnings=False, serialize_as_any=True)  # each by its own class's fields
        except Exception:  # an author's serializer: the value is told as its text
            return None
        return own if isinstance(own, Mapping) else None
    return None


def _text(value: Any) -> str:
    """A value as text; of an exception without words, its class; of an object without text, its type."""
    try:
        return str(value) or repr(value)
    except Exception:  # an author's __str__
        return f"<{type(value).__name__}>"


def size_of(value: Any) -> int:
    """Bytes of a value as JSON."""
    return len(sse.dumps(plain(value)))


class Sum:
    """Chunks added up by LangChain's own rule: added where they can be, else the last counts.

    `grows`: each chunk is the whole so far, and the last counts. `most` bounds the whole, in bytes of JSON.
    """

    def __init__(self, most: int, *, grows: bool = False, size: Callable[[Any], int] = size_of) -> None:
        self.value: Any = NOTHING
        self._most = most
        self._grows = grows
        self._size_of = size
        self._size = 0  # at least what the sum has, as parts of chunks may replace each other

    def add(self, chunk: Any) -> None:
        """Take the next chunk. Raises TooLong."""
        before = self.value
        self.value = chunk if before is NOTHING or self._grows else _added(before, chunk)
        is_sum = before is not NOTHING and self.value is not chunk
        self._size = self._size_of(chunk) + (self._size if is_sum else 0)
        if is_sum and self._size > self._most:
            self._size = self._size_of(self.value)
        if self._size > self._most:
            raise TooLong


def _added(value: Any, chunk: Any) -> Any:
    """Of a mapping that LangChain adds up, as a RunnableParallel yields, each member is added or replaced."""
    from langchain_core.runnables.utils import AddableDict

    try:
        return value + chunk
    except TypeError:
        if not (isinstance(value, AddableDict) and isinstance(chunk, AddableDict)):
            return chunk
    own = {name: _added(value[name], item) if name in value else item for name, item in chunk.items()}
    return AddableDict({**value, **own})
