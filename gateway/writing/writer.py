"""Write the events of one claim, one append at a time. Each append contains all events that came meanwhile.

The first event is sent in the next turn of the event loop. No timer delays an event. A writer without new
events only renews the lease from time to time. The answer shows within 2 s whether the stream was cancelled,
or another worker has claimed the job.

An append that succeeds needs no task: `gateway/store/appender.py` gets the next batch from the writer and
reports the result. The writer's task makes the last append. It also repeats an append that was not confirmed.
If the store has lost the end of the log, the task writes that end again from memory
(`gateway/writing/tail.py`).

Invariant: an append without an answer is repeated with the same bytes at the same position.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic
from typing import Any

from gateway import protocol
from gateway.observe import telemetry
from gateway.protocol import TERMINAL_EVENTS, Event, Status, sse
from gateway.protocol.errors import StoreUnavailable
from gateway.store.appender import ClaimAppends
from gateway.store.log import Log
from gateway.store.record import Answer, Batch, Claim, ending
from gateway.writing.tail import Tail

LONGEST_SILENCE_SECONDS = 1.5
BUFFER_BYTES = 256 * 1024
_BACKOFF_SECONDS = (0.05, 2.0)
TOO_LONG = protocol.failed("too_long", "The answer is longer than this gateway keeps.", retryable=False)


class TooLong(Exception):
    """Raised when an event, or the whole log, would be longer than its limit."""


class Writer:
    """Writes the events of one claim while the task of `run` runs. `run` returns why the writing ended.

    `lease` and `patience` are seconds. `max_event` and `max_log` are bytes.
    """

    def __init__(
        self, log: Log, claim: Claim, *, lease: float, patience: float, max_event: int, max_log: int
    ) -> None:
        self._log = log
        self._claim = claim
        self._tag = claim.tag
        self._lease_ms = round(lease * 1000)
        # None once `run` has ended: it refers to this writer, and such a circle would stay in memory
        # until a full collection of garbage, which comes rarely.
        self._appends: ClaimAppends | None = log.appends(claim, self._lease_ms, self)
        self._silence = min(lease / 3, LONGEST_SILENCE_SECONDS)
        self._patience = patience
        self._max_event, self._max_log = max_event, max_log
        self._end = claim.log_end  # position of the next frame in the log
        self._frames: list[bytes] = []  # frames of the next batch
        self._size = 0  # total size of these frames, in bytes
        self._last: int | None = None  # position of the last frame
        self._status = ""
        self._fields: dict[str, Any] = {}
        self._tail = Tail()
        self.events = 0  # how many events were put into batches
        # Numbers of text pieces for which no model has reported usage: of earlier claims, and of this claim.
        self._pieces_before, self._pieces, self._pieces_noted = claim.record.pieces, 0, 0
        self.final: Event | None = None
        self._loop = asyncio.get_running_loop()
        self._wanted = False  # True: there is something to append
        self._busy = True  # an append has no result yet, or `run` has not begun
        self._over = False  # `run` has ended: nothing more is appended
        self._began = 0.0  # when the newest batch was made, by `monotonic`
        self._rest_since = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        # For the task of `run`: a batch that the task must append, or an error that ends the task.
        self._for_task: asyncio.Queue[Batch | Exception] = asyncio.Queue(1)
        self._room = asyncio.Event()  # set unless `put` must wait
        self._room.set()
        self._empty = asyncio.Event()  # set while the log contains all events that were put
        self._empty.set()

    @property
    def last_id(self) -> str:
        """Id of the newest event of this claim.

        Before the first event of this claim: the id of the last event in the log at the time of the claim.
        """
        return self._claim.record.last_id if self._last is None else f"{self._last}-{self._tag}"

    @property
    def bytes(self) -> int:
        """The length of all events that were put for this claim, in bytes of the log."""
        return self._end - self._claim.log_end

    async def put(self, *events: Event, fields: Mapping[str, Any] | None = None) -> None:
        """Write these events in one append. First wait while more than 256 KiB are not yet written.

        `fields` of the record (a checkpoint, for example) are written by the same script call as the events.
        Without events the append is empty: it renews the lease, and detects whether the log has lost its end.
        A terminal event is always accepted. After a terminal event, and after the end of `run`, events are
        dropped. Raises TooLong if an event or the log would be longer than its limit.
        """
        if not self._room.is_set():
            await self._room.wait()
        if self.final is not None or self._over:
            return
        self._empty.clear()
        if not self._wanted:
            self._want()
        for event in events:
            frame = sse.encode(event, self._end, self._tag)
            final = TERMINAL_EVENTS.get(event.type) if event.type else None
            self._pieces += not event.type
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

    async def flush(self) -> bool:
        """Wait until the log contains all events that were put.

        Return False if `run` has ended, perhaps before that.
        """
        await self._empty.wait()
        return not self._over

    def paid(self) -> None:
        """A model has reported its usage: the text pieces so far need not be counted."""
        self._pieces = 0

    def progressed(self) -> None:
        """Record progress: the chain repeated events that the log already has, so nothing is written."""
        self.note(progress=1)

    def note(self, **fields: Any) -> None:
        """Write these fields of the record with the next append. A field with an empty text is skipped."""
        self._fields |= {name: value for name, value in fields.items() if value != ""}

    def release(self) -> None:
        """Release the job with the next append. From then on another worker may claim it."""
        self._status = self._status or Status.QUEUED
        self._want()

    @property
    def released(self) -> bool:
        """Return whether the job was released, so that it is delivered again."""
        return self._status == Status.QUEUED

    async def run(self) -> str:
        """Append until the last append succeeds (`ok`), or until the store refuses this claim.

        Returns `ok`, or the store's answer: `fenced`, `ended`, `lost` or `unknown`. Raises StoreUnavailable
        if the store could not be reached for `patience` seconds.
        """
        self._busy = False
        self._timer = self._loop.call_later(self._silence, self._renew)
        try:
            if self._wanted:
                self._want()
            return await self._write()
        finally:
            self._over, self._appends = True, None
            self._timer.cancel()
            self._room.set()  # wake all callers that wait for this writer
            self._empty.set()

    async def _write(self) -> str:
        while True:
            batch = await self._for_task.get()
            if isinstance(batch, Exception):
                raise batch
            answer = await self._append(batch)
            if answer.word == "lost":
                answer = await self._restore(answer.number, batch)
            if answer.word == "lost":  # release the job: another attempt continues after the end of the log
                await self._append(Batch(answer.number, b"", "", "queued", {}))
            if answer.word not in ("ok", "duplicate"):
                return answer.word
            if batch.status:
                return "ok"
            self._stood(batch)

    def next_batch(self) -> Batch | None:
        """Return all that was put since the last batch, or an empty batch, which renews the lease.

        The appender calls this. Return None if the writer has ended, and for the last batch, which the
        writer's task appends.
        """
        if self._busy or self._over:
            return None
        self._busy, self._began, batch = True, monotonic(), self._take()
        if batch.status:
            self._for_task.put_nowait(batch)
            return None
        return batch

    def batch_sent(self, batch: Batch, stands: bool) -> None:
        """Receive from the appender whether the log contains the batch.

        If that is not certain, the task appends the batch again.
        """
        try:
            if stands:
                telemetry.append_time.record(monotonic() - self._began)
                self._stood(batch)
            else:
                self._for_task.put_nowait(batch)
        # the error ends only this writer's task: the appender must serve other writers
        except Exception as error:
            self._for_task.put_nowait(error)

    def _want(self) -> None:
        """Ask for a turn to append. If an append is running, its result asks for the turn."""
        self._wanted = True
        if not self._busy and self._appends is not None:
            self._appends.ask()

    def _stood(self, batch: Batch) -> None:
        """Handle a batch that was appended. If more events were put since then, ask for the next turn."""
        if batch.frames:
            self._tail.add(batch)
        self._busy = False
        if self._wanted:
            self._want()
        else:
            self._rest_since = self._loop.time()
            self._empty.set()

    def _renew(self) -> None:
        """Renew the lease if nothing was appended for a while. One timer serves many appends."""
        now = self._loop.time()
        due = (now if self._busy else self._rest_since) + self._silence
        if due <= now and self._appends is not None:
            self._appends.ask()
            due = now + self._silence
        self._timer = self._loop.call_at(due, self._renew)

    def _take(self) -> Batch:
        position = self._end - self._size
        frames, self._frames = self._frames, []
        self.events += len(frames)
        self._size, self._wanted = 0, False
        self._room.set()
        fields, self._fields = self._fields, {}
        if self._pieces != self._pieces_noted:
            self._pieces_noted = self._pieces
            fields["pieces"] = self._pieces_before + self._pieces
        return Batch(position, b"".join(frames), self.last_id, self._status, fields)

    async def _restore(self, log_end: int, batch: Batch) -> Answer:
        """Append the frames again that the store has lost, if they are still in memory."""
        missing = self._tail.since(log_end)
        if not missing:
            return Answer("lost", log_end)
        for one in missing:
            answer = await self._append(one)
            if answer.word not in ("ok", "duplicate"):
                return answer
        return await self._append(batch)

    async def _append(self, batch: Batch) -> Answer:
        """Append the batch in this task. Retry while the store cannot be reached."""
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
                # counted from the time when the batch was made
                if monotonic() > self._began + self._patience:
                    raise
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, _BACKOFF_SECONDS[1])
