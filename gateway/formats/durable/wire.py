"""What stands on a Durable Streams wire: messages, offsets, control events, cursors. No I/O.

An event is one message, whatever came before it, so nothing is replayed for a reader that resumes: its
offset is the id of the last event that it has, padded so that offsets sort as text. It proves itself as the
id does. A message holds the event's id as it is, and its data byte for byte: `discard_after` finds it.
(github.com/durable-streams/durable-streams, PROTOCOL.md: the sections that are named below.)
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from starlette.datastructures import QueryParams

from gateway.protocol import Cursor, sse
from gateway.protocol.errors import Malformed

BEGINNING, NOW = "-1", "now"
LONG_POLL, SSE = "long-poll", "sse"
_OFFSET = re.compile(r"([0-9]{10})-([0-9a-f]{4})")
_CURSOR = re.compile(r"[0-9]{1,15}")
# 8.1: a cursor is the number of the 20 s that have passed since; it is jittered by up to an hour.
_EPOCH = datetime(2024, 10, 9, tzinfo=UTC).timestamp()
_INTERVAL_SECONDS = 20
_JITTER_SECONDS = 3600


def message(frame: bytes) -> bytes:
    """One of our own frames as a JSON message, `{"type", "id", "data"}`; a text's type is `message`."""
    first, *_, last = frame.rstrip(b"\n").split(b"\n")
    kind = sse.frame_kind(frame).removeprefix(b"event: ") or b"message"
    event_id, data = first.removeprefix(sse.ID_PREFIX), last.removeprefix(b"data: ")
    return b'{"type":"%b","id":"%b","data":%b}' % (kind, event_id, data)


def array(frames: bytes) -> bytes:
    """The messages of whole frames, as the array that 7.1 asks for."""
    return b"[%b]" % b",".join(map(message, sse.split_frames(frames)))


def offset(event_id: str) -> str:
    """The offset of a reader whose last event is this one."""
    number, _, tag = event_id.partition("-")
    return f"{number:0>10}-{tag}"


def event_id(text: str) -> Cursor:
    """The last event of a reader who stands at this offset. Raises Malformed for what is none of ours."""
    found = _OFFSET.fullmatch(text)
    if found is None:
        raise Malformed("offset is not one of this gateway")
    return Cursor.parse(f"{int(found[1])}-{found[2]}")


def one(query: QueryParams, name: str) -> str | None:
    """A parameter that may be given once. Raises Malformed."""
    given = query.getlist(name)
    if len(given) > 1:
        raise Malformed(f"{name} was given twice")
    return given[0] if given else None


def next_cursor(echoed: str) -> str:
    """The cursor of an answer; later than the one that the client has sent (8.1). Any other text is none."""
    now = int(time.time() - _EPOCH) // _INTERVAL_SECONDS
    had = int(echoed) if _CURSOR.fullmatch(echoed) else -1
    return str(now if had < now else had + random.randint(1, _JITTER_SECONDS // _INTERVAL_SECONDS))


def place(event_id: str, *, up_to_date: bool, closed: bool, cursor: str = "") -> dict[str, str]:
    """The headers that say where an answer leaves its reader; at a stream's end no cursor is needed."""
    told = {"stream-next-offset": offset(event_id)}
    if up_to_date:
        told["stream-up-to-date"] = "true"
    if closed:
        told["stream-closed"] = "true"
    elif cursor:
        told["stream-cursor"] = cursor
    return told


def control(event_id: str, *, up_to_date: bool, closed: bool, cursor: str) -> bytes:
    """The same as the event that follows every `data` event (5.8)."""
    told: dict[str, str | bool] = {"streamNextOffset": offset(event_id)}
    if not closed:
        told["streamCursor"] = cursor
    if up_to_date:
        told["upToDate"] = True
    if closed:
        told["streamClosed"] = True
    return b"event: control\ndata:%b\n\n" % sse.dumps(told)


def batch(frames: bytes, *, up_to_date: bool, cursor: str) -> bytes:
    """Whole frames as one `data` event and its `control`, which a client must not be given one by one."""
    last = sse.split_frames(frames)[-1]
    last_id = last.partition(b"\n")[0].removeprefix(sse.ID_PREFIX).decode()
    closed = sse.is_terminal(last)
    end = control(last_id, up_to_date=up_to_date or closed, closed=closed, cursor=cursor)
    return b"event: data\ndata:%b\n\n%b" % (array(frames), end)


def etag(stream_id: str, asked: str, told: Mapping[str, str]) -> str:
    """Of a page: the log is only appended to, so what lies between two offsets never changes.

    But a page that was the log's end once need not be it for ever.
    """
    end = "end" if "stream-up-to-date" in told else "more"
    return f'"{stream_id}:{asked}:{told["stream-next-offset"]}:{end}"'
