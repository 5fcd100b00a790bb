"""Write long JSON in pieces. Each piece takes at most a few milliseconds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from gateway.protocol import sse

LONG = 16 * 1024  # a text with more characters is written in pieces
LARGE = 256 * 1024  # a value with more bytes is written in pieces
BYTES_OF_A_VALUE = 64
PIECE_BYTES = 64 * 1024
MOST_PARTS = 2000  # most values in one piece


def pieces(value: Any) -> Iterator[bytes]:
    """Yield the JSON of a value in pieces of about 64 KiB. Each takes a few milliseconds."""
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
    """Return about how many bytes of memory a JSON value uses. A text that occurs twice in it counts once."""
    seen: dict[int, int] = {}
    below, others = [value], 0
    while below:
        one = below.pop()
        if isinstance(one, str):
            seen[id(one)] = sys.getsizeof(one)
        elif isinstance(one, dict):
            below += one.values()
        elif isinstance(one, list | tuple):
            below += one
        others += BYTES_OF_A_VALUE
    return sum(seen.values()) + others


def is_long(value: Any) -> bool:
    """Return whether the JSON of this value should be written in pieces."""
    return size_of(value) > LARGE
