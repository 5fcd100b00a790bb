"""Every target by name. A target is a function of bytes that returns, or fails if a property does not
hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.fuzz import asked, callers, door, wire

CORPUS = Path(__file__).parent / "corpus"
_FUNCTIONS: tuple[Callable[[bytes], None], ...] = (
    wire.decoder,
    wire.frames,
    wire.message,
    wire.block,
    asked.ids,
    asked.headers,
    asked.body,
    asked.request,
    callers.tokens,
    callers.authorization,
    callers.keys,
    door.door,
)
TARGETS: Mapping[str, Callable[[bytes], None]] = {function.__name__: function for function in _FUNCTIONS}
