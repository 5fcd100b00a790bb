"""A new stream's place in its thread: the turn, or among those that wait for it."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from time import monotonic

from gateway.protocol import ANONYMOUS
from gateway.protocol.errors import (
    OverQuota,
    QueueUnavailable,
    StoreUnavailable,
    ThreadBusy,
    ThreadMoved,
    ThreadWaiting,
)
from gateway.queue.job_queue import Sender
from gateway.queue.turns import Turns, threads_in
from gateway.settings import Settings
from gateway.store.log import Log
from gateway.store.record import Record
from gateway.store.threads import Asked, lifetimes
from gateway.streams.start import Start

_FULL_SECONDS = 3600  # after which a caller with too many threads may try again
# A caller's threads are measured again after so many seconds, and these more for each thread.
_MEASURED_SECONDS, _MEASURED_SECONDS_EACH = 5.0, 0.01
_MOST_MEASURED = 1000  # callers whose threads' bytes one process knows


class Placing:
    """Asks for the turns of threads for streams that are made. Raises StoreUnavailable."""

    def __init__(self, settings: Settings, log: Log, queue: Sender) -> None:
        self._threads = threads_in(log)
        self._turns = Turns(log, queue)
        self._most = settings.max_owner_threads
        self._most_bytes = settings.max_owner_bytes
        self._measured: OrderedDict[str, tuple[float, int]] = OrderedDict()  # until when, and the bytes
        self._thread_ms, self._record_ms = lifetimes(settings)

    async def check(self, start: Start, owner: str) -> None:
        """Refuse a stream before anything is stored for it, where its thread surely does not take it.

        Raises ThreadBusy, ThreadWaiting or ThreadMoved, or OverQuota where the caller has too many threads,
        or too much in them.
        """
        await self._measure(owner)
        state = await self._turns.tend(owner, start.thread)
        if start.after not in ("*", state.newest):
            raise ThreadMoved
        if (asks := await self._turns.asking(owner, state)) and not start.lapses:
            raise ThreadWaiting(asks)
        if not asks and start.strategy == "reject" and (runs := await self._turns.running(owner, state)):
            raise ThreadBusy(runs)
        await self._list(owner, start.thread)

    async def enter(self, record: Record, start: Start) -> bool:
        """Whether the stream has the turn; else it waits. Raises ThreadBusy, ThreadWaiting or ThreadMoved."""
        asked = Asked(start.strategy, after=start.after, lapses=start.lapses)
        word = await self._turns.enter(record, asked, self._thread_ms, self._record_ms)
        if word == "moved":
            raise ThreadMoved
        await self._list(record.owner, record.thread)  # a deletion may have come since `check`
        return word == "turn"

    async def tend(self, record: Record) -> None:
        """End those whom the stream displaces, and let it begin. What does not go now is met again later."""
        with suppress(StoreUnavailable, QueueUnavailable):
            await self._turns.tend(record.owner, record.thread)

    async def _measure(self, owner: str) -> None:
        """Refuse a caller whose threads have too many bytes. A process learns it some seconds later."""
        if owner == ANONYMOUS:  # everybody would share the bound
            return
        now = monotonic()
        until, size = self._measured.pop(owner, (now, 0))
        if until <= now:
            names = await self._threads.names(owner)
            size = await self._threads.bytes_of(owner, names)
            lasts = _MEASURED_SECONDS + _MEASURED_SECONDS_EACH * len(names)
            # Who is refused deletes some, and asks again soon.
            until = now + (lasts if size <= self._most_bytes else lasts / 5)
        self._measured[owner] = until, size
        if len(self._measured) > _MOST_MEASURED:
            self._measured.popitem(last=False)
        if size > self._most_bytes:
            raise OverQuota(f"a caller may have {self._most_bytes} bytes in threads", _FULL_SECONDS)

    async def _list(self, owner: str, name: str) -> None:
        if not await self._threads.note(owner, name, thread_ms=self._thread_ms, most=self._most):
            raise OverQuota(f"a caller may have {self._most} threads", _FULL_SECONDS)
