r"""Server-sent events: frames to bytes, and an incremental decoder. No I/O.

Our own frames are plainer than the format allows: `id:` first, one line `data:` of JSON, LF as line end. So
the log can be cut at `\n\n` without parsing. The decoder accepts everything that WHATWG's rules allow, and
its input may be split at any byte (HTML Living Standard, 9.2.6).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.protocol.events import TERMINAL_EVENTS, Event, EventType

HEARTBEAT = b":\n"
FRAME_END = b"\n\n"
ID_PREFIX = b"id: "
NEXT_FRAME = FRAME_END + ID_PREFIX
LOG_LOST = b'id: 0\nevent: reset\ndata: {"reason":"log_lost"}\n\n'
# Eleven days, in ms. `int` raises an error for a number of thousands of digits.
_LONGEST_RETRY_MS = 999_999_999
STAGE_LINE = b"\nevent: " + EventType.STAGE.encode() + b"\n"
RESET = b"event: " + EventType.RESET.encode()
# Some readers treat these characters as line ends (for example Python's `splitlines`), but SSE does not. They
# are escaped in JSON.
_LINE_ENDS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))
_TERMINAL_LINES = frozenset(b"event: " + kind.encode() for kind in TERMINAL_EVENTS)


def dumps(data: Any) -> bytes:
    """Return the data as one line of JSON.

    U+2028, U+2029 and U+0085 are escaped, because some readers treat them as line ends. A lone surrogate is
    escaped too, because UTF-8 cannot encode it (RFC 8259, 8.2).
    """
    try:
        line = orjson.dumps(data)
    except orjson.JSONEncodeError:
        return json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    if not line.isascii():
        for end, escape in _LINE_ENDS:
            if end in line:
                line = line.replace(end, escape)
    return line


def encode(event: Event, offset: int, tag: str) -> bytes:
    """Return the frame, in bytes, of an event that begins at `offset` of its log."""
    kind = b"event: %b\n" % event.type.encode() if event.type else b""
    return b"id: %d-%b\n%bdata: %b\n\n" % (offset, tag.encode(), kind, dumps(event.data))


def retry(milliseconds: int) -> bytes:
    """Return the `retry:` line.

    No blank line follows it, so no client takes it for an event.
    """
    return b"retry: %d\n" % milliseconds


def frame_kind(frame: bytes) -> bytes:
    """Return the second line of one of our own frames if it is an `event:` line.

    Returns nothing for a text event, which has no such line.
    """
    line = frame.split(b"\n", 2)[1]
    return line if line.startswith(b"event: ") else b""


def is_terminal(frame: bytes) -> bool:
    """Whether this frame, one of our own, ends its stream."""
    return frame_kind(frame) in _TERMINAL_LINES


def split_frames(frames: bytes) -> list[bytes]:
    """Split bytes of our own whole frames into single frames."""
    return [frame + FRAME_END for frame in frames.split(FRAME_END)[:-1]]


@dataclass(frozen=True, slots=True)
class Message:
    """One dispatched event as a client gets it: the last id, the type (default: `message`), and the data."""

    id: str
    type: str
    data: str

    def event(self) -> Event:
        """Return the protocol's event.

        Raises ValueError for a type or data that our logs never contain.
        """
        kind = EventType.MESSAGE if self.type == "message" else EventType(self.type)
        return Event(kind, json.loads(self.data))


class Decoder:
    """A decoder that takes bytes, split anywhere, and returns messages.

    It keeps `last_id` and `retry_ms` as WHATWG's rules say. It stores at most `limit` bytes of an unfinished
    event, and raises ValueError for more.
    """

    def __init__(self, limit: int = 16 * 1024 * 1024) -> None:
        self.last_id = ""
        self.retry_ms: int | None = None
        self._limit = limit
        # Grown in place: the time for a line that comes in many pieces is linear in its length, not
        # quadratic.
        self._tail = bytearray()
        self._started = False
        self._after_cr = False
        self._type = ""
        self._data: list[str] = []
        self._id: str | None = None
        self._held = 0

    def feed(self, data: bytes) -> list[Message]:
        """Add the next bytes, and return the messages that are now complete."""
        if not self._started:
            data = bytes(self._tail) + data
            if len(data) < 3 and b"\xef\xbb\xbf".startswith(data):
                self._tail[:] = data
                return []
            self._started = True
            self._tail.clear()
            data = data.removeprefix(b"\xef\xbb\xbf")
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        self._after_cr = self._after_cr or data.endswith(b"\r")
        first, *others = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._tail += first
        messages = []
        for line in others:
            if (message := self._line(bytes(self._tail))) is not None:
                messages.append(message)
            self._tail[:] = line
        if len(self._tail) + self._held > self._limit:
            raise ValueError("an event is larger than the decoder's bound")
        return messages

    def _line(self, line: bytes) -> Message | None:
        if not line:
            return self._dispatch()
        field, _, value = line.decode(errors="replace").partition(":")
        value = value.removeprefix(" ")
        if field in ("event", "data", "id"):
            self._held += len(line)
        match field:
            case "event":
                self._type = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isascii() and value.isdigit():
                digits = value.lstrip("0") or "0"
                self.retry_ms = int(digits) if len(digits) < 10 else _LONGEST_RETRY_MS
        return None

    def _dispatch(self) -> Message | None:
        if self._id is not None:
            self.last_id = self._id
        data, kind = self._data, self._type
        self._data, self._type, self._held = [], "", 0
        if not data:
            return None
        return Message(self.last_id, kind or "message", "\n".join(data))
