"""Convert the other values that a chain yields for events, and add up chunks within a size limit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from gateway.protocol import sse
from gateway.writing.writer import TooLong

NOTHING = object()
DEEPEST = 100  # most nested levels of lists and mappings in an event
CUT = "…"  # replaces a value below that level
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


def clean(name: Any) -> str:
    """Return a chain's name for use in an event: without control characters, at most 200 characters."""
    return _CONTROLS.sub(" ", str(name)[:200])


def plain(value: Any, levels: int = DEEPEST) -> Any:
    """Return a value as it would be read back from JSON. This never raises.

    Messages, pydantic models and dataclasses become mappings of their fields. Sets become sorted lists. Names
    in mappings become text. A value that has no JSON becomes its text. Below `levels` a value is cut, so a
    value that contains itself ends too.
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
    """Return the fields of a pydantic model or a dataclass, or None for anything else."""
    if isinstance(value, type):
        return None
    if is_dataclass(value):
        return {field.name: getattr(value, field.name, None) for field in fields(value)}
    if hasattr(value, "model_dump"):
        try:
            # each with the fields of its own class
            own = value.model_dump(warnings=False, serialize_as_any=True)
        except Exception:  # an author's serializer may raise; then the value becomes its text
            return None
        return own if isinstance(own, Mapping) else None
    return None


def _text(value: Any) -> str:
    """Return a value as text. An exception or object without text is shown by its class."""
    try:
        return str(value) or repr(value)
    except Exception:  # an author's __str__ may raise
        return f"<{type(value).__name__}>"


def size_of(value: Any) -> int:
    """Return the number of bytes of a value as JSON."""
    return len(sse.dumps(plain(value)))


class Sum:
    """The sum of chunks by LangChain's own rule: chunks that cannot be added replace the earlier ones.

    `grows`: each chunk is the whole value so far, so the last one is used. `most` limits the whole, in bytes
    of JSON.
    """

    def __init__(self, most: int, *, grows: bool = False, size: Callable[[Any], int] = size_of) -> None:
        self.value: Any = NOTHING
        self._most = most
        self._grows = grows
        self._size_of = size
        # an upper bound for the size of the sum, because parts of chunks may replace each other
        self._size = 0

    def add(self, chunk: Any) -> None:
        """Add the next chunk. Raises TooLong."""
        before = self.value
        self.value = chunk if before is NOTHING or self._grows else _added(before, chunk)
        is_sum = before is not NOTHING and self.value is not chunk
        self._size = self._size_of(chunk) + (self._size if is_sum else 0)
        if is_sum and self._size > self._most:
            self._size = self._size_of(self.value)
        if self._size > self._most:
            raise TooLong


def _added(value: Any, chunk: Any) -> Any:
    """Add a chunk.

    In a mapping that LangChain adds up (of a RunnableParallel), each member is added or replaced.
    """
    from langchain_core.runnables.utils import AddableDict

    try:
        return value + chunk
    except TypeError:
        if not (isinstance(value, AddableDict) and isinstance(chunk, AddableDict)):
            return chunk
    own = {name: _added(value[name], item) if name in value else item for name, item in chunk.items()}
    return AddableDict({**value, **own})
