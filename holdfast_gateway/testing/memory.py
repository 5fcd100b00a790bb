"""The log of one stream in memory: what the writer of an attempt appends, as the store would keep it.

There is one claim at a time, its lease never ends, and nothing is lost. So of the store's answers only
`claimed` and `ok` occur.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from gateway.protocol import ENDED, VERSION, Cursor
from gateway.protocol.sse import FRAME_END
from gateway.store.appender import Heard, Pen
from gateway.store.log import Log
from gateway.store.record import Answer, Claim, Piece, Record


class MemoryLog(Log):
    """The log and the record of the stream `stream_id`, which begins with these fields of its record."""

    def __init__(self, stream_id: str, fields: Mapping[str, Any]) -> None:
        self._id = stream_id
        self._fields = {"status": b"queued"}
        self._note(fields)
        self.frames = bytearray()  # the whole log

    @property
    def stream(self) -> Record:
        """What the store's hash would say of the stream now."""
        return Record.of(self._id, self._fields)

    @property
    def connection(self) -> None:
        """It is in no Redis."""

    async def claim(
        self,
        stream_id: str,
        token: str,
        lease_ms: int,
        *,
        version: int = VERSION,
        foreign_ms: int = 0,
        run_ms: int = 0,
        producer: str = "",
    ) -> Answer:
        """`claimed`: the next attempt has the job."""
        now_ms = time.time_ns() // 1_000_000
        began_ms = self.stream.started_ms or now_ms
        self._note({"status": "running", "attempt": self.stream.attempt + 1, "started_ms": began_ms})
        return Answer("claimed", 0, Claim(self.stream, token, now_ms, len(self.frames)))

    def pen(self, claim: Claim, lease_ms: int) -> Pen:
        """What appends for this claim by callback."""
        return _Pen(self)

    async def append(
        self,
        claim: Claim,
        position: int,
        frames: bytes,
        last_id: str,
        lease_ms: int,
        *,
        status: str = "",
        fields: Mapping[str, Any] | None = None,
    ) -> Answer:
        """`ok`: the frames stand, and the fields with them."""
        self.take(position, frames, last_id, {**(fields or {}), **({"status": status} if status else {})})
        return Answer("ok")

    async def read(self, stream_id: str, after: Cursor | None, limit: int = 0) -> Piece:
        """Everything after a cursor, whatever the limit."""
        raw = bytes(self.frames[after.offset :] if after else self.frames)
        record = self.stream
        last = Cursor.parse(record.last_id) if record.last_id else None
        frames = raw[raw.index(FRAME_END) + len(FRAME_END) :] if after else raw
        return Piece(frames, last, record.status in ENDED, True)

    def take(self, position: int, frames: bytes, last_id: str, fields: Mapping[str, Any]) -> None:
        """Append these frames, which begin at `position`, and note these fields of the record."""
        assert position == len(self.frames)
        self.frames += frames
        self._note({**fields, **({"last_id": last_id} if frames else {})})

    def _note(self, fields: Mapping[str, Any]) -> None:
        self._fields |= {
            name: value if isinstance(value, bytes) else str(value).encode() for name, value in fields.items()
        }


class _Pen(Pen):
    """A pen whose appends stand at once; the writer is told of each in the next turn of the event loop."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.closed = False

    def append(
        self, position: int, frames: bytes, last_id: str, fields: Mapping[str, Any], heard: Heard
    ) -> None:
        self._log.take(position, frames, last_id, fields)
        asyncio.get_running_loop().call_soon(heard, True)
