"""Several streams on one connection. Their events are interleaved; each stream's events keep their order.

Each stream is followed as by a reader of its own. A frame's id is the joint position: for every stream, the
last event that was sent. So one `Last-Event-ID` resumes all streams, in whatever order the client names them.
A stream that is not in the position begins at its first event.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing

from gateway.protocol import Cursor, sse
from gateway.relay.follow import Relay
from gateway.relay.reader import Ending, Why

MOST_STREAMS = 100
# Time in seconds between two heartbeats of the connection. The heartbeats of single streams are not passed
# on.
HEARTBEAT_SECONDS = 10.0
_PART = re.compile(r"(?P<name>[A-Za-z0-9_-]{6})(?P<tag>[0-9a-f]{4})(?P<offset>0|[1-9a-z][0-9a-z]{0,5})")
# one part of a position, as a pattern for clients
FORM = "[A-Za-z0-9_-]{6}[0-9a-f]{4}(0|[1-9a-z][0-9a-z]{0,5})"
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

Positions = dict[str, Cursor]  # keyed by the streams' ids
# A stream's id, and frames of this stream. Empty frames: the stream is at its end.
Chunk = tuple[str, bytes]


class Position:
    """The joint position of several streams.

    It has one part for each stream: six letters of the hash of the stream's id, the tag, and the offset in
    base 36. An event changes only the part of its own stream.
    """

    def __init__(self, stream_ids: Iterable[str], positions: Mapping[str, Cursor]) -> None:
        self._names = {one: _name(one) for one in (*stream_ids, *positions)}
        self._parts: dict[str, str] = {}
        for stream_id, cursor in positions.items():
            self.at(stream_id, cursor)

    def at(self, stream_id: str, cursor: Cursor) -> None:
        """Store this event as the stream's last event."""
        offset, _, tag = cursor.text.partition("-")
        self._parts[stream_id] = f"{self._names[stream_id]}{tag}{_base36(int(offset))}"

    def forget(self, stream_id: str) -> None:
        """Remove the stream's part, because the stream begins again from its first event."""
        self._parts.pop(stream_id, None)

    def __str__(self) -> str:
        return ".".join(self._parts.values())


def read(text: str, stream_ids: Sequence[str]) -> Positions:
    """Return the positions of those of these streams that a joint position contains.

    Raises ValueError for a text that is not a joint position.
    """
    names = {_name(one): one for one in stream_ids}
    found: Positions = {}
    for part in text.split("."):
        told = _PART.fullmatch(part)
        if told is None:
            raise ValueError("no joint position")
        if told["name"] in names:
            cursor = Cursor.parse(f"{int(told['offset'], 36)}-{told['tag']}")
            found[names[told["name"]]] = cursor
    return found


async def follow(
    relay: Relay, stream_ids: Sequence[str], positions: Mapping[str, Cursor], ending: Ending, owner: str
) -> AsyncGenerator[bytes, None]:
    """Yield the frames of these streams after these positions, until all streams have ended.

    Also ends where the connection of one of the streams would end: at its maximum age, or when the process
    stops. Raises StoreUnavailable or TooManyReaders.
    """
    chunks: asyncio.Queue[Chunk] = asyncio.Queue(1)
    at = Position(stream_ids, positions)
    endings = {one: Ending() for one in stream_ids}

    async def pump(stream_id: str) -> None:
        frames = relay.follow(stream_id, positions.get(stream_id), endings[stream_id], owner)
        async with aclosing(frames):
            async for chunk in frames:
                await chunks.put((stream_id, chunk))
        await chunks.put((stream_id, b""))  # marks the end of this stream

    pumps = {asyncio.create_task(pump(one), name=f"joint-{one}") for one in stream_ids}
    left, beat = set(stream_ids), 0.0
    try:
        while left:
            stream_id, chunk = await _next(chunks, pumps)
            if not chunk:
                left.discard(stream_id)
                if (why := endings[stream_id].why) not in (Why.TERMINAL, Why.EXPIRED):
                    ending.why = why
                    return
                continue
            frames = b"".join(_joint(stream_id, message, at) for message in sse.Decoder().feed(chunk))
            now = asyncio.get_running_loop().time()
            if frames or now - beat >= HEARTBEAT_SECONDS:
                beat = now
                yield frames or sse.HEARTBEAT
        ending.why = Why.TERMINAL
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _next(chunks: asyncio.Queue[Chunk], pumps: set[asyncio.Task[None]]) -> Chunk:
    """Return the next chunk of any of the streams.

    Raises the error with which the task of a stream failed.
    """
    getting = asyncio.ensure_future(chunks.get())
    try:
        while not getting.done():
            done, _ = await asyncio.wait({getting, *pumps}, return_when=asyncio.FIRST_COMPLETED)
            for task in done & pumps:
                pumps.discard(task)
                task.result()
        return getting.result()
    finally:
        getting.cancel()


def _joint(stream_id: str, message: sse.Message, at: Position) -> bytes:
    """Return one stream's frame as the joint connection sends it."""
    if message.id in ("", "0"):  # the stream's log is lost, so the stream begins again
        at.forget(stream_id)
    else:
        at.at(stream_id, Cursor(message.id))
    kind = f"event: {message.type}\n" if message.type != "message" else ""
    about = sse.dumps({"stream": stream_id, "id": message.id}).decode()
    return f'id: {at}\n{kind}data: {about[:-1]},"data":{message.data}}}\n\n'.encode()


def _name(stream_id: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(stream_id.encode()).digest()[:6]).decode()[:6]


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"
