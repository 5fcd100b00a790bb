"""Long JSON, written in pieces: no piece takes more than some milliseconds to make."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from gateway import sse

LONG = 16 * 1024  # characters of a text that counts
PIECE_BYTES = 64 * 1024
MOST_PARTS = 2000  # values in one piece


def pieces(value: Any) -> Iterator[bytes]:
    """The JSON of a value, in pieces of some 64 KiB, each made in a few milliseconds."""
    piece, parts = bytearray(), 0
    for part in _parts(value):
        piece += part
        parts += 1
        if len(piece) >= PIECE_BYTES or parts >= MOST_PARTS:
            yield bytes(piece)
            piece, parts = bytearray(), 0
    yield bytes(piece)


def _parts(value: Any) -> Iterator[bytes]:
    if isinstance(value, str) and len(value) > LONG:
        yield b'"'
        for start in range(0, len(value), LONG):
            yield sse.dumps(value[start : start + LONG])[1:-1]
        yield b'"'
    elif isinstance(value, dict) and value:
        for number, (name, item) in enumerate(value.items()):
            yield (b"," if number else b"{") + sse.dumps(name) + b":"
            yield from _parts(item)
        yield b"}"
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield b"," if number else b"["
            yield from _parts(item)
        yield b"]"
    else:
        yield sse.dumps(value)


def size_of(value: Any) -> int:
    """Bytes of the long texts in a JSON value, each counted once."""
    seen: dict[int, int] = {}
    below = [value]
    while below:
        one = below.pop()
        if isinstance(one, str):
            if len(one) > LONG:
                seen[id(one)] = sys.getsizeof(one)
        elif isinstance(one, dict):
            below += one.values()
        elif isinstance(one, list):
            below += one
    return sum(seen.values())
