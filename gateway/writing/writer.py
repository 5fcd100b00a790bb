"""A claim's pen: events in, one append in flight, everything that has gathered meanwhile in the next.

The first event goes out at once; there is no timer and no added delay. Silence renews the lease, which is
also how a cancelled or fenced worker learns of it within 2 s.
Appends that go well take no task: `gateway/store/appender.py` sends them, and the answer sends the next. The
end, and what went in another way, is the task's. A tail that the store has lost is written again from memory.
Invariant: an append that had no answer is made again with the same bytes at the same position.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from time import monotonic
from typing import Any

from gateway import protocol
from gateway.observe import telemetry
from gateway.protocol import TERMINAL_EVENTS, Event, Status, sse
from gateway.protocol.errors import StoreUnavailable
from gateway.store.log import Log
from gateway.store.record import Answer, Claim, ending
from gateway.writing.tail import Batch, Tail

LONGEST_SILENCE_SECONDS = 1.5
BUFFER_BYTES = 256 * 1024
_BACKOFF_SECONDS = (0.05, 2.0)


TOO_LONG = protocol.failed("too_long", "The answer is longer than this gateway keeps.", retryable=False)


class TooLong(Exception):
    """An event or the log has passed its bound."""


class Writer:
    """Writes one claim's events while `run`, its task, is there; that returns why the writing ended."""

    def __init__(
        self, log: Log, claim: Claim, *, lease: float, patience: float, max_event: int, max_log: int
    ) -> None:
        self._log = log
        self._claim = claim
        self._tag = claim.tag
        self._lease_ms = round(lease * 1000)
        self._pen = log.pen(claim, self._lease_ms)
        self._silence = min(lease / 3, LONGEST_SILENCE_SECONDS)
        self._patience = patience
        self._max_event, self._max_log = max_event, max_log
        self._end = claim.log_end  # where the next frame begins
        self._frames: list[bytes] = []
        self._size = 0
        self._last: int | None = None  # where the last frame begins
        self._status = ""
        self._fields: dict[str, Any] = {}
        self._tail = Tail()
        self.events = 0  # taken for an append
        self.final: Event | None = None
        self._loop = asyncio.get_running_loop()
        self._wanted = self._due = False  # there is something to append; in this turn of the event loop
        self._busy = True  # an append is in flight, or `run` has not begun
        self._over, self._began = False, 0.0  # and that append, by `monotonic`
        self._rest_since = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._given: asyncio.Queue[Batch | Exception] = asyncio.Queue(1)  # the task's: to append, or to raise
        self._room = asyncio.Event()
        self._room.set()
        self._empty = asyncio.Event()  # everything put has been appended
        self._empty.set()

    @property
    def last_id(self) -> str:
        """Id of the event that the next one follows: this claim's newest, or the log's last at the claim."""
        return self._claim.record.last_id if self._last is None else f"{self._last}-{self._tag}"

    @property
    def bytes(self) -> int:
        """What this claim has to say, in bytes of the log."""
        return self._end - self._claim.log_end

    async def put(self, *events: Event, fields: Mapping[str, Any] | None = None) -> None:
        """Write these events in one append; waits while more than 256 KiB are not yet written.

        `fields` of the record (a checkpoint) are written in that same append: nothing can come between.
        Without events the append is empty: it renews the lease, and finds out whether the log lost its tail.
        Raises TooLong for an event or a log past its bound; a terminal event is always taken, and nothing
        after it.
        """
        if not self._room.is_set():
            await self._room.wait()
        if self.final is not None or self._over:
            return
        self._empty.clear()
        self._stir()
        for event in events:
            frame = sse.encode(event, self._end, self._tag)
            final = TERMINAL_EVENTS.get(event.type) if event.type else None
            if not final and (len(frame) > self._max_event or self._end + len(frame) > self._max_log):
                raise TooLong
            self._frames.append(frame)
            self._last = self._end
            self._end += len(frame)
            self._size += len(frame)
            if final:
                self._status, self.final = final.value, event
                self._fields |= ending(event)
        if fields:
            self._fields |= fields
        if self._size > BUFFER_BYTES:
            self._room.clear()

    async def flush(self) -> None:
        """Wait until everything put stands in the log, or this claim is over."""
        await self._empty.wait()

    def progressed(self) -> None:
        """The chain has said what already stands: this attempt is no failure, though it writes nothing."""
        self.note(progress=1)

    def note(self, **fields: Any) -> None:
        """Fields of the record that travel with the next append; empty ones are left out."""
        self._fields |= {name: value for name, value in fields.items() if value != ""}

    def release(self) -> None:
        """Let the job go after what is gathered: another worker may claim it at once."""
        self._status = self._status or Status.QUEUED
        self._stir()

    @property
    def released(self) -> bool:
        """Whether the job was let go, and is to be delivered again."""
        return self._status == Status.QUEUED

    async def run(self) -> str:
        """Append until the final status is written (`ok`), or this claim is over.

        Then the store's word: `fenced`, `ended`, `lost` or `unknown`. Raises StoreUnavailable when
        patience has run out.
        """
        self._busy = False
        self._timer = self._loop.call_later(self._silence, self._look)
        try:
            if self._wanted:
                self._stir()
            return await self._write()
        finally:
            self._over = self._pen.closed = True
            self._timer.cancel()
            self._room.set()  # whoever still waits to put something is heard no more
            self._empty.set()

    async def _write(self) -> str:
        while True:
            batch = await self._given.get()
            if isinstance(batch, Exception):
                raise batch
            answer = await self._append(batch)
            if answer.word == "lost":
                answer = await self._restore(answer.number, batch)
            if answer.word == "lost":  # hold it no longer: another attempt matches what still stands
                await self._append(Batch(answer.number, b"", "", "queued", {}))
            if answer.word not in ("ok", "duplicate"):
                return answer.word
            if batch.status:
                return "ok"
            self._stood(batch)

    def _stir(self) -> None:
        """There is something to append: with what else comes in this turn of the event loop."""
        self._wanted = True
        if not self._busy and not self._due:
            self._due = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        """One append, of what has gathered; of nothing, it renews the lease."""
        self._due = False
        if self._busy or self._over:
            return
        self._busy, self._began, batch = True, monotonic(), self._take()
        if batch.status:
            self._given.put_nowait(batch)
            return
        told = partial(self._heard, batch)
        self._pen.append(batch.position, batch.frames, batch.last_id, batch.fields, told)

    def _heard(self, batch: Batch, stands: bool) -> None:
        try:
            if stands:
                telemetry.append_time.record(monotonic() - self._began)
                self._stood(batch)
            else:
                self._given.put_nowait(batch)
        except Exception as error:  # the task's as well: others are told after us
            self._given.put_nowait(error)

    def _stood(self, batch: Batch) -> None:
        """This batch stands: what has gathered meanwhile follows at once."""
        if batch.frames:
            self._tail.add(batch)
        self._busy = False
        if self._wanted:
            self._begin()
        else:
            self._rest_since = self._loop.time()
            self._empty.set()

    def _look(self) -> None:
        """One timer for many rests: has this one lasted long enough?"""
        now = self._loop.time()
        due = (now if self._busy else self._rest_since) + self._silence
        if due <= now:
            self._begin()
            due = now + self._silence
        self._timer = self._loop.call_at(due, self._look)

    def _take(self) -> Batch:
        position = self._end - self._size
        frames, self._frames = self._frames, []
        self.events += len(frames)
        self._size, self._wanted = 0, False
        self._room.set()
        fields, self._fields = self._fields, {}
        return Batch(position, b"".join(frames), self.last_id, self._status, fields)

    async def _restore(self, log_end: int, batch: Batch) -> Answer:
        """The store has lost the log's tail: append the same frames again, when they are still here."""
        missing = self._tail.since(log_end)
        if not missing:
            return Answer("lost", log_end)
        for one in missing:
            answer = await self._append(one)
            if answer.word not in ("ok", "duplicate"):
                return answer
        return await self._append(batch)

    async def _append(self, batch: Batch) -> Answer:
        backoff = _BACKOFF_SECONDS[0]
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
                if monotonic() > self._began + self._patience:  # since this batch was first sent
                    raise
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, _BACKOFF_SECONDS[1])
