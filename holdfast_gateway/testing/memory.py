"""The log of one stream in memory. It stores what the writer of an attempt appends, as the store does.

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
from gateway.store.appender import BatchSource, ClaimAppends
from gateway.store.log import Log
from gateway.store.record import Answer, Claim, Piece, Record


class MemoryLog(Log):
    """The log and the record of the stream `stream_id`. `fields` are the first fields of its record."""

    def __init__(self, stream_id: str, fields: Mapping[str, Any]) -> None:
        self._id = stream_id
        self._fields = {"status": b"queued"}
        self._note(fields)
        self.frames = bytearray()  # all frames of the log

    @property
    def stream(self) -> Record:
        """The present record, as the store would return it."""
        return Record.of(self._id, self._fields)

    @property
    def connection(self) -> None:
        """None: this log is not in Redis."""

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
        """Claim the stream for the next attempt. The answer is always `claimed`."""
        now_ms = time.time_ns() // 1_000_000
        began_ms = self.stream.started_ms or now_ms
        self._note({"status": "running", "attempt": self.stream.attempt + 1, "started_ms": began_ms})
        return Answer("claimed", 0, Claim(self.stream, token, now_ms, len(self.frames)))

    def appends(self, claim: Claim, lease_ms: int, source: BatchSource) -> ClaimAppends:
        """Return the appends of this claim. Each batch is in the log as soon as it is fetched."""
        return ClaimAppends(self._wait, (), (self._id, claim.token), lease_ms, source)

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
        """Append the frames and store the fields. The answer is always `ok`."""
        self.take(position, frames, last_id, {**(fields or {}), **({"status": status} if status else {})})
        return Answer("ok")

    async def read(self, stream_id: str, after: Cursor | None, limit: int = 0) -> Piece:
        """Return all frames after a cursor. `limit` is ignored."""
        raw = bytes(self.frames[after.offset :] if after else self.frames)
        record = self.stream
        last = Cursor.parse(record.last_id) if record.last_id else None
        frames = raw[raw.index(FRAME_END) + len(FRAME_END) :] if after else raw
        return Piece(frames, last, record.status in ENDED, True)

    def take(self, position: int, frames: bytes, last_id: str, fields: Mapping[str, Any]) -> None:
        """Append these frames, which begin at `position`, and store these fields of the record."""
        assert position == len(self.frames)
        self.frames += frames
        self._note({**fields, **({"last_id": last_id} if frames else {})})

    def _wait(self, claim: ClaimAppends) -> None:
        asyncio.get_running_loop().call_soon(self._take_next, claim)

    def _take_next(self, claim: ClaimAppends) -> None:
        batch = claim.next_batch()
        if batch is not None:
            self.take(batch.position, batch.frames, batch.last_id, batch.fields)
            claim.source.batch_sent(batch, True)

    def _note(self, fields: Mapping[str, Any]) -> None:
        self._fields |= {
            name: value if isinstance(value, bytes) else str(value).encode() for name, value in fields.items()
        }
