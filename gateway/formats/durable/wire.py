"""The data of the Durable Streams protocol: messages, offsets, control events, cursors. No I/O.

Each event is exactly one message and does not depend on earlier events. So a reader that resumes needs no
replay. A reader's offset is the id of the last event that the reader has, padded so that offsets sort as
text. Like the id, the offset contains a tag that shows whether it belongs to this log. A message contains the
event's id unchanged, so a client can find the event that `discard_after` names. It contains the event's data
byte for byte. The section numbers in this package refer to PROTOCOL.md in
github.com/durable-streams/durable-streams.
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
# 8.1: a cursor is the number of intervals of 20 s since this time (Unix time, in seconds). If the client's
# cursor is not smaller, the next one is the client's cursor plus a random number of intervals, up to one
# hour.
_EPOCH = datetime(2024, 10, 9, tzinfo=UTC).timestamp()
_INTERVAL_SECONDS = 20
_JITTER_SECONDS = 3600


def message(frame: bytes) -> bytes:
    """Convert a frame of this gateway's own format to a JSON message `{"type", "id", "data"}`.

    The type of a text is `message`.
    """
    first, *_, last = frame.rstrip(b"\n").split(b"\n")
    kind = sse.frame_kind(frame).removeprefix(b"event: ") or b"message"
    event_id, data = first.removeprefix(sse.ID_PREFIX), last.removeprefix(b"data: ")
    return b'{"type":"%b","id":"%b","data":%b}' % (kind, event_id, data)


def array(frames: bytes) -> bytes:
    """Convert complete frames to a JSON array of messages, as section 7.1 requires."""
    return b"[%b]" % b",".join(map(message, sse.split_frames(frames)))


def offset(event_id: str) -> str:
    """Return the offset of a reader whose last event is `event_id`."""
    number, _, tag = event_id.partition("-")
    return f"{number:0>10}-{tag}"


def event_id(text: str) -> Cursor:
    """Return the last event that a reader at this offset has.

    Raises Malformed for a text that is not an offset of this gateway.
    """
    found = _OFFSET.fullmatch(text)
    if found is None:
        raise Malformed("offset is not one of this gateway")
    return Cursor.parse(f"{int(found[1])}-{found[2]}")


def one(query: QueryParams, name: str) -> str | None:
    """Return a parameter that may be given once, or None. Raises Malformed if it is given twice."""
    given = query.getlist(name)
    if len(given) > 1:
        raise Malformed(f"{name} was given twice")
    return given[0] if given else None


def next_cursor(echoed: str) -> str:
    """Return the cursor for an answer: it is later than the cursor `echoed` that the client has sent (8.1).

    If `echoed` is not a cursor, it is ignored.
    """
    now = int(time.time() - _EPOCH) // _INTERVAL_SECONDS
    had = int(echoed) if _CURSOR.fullmatch(echoed) else -1
    return str(now if had < now else had + random.randint(1, _JITTER_SECONDS // _INTERVAL_SECONDS))


def place(event_id: str, *, up_to_date: bool, closed: bool, cursor: str = "") -> dict[str, str]:
    """Return the headers with the reader's next offset.

    If the stream is closed, there is no cursor in them.
    """
    told = {"stream-next-offset": offset(event_id)}
    if up_to_date:
        told["stream-up-to-date"] = "true"
    if closed:
        told["stream-closed"] = "true"
    elif cursor:
        told["stream-cursor"] = cursor
    return told


def control(event_id: str, *, up_to_date: bool, closed: bool, cursor: str) -> bytes:
    """Return the `control` event with the reader's next offset; it follows every `data` event (5.8)."""
    told: dict[str, str | bool] = {"streamNextOffset": offset(event_id)}
    if not closed:
        told["streamCursor"] = cursor
    if up_to_date:
        told["upToDate"] = True
    if closed:
        told["streamClosed"] = True
    return b"event: control\ndata:%b\n\n" % sse.dumps(told)


def batch(frames: bytes, *, up_to_date: bool, cursor: str) -> bytes:
    """Return complete frames as one `data` event with its `control` event.

    The two events must be sent together.
    """
    last = sse.split_frames(frames)[-1]
    last_id = last.partition(b"\n")[0].removeprefix(sse.ID_PREFIX).decode()
    closed = sse.is_terminal(last)
    end = control(last_id, up_to_date=up_to_date or closed, closed=closed, cursor=cursor)
    return b"event: data\ndata:%b\n\n%b" % (array(frames), end)


def etag(stream_id: str, asked: str, told: Mapping[str, str]) -> str:
    """Return a page's ETag.

    Events are only appended to the log, so the events between two offsets never change. But a page at the end
    of the log may later have more events after it, so the tag also contains whether the page is at the end.
    """
    end = "end" if "stream-up-to-date" in told else "more"
    return f'"{stream_id}:{asked}:{told["stream-next-offset"]}:{end}"'
