"""A claim's pen: events in, one append in flight, everything that has gathered meanwhile in the next.

The first event goes out at once; there is no timer and no added delay. Silence renews the lease, which is
also how a cancelled or fenced worker learns of it within 2 s.
A tail that the store has lost is written again from memory, the same bytes.
Invariant: an append that had no answer is made again with the same bytes at the same position.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from gateway import sse, telemetry
from gateway.errors import StoreUnavailable
from gateway.log import Log
from gateway.protocol import TERMINAL_EVENTS, Event, Status
from gateway.record import Answer, Claim

LONGEST_SILENCE_SECONDS = 1.5
BUFFER_BYTES = 256 * 1024
KEPT_SECONDS, KEPT_BYTES = 10.0, 1024 * 1024
_BACKOFF_SECONDS = (0.05, 2.0)


class TooLong(Exception):
    """An event or the log has passed its bound."""


@dataclass(slots=True)
class _Batch:
    position: int
    frames: bytes
    last_id: str
    status: str
    fields: Mapping[str, Any]


class Writer:
    """Writes one claim's events. `run` is its task; it returns why the writing ended."""

    def __init__(
        self, log: Log, claim: Claim, *, lease: float, patience: float, max_event: int, max_log: int
    ) -> None:
        self._log = log
        self._claim = claim
        self._tag = claim.tag
        self._lease_ms = round(lease * 1000)
        self._silence = min(lease / 3, LONGEST_SILENCE_SECONDS)
        self._patience = patience
        self._max_event = max_event
        self._max_log = max_log
        self._end = claim.log_end  # where the next frame begins
        self._frames: list[bytes] = []
        self._size = 0
        self._last_id = claim.record.last_id
        self._status = ""
        self._fields: dict[str, Any] = {}
        self._written: deque[tuple[float, _Batch]] = deque()
        self._written_bytes = 0
        self.events = 0  # taken for an append
        self.final: Event | None = None
        self._gathered = asyncio.Event()
        self._silent_since: float | None = None  # by the event loop's clock; while it waits
        self._timer: asyncio.TimerHandle | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._empty = asyncio.Event()  # everything put has been appended
        self._empty.set()

    @property
    def bytes(self) -> int:
        """What this claim has to say, in bytes of the log."""
        return self._end - self._claim.log_end

    async def put(self, *events: Event, fields: Mapping[str, Any] | None = None) -> None:
        """Write these events in one append; waits while more than 256 KiB are not yet written.

        `fields` of the record (a checkpoint) are written in that same append: nothing can come between.
        Raises TooLong for an event or a log past its bound; a terminal event is always taken, and nothing
        after it.
        """
        if not self._room.is_set():
            await self._room.wait()
        if self.final is not None:
            return
        self._empty.clear()
        for event in events:
            frame = sse.encode(event, self._end, self._tag)
            final = TERMINAL_EVENTS.get(event.type) if event.type else None
            if not final and (len(frame) > self._max_event or self._end + len(frame) > self._max_log):
                raise TooLong
            self._frames.append(frame)
            self._last_id = f"{self._end}-{self._tag}"
            self._end += len(frame)
            self._size += len(frame)
            if final:
                self._status, self.final = final.value, event
                self._fields |= _kept(event)
        self._fields |= fields or {}
        if self._size > BUFFER_BYTES:
            self._room.clear()
        self._gathered.set()

    async def flush(self) -> None:
        """Wait until everything put stands in the log, or this claim is over."""
        await self._empty.wait()

    def progressed(self) -> None:
        """The chain has said what already stands: this attempt is no failure, though it writes nothing."""
        self.note(progress=1)

    def note(self, **fields: str | int) -> None:
        """Fields of the record that travel with the next append; empty ones are left out."""
        self._fields |= {name: value for name, value in fields.items() if value != ""}

    def release(self) -> None:
        """Let the job go after what is gathered: another worker may claim it at once."""
        self._status = self._status or Status.QUEUED
        self._gathered.set()

    @property
    def released(self) -> bool:
        """Whether the job was let go, and is to be delivered again."""
        return self._status == Status.QUEUED

    async def run(self) -> str:
        """Append until the final status is written (`ok`), or this claim is over.

        Then the store's word: `fenced`, `ended`, `lost` or `unknown`. Raises StoreUnavailable when
        patience has run out.
        """
        try:
            return await self._write()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._room.set()  # whoever still waits to put something is heard no more
            self._empty.set()

    async def _write(self) -> str:
        while True:
            await self._wait()
            batch = self._take()
            answer = await self._append(batch)
            if answer.word == "lost":
                answer = await self._restore(answer.number, batch)
            if answer.word == "lost":  # hold it no longer: another attempt matches what still stands
                await self._append(_Batch(answer.number, b"", "", "queued", {}))
            if answer.word not in ("ok", "duplicate"):
                return answer.word
            if batch.status:
                return "ok"
            if batch.frames:
                self._remember(batch)
            if not self._frames:
                self._empty.set()

    async def _wait(self) -> None:
        """Until there is something to write, or was nothing for so long that the lease must be renewed."""
        if self._gathered.is_set():
            return
        loop = asyncio.get_running_loop()
        self._silent_since = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._silence, self._look)
        await self._gathered.wait()
        self._silent_since = None

    def _look(self) -> None:
        """One timer for many waits: has this one lasted long enough?"""
        loop = asyncio.get_running_loop()
        due = (self._silent_since or loop.time()) + self._silence
        if due > loop.time():
            self._timer = loop.call_at(due, self._look)
        else:
            self._timer = None
            self._gathered.set()  # nothing to write: the empty append renews the lease

    def _take(self) -> _Batch:
        position = self._end - self._size
        frames, self._frames = self._frames, []
        self.events += len(frames)
        self._size = 0
        self._gathered.clear()
        self._room.set()
        fields, self._fields = self._fields, {}
        return _Batch(position, b"".join(frames), self._last_id, self._status, fields)

    async def _restore(self, log_end: int, batch: _Batch) -> Answer:
        """The store has lost the log's tail: append the same frames again, when they are still here."""
        missing = [kept for _, kept in self._written if kept.position >= log_end]
        if not missing or missing[0].position != log_end:
            return Answer("lost", log_end)
        for kept in missing:
            answer = await self._append(kept)
            if answer.word not in ("ok", "duplicate"):
                return answer
        return await self._append(batch)

    def _remember(self, batch: _Batch) -> None:
        """Keep what was written for some seconds: longer than the store may take to make it last."""
        now = asyncio.get_running_loop().time()
        self._written.append((now, batch))
        self._written_bytes += len(batch.frames)
        while self._written[0][0] < now - KEPT_SECONDS or self._written_bytes > KEPT_BYTES:
            self._written_bytes -= len(self._written.popleft()[1].frames)
            if not self._written:
                break

    async def _append(self, batch: _Batch) -> Answer:
        backoff = _BACKOFF_SECONDS[0]
        deadline = asyncio.get_running_loop().time() + self._patience
        while True:
            began = monotonic()
            try:
                answer = await self._log.append(
                    self._claim,
                    batch.position,
                    batch.frames,
                    batch.last_id,
                    self._lease_ms,
                    status=batch.status,
                    fields=batch.fields,
                )
                telemetry.append_time.record(monotonic() - began)
                return answer
            except StoreUnavailable:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, _BACKOFF_SECONDS[1])


def _kept(event: Event) -> dict[str, Any]:
    """What the record keeps of a terminal event."""
    kept = {}
    if "usage" in event.data:
        kept["usage"] = sse.dumps(event.data["usage"])
    if "code" in event.data:
        kept["error"] = sse.dumps(event.data)
    return kept
