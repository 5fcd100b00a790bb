"""Parse a reader's connection: it may carry only frames, `retry:` and heartbeats.

The code follows `docs/protocol.md` and not the product's decoder, because it also checks the form.
"""

from __future__ import annotations

import re

LOG_LOST = b'id: 0\nevent: reset\ndata: {"reason":"log_lost"}\n\n'
_RETRY = re.compile(rb"retry: [0-9]+\n")
_FRAME = re.compile(rb"id: ([0-9]{1,10}-[0-9a-f]{4})\n(?:event: ([a-z]+)\n)?data: [^\r\n]*\n\n")
_TERMINAL = (b"done", b"failed", b"cancelled")


class BadWire(Exception):
    """Bytes that the contract does not allow."""


class Wire:
    """Take the bytes of one connection, return whole frames."""

    def __init__(self) -> None:
        self.heartbeats = 0
        self._buffer = b""
        self._framed = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the frames that are complete now. Raises BadWire."""
        self._buffer += data
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> bytes | None:
        while self._buffer.startswith(b":\n"):
            self.heartbeats += 1
            self._buffer = self._buffer[2:]
        if not self._framed and self._buffer.startswith(b"retry:"):
            line = _RETRY.match(self._buffer)
            if line is None and b"\n" in self._buffer:
                raise BadWire(f"not a retry line: {self._buffer[:100]!r}")
            if line is None:
                return None
            self._buffer = self._buffer[line.end() :]
            return self._next()
        end = self._buffer.find(b"\n\n")
        if end < 0:
            return None
        frame, self._buffer = self._buffer[: end + 2], self._buffer[end + 2 :]
        if frame != LOG_LOST and not _FRAME.fullmatch(frame):
            raise BadWire(f"not a frame: {frame[:200]!r}")
        self._framed = True
        return frame


def is_frame(frame: bytes) -> bool:
    """Return whether these bytes are one frame of a log."""
    return _FRAME.fullmatch(frame) is not None


def event_id(frame: bytes) -> str:
    """Return the id of a frame."""
    match = _FRAME.fullmatch(frame)
    assert match is not None
    return match[1].decode()


def kind(frame: bytes) -> bytes:
    """Return the `event:` of a frame; empty for text."""
    match = _FRAME.fullmatch(frame)
    return (match[2] or b"") if match else b"reset"


def terminal(frame: bytes) -> bool:
    """Return whether the frame ends its stream."""
    return kind(frame) in _TERMINAL


def frames_of(log: bytes) -> list[bytes]:
    """Return the frames of a log."""
    return [frame + b"\n\n" for frame in log.split(b"\n\n")[:-1]]
