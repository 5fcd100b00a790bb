"""The place of a new stream in its thread: it has the turn, or it waits for the turn."""

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

# After this time in seconds, a caller with too many threads may try again.
_FULL_SECONDS = 3600
# A caller's threads are measured again after the first number of seconds, plus the second number for each
# thread.
_MEASURED_SECONDS, _MEASURED_SECONDS_EACH = 5.0, 0.01
# How many callers' sizes one process stores.
_MOST_MEASURED = 1000


class Placing:
    """Requests the turns of threads for new streams. Raises StoreUnavailable."""

    def __init__(self, settings: Settings, log: Log, queue: Sender) -> None:
        self._threads = threads_in(log)
        self._turns = Turns(log, queue)
        self._most = settings.max_owner_threads
        self._most_bytes = settings.max_owner_bytes
        # by owner: until when the size is valid, and the bytes
        self._measured: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._thread_ms, self._record_ms = lifetimes(settings)

    async def check(self, start: Start, owner: str) -> None:
        """Refuse a stream before anything is stored for it, if its thread surely does not accept it.

        Raises ThreadBusy, ThreadWaiting or ThreadMoved. Raises OverQuota if the caller has too many threads,
        or too many bytes in them.
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
        """Put the stream into its thread. Returns True if it has the turn, and False if it waits.

        Raises ThreadBusy, ThreadWaiting or ThreadMoved.
        """
        asked = Asked(start.strategy, after=start.after, lapses=start.lapses)
        word = await self._turns.enter(record, asked, self._thread_ms, self._record_ms)
        if word == "moved":
            raise ThreadMoved
        # A deletion of the thread may have come after `check`.
        await self._list(record.owner, record.thread)
        return word == "turn"

    async def tend(self, record: Record) -> None:
        """End the streams that this one displaces, and let this one begin.

        What fails now is done when the thread is next checked.
        """
        with suppress(StoreUnavailable, QueueUnavailable):
            await self._turns.tend(record.owner, record.thread)

    async def _measure(self, owner: str) -> None:
        """Refuse a caller whose threads have too many bytes.

        The size that a process knows may be some seconds old.
        """
        if owner == ANONYMOUS:  # all callers would share the bound
            return
        now = monotonic()
        until, size = self._measured.pop(owner, (now, 0))
        if until <= now:
            names = await self._threads.names(owner)
            size = await self._threads.bytes_of(owner, names)
            lasts = _MEASURED_SECONDS + _MEASURED_SECONDS_EACH * len(names)
            # A refused caller deletes some threads, and tries again soon.
            until = now + (lasts if size <= self._most_bytes else lasts / 5)
        self._measured[owner] = until, size
        if len(self._measured) > _MOST_MEASURED:
            self._measured.popitem(last=False)
        if size > self._most_bytes:
            raise OverQuota(f"a caller may have {self._most_bytes} bytes in threads", _FULL_SECONDS)

    async def _list(self, owner: str, name: str) -> None:
        if not await self._threads.note(owner, name, thread_ms=self._thread_ms, most=self._most):
            raise OverQuota(f"a caller may have {self._most} threads", _FULL_SECONDS)
