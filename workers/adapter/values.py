"""What a chain yields beside text: names and values as events may bear them, and sums of chunks, bounded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from gateway import sse
from workers.writer import TooLong

NOTHING = object()
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


def clean(name: Any) -> str:
    """A name from a chain, as an event may bear it: without control characters, 200 characters at most."""
    return _CONTROLS.sub(" ", str(name)[:200])


def plain(value: Any) -> Any:
    """A value as it is read back from JSON: messages and models of pydantic by their fields.

    What is no JSON is its text.
    """
    if value is None or type(value) in (str, bool, int):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if not isinstance(value, type) and hasattr(value, "model_dump"):
        return plain(value.model_dump(warnings=False))
    try:
        return json.loads(sse.dumps(value))
    except (TypeError, ValueError):
        return str(value)


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
