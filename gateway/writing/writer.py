"""Writes the events of one claim: one append at a time, and the next takes all events that came meanwhile.

The first event is sent in the next turn of the event loop. No timer delays an event. A writer that has
nothing to write appends nothing but a renewal of the lease from time to time; the answer tells it within 2 s
that the stream was cancelled, or that another worker has the job.

An append that succeeds takes no task: `gateway/store/appender.py` asks the writer for its next batch and
reports the result. The writer's task makes the last append, and repeats an append that was not reported to
stand. When the store has lost the end of the log, the task writes it again from memory
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
    """An event, or the whole log, would be longer than its bound."""


class Writer:
    """Writes one claim's events while the task of `run` runs; `run` returns why the writing ended.

    `lease` and `patience` are seconds, `max_event` and `max_log` bytes.
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
        self._end = claim.log_end  # where the next frame begins
        self._frames: list[bytes] = []  # what the next batch takes
        self._size = 0  # of these frames, in bytes
        self._last: int | None = None  # where the last frame begins
        self._status = ""
        self._fields: dict[str, Any] = {}
        self._tail = Tail()
        self.events = 0  # how many events batches have taken
        # Pieces of text of which no model has told what they took: of earlier claims, and of this one.
        self._pieces_before, self._pieces, self._pieces_noted = claim.record.pieces, 0, 0
        self.final: Event | None = None
        self._loop = asyncio.get_running_loop()
        self._wanted = False  # there is something to append
        self._busy = True  # an append has no result yet, or `run` has not begun
        self._over = False  # `run` has ended: nothing more is appended
        self._began = 0.0  # when the newest batch was taken, by `monotonic`
        self._rest_since = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        # For the task: a batch that the task must append, or an error that ends the task.
        self._for_task: asyncio.Queue[Batch | Exception] = asyncio.Queue(1)
        self._room = asyncio.Event()  # set while `put` need not wait
        self._room.set()
        self._empty = asyncio.Event()  # set while everything put stands in the log
        self._empty.set()

    @property
    def last_id(self) -> str:
        """Id of this claim's newest event; before its first event, of the log's last event at the claim."""
        return self._claim.record.last_id if self._last is None else f"{self._last}-{self._tag}"

    @property
    def bytes(self) -> int:
        """The length of all events that this claim was given, in bytes of the log."""
        return self._end - self._claim.log_end

    async def put(self, *events: Event, fields: Mapping[str, Any] | None = None) -> None:
        """Write these events in one append. Waits first while more than 256 KiB are not yet written.

        `fields` of the record (a checkpoint, for example) are written by the same script call as the events.
        Without events the append is empty: it renews the lease, and finds out whether the log has lost its
        end. A terminal event is always taken. After it, and after the end of `run`, events are dropped.
        Raises TooLong for an event or a log that is longer than its bound.
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
        """Wait until everything put stands in the log; False when `run` has ended, perhaps before that."""
        await self._empty.wait()
        return not self._over

    def paid(self) -> None:
        """A model has told what it took: the pieces of text so far stand for nothing."""
        self._pieces = 0

    def progressed(self) -> None:
        """Note that the chain has said what stands already: this is progress, though nothing is written."""
        self.note(progress=1)

    def note(self, **fields: Any) -> None:
        """Write these fields of the record with the next append. A field with an empty text is left out."""
        self._fields |= {name: value for name, value in fields.items() if value != ""}

    def release(self) -> None:
        """Let the job go with the next append. From then on another worker may claim it."""
        self._status = self._status or Status.QUEUED
        self._want()

    @property
    def released(self) -> bool:
        """Whether the job was let go, and is to be delivered again."""
        return self._status == Status.QUEUED

    async def run(self) -> str:
        """Append until the last append stands (`ok`), or until the store refuses this claim.

        Returns `ok`, or the store's answer: `fenced`, `ended`, `lost` or `unknown`. Raises StoreUnavailable
        when the store could not be reached for `patience` seconds.
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
            self._room.set()  # nobody may wait for a writer that has ended
            self._empty.set()

    async def _write(self) -> str:
        while True:
            batch = await self._for_task.get()
            if isinstance(batch, Exception):
                raise batch
            answer = await self._append(batch)
            if answer.word == "lost":
                answer = await self._restore(answer.number, batch)
            if answer.word == "lost":  # let the job go: another attempt goes on from what still stands
                await self._append(Batch(answer.number, b"", "", "queued", {}))
            if answer.word not in ("ok", "duplicate"):
                return answer.word
            if batch.status:
                return "ok"
            self._stood(batch)

    def next_batch(self) -> Batch | None:
        """For the appender: all that was put since the last batch, or an empty batch to renew the lease.

        None when the writer has ended, and for the last batch, which the writer's task appends.
        """
        if self._busy or self._over:
            return None
        self._busy, self._began, batch = True, monotonic(), self._take()
        if batch.status:
            self._for_task.put_nowait(batch)
            return None
        return batch

    def batch_sent(self, batch: Batch, stands: bool) -> None:
        """For the appender: whether the batch stands. The task appends it again where that is not sure."""
        try:
            if stands:
                telemetry.append_time.record(monotonic() - self._began)
                self._stood(batch)
            else:
                self._for_task.put_nowait(batch)
        except Exception as error:  # ends this writer's task alone: the appender serves other writers, too
            self._for_task.put_nowait(error)

    def _want(self) -> None:
        """There is something to append: ask for a turn. The result of an append under way asks by itself."""
        self._wanted = True
        if not self._busy and self._appends is not None:
            self._appends.ask()

    def _stood(self, batch: Batch) -> None:
        """The batch stands in the log. Ask for the next turn, if more was put meanwhile."""
        if batch.frames:
            self._tail.add(batch)
        self._busy = False
        if self._wanted:
            self._want()
        else:
            self._rest_since = self._loop.time()
            self._empty.set()

    def _renew(self) -> None:
        """Renew the lease where nothing was appended for long. One timer serves for many appends."""
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
        """The store has lost the end of the log: append the same frames again, if they are still here."""
        missing = self._tail.since(log_end)
        if not missing:
            return Answer("lost", log_end)
        for one in missing:
            answer = await self._append(one)
            if answer.word not in ("ok", "duplicate"):
                return answer
        return await self._append(batch)

    async def _append(self, batch: Batch) -> Answer:
        """Append the batch in this task, and try again while the store is out of reach."""
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
                if monotonic() > self._began + self._patience:  # counted from when the batch was taken
                    raise
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, _BACKOFF_SECONDS[1])
