"""Copy entries of streams' journals to the keys of their owners: once, and within a second.

The process whose script wrote an entry copies it at once, because `told` is called with the stream's id. If
that process dies first, the entry becomes due, and the process that has the turn to sweep copies it. So a
crash loses no entry. Each step may be made twice, and by several processes at once: the keys of the owner
store the number of each stream's last entry.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable

from gateway.observe import telemetry
from gateway.protocol import ANONYMOUS
from gateway.protocol.errors import StoreUnavailable, stack_of
from gateway.redis.commands import Commands
from gateway.settings import Settings
from gateway.store.feeds import Feeds
from gateway.store.journal import Journal, JournalEntry
from gateway.store.usage import Usage

AT_ONCE = 32
ERASE = "erase"
MOST_ROUNDS = 1000  # most reads of one stream's journal in one call of `settle`
CLOSE_SECONDS = 5.0
_log = logging.getLogger("holdfast.projector")


class Projector:
    """The projector of one process. All its methods must be called in the process's event loop."""

    def __init__(self, redis: Commands, settings: Settings) -> None:
        self.journal = Journal(redis)
        self.feeds = Feeds(redis, settings)
        self._usage = Usage(redis)
        # If the server is open to everybody and does not identify callers, all callers would share one feed.
        # So no feed is kept.
        self._is_shared = settings.is_open and settings.open_to_all == "yes"
        self._pending: dict[str, None] = {}  # streams with new entries, in order
        self._task: asyncio.Task[None] | None = None
        # streams with an entry that is due later, each with its timer
        self._later: dict[str, asyncio.TimerHandle] = {}
        # A function that erases a stream which must not be stored. None: another process does it.
        self.erase: Callable[[JournalEntry], Awaitable[None]] | None = None

    def told(self, stream_id: str) -> None:
        """A script has written to the journal of this stream: copy the new entries soon."""
        self._pending[stream_id] = None
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain(), name="projector")

    async def settle(self, stream_id: str, *, is_due: bool = False) -> None:
        """Copy all entries of the stream's journal. Raises StoreUnavailable.

        `is_due`: the stream is in the due index. So acknowledge even if the journal is empty: the script then
        removes the stream from the index, or ends it if its question has expired.
        """
        for _ in range(MOST_ROUNDS):
            found = await self.journal.read(stream_id)
            if not found and not is_due:
                return  # another call has copied the entries
            entries = list(itertools.takewhile(lambda entry: not entry.is_early, found))
            if any(entry.kind == ERASE for entry in entries) and self.erase is None:
                return
            for entry in entries:
                if await self._project(entry) == "stale":
                    break
            else:
                is_more, left_ms = await self.journal.acknowledge(stream_id, entries)
                if left_ms:
                    self._settle_in(stream_id, left_ms)
                if not is_more:
                    return

    async def sweep(self) -> int:
        """Copy entries that other processes did not handle.

        Return the number of streams. Raises StoreUnavailable.
        """
        due = await self.journal.due()
        for first in range(0, len(due), AT_ONCE):
            await self._settle_all(due[first : first + AT_ONCE], is_due=True)
        return len(due)

    def _settle_in(self, stream_id: str, ms: int) -> None:
        """Start a timer for an entry that is due later.

        If this process dies, the entry becomes due, and another process copies it.
        """
        if stream_id not in self._later:
            loop = asyncio.get_running_loop()
            self._later[stream_id] = loop.call_later(ms / 1000, self._come, stream_id)

    def _come(self, stream_id: str) -> None:
        del self._later[stream_id]
        self.told(stream_id)

    async def close(self) -> None:
        """Copy the pending entries for at most CLOSE_SECONDS. Other processes copy the rest."""
        for timer in self._later.values():
            timer.cancel()
        self._later.clear()
        if self._task is not None and not self._task.done():
            _, running = await asyncio.wait({self._task}, timeout=CLOSE_SECONDS)
            if running:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)

    async def _drain(self) -> None:
        while self._pending:
            some = list(self._pending)[:AT_ONCE]
            for stream_id in some:
                del self._pending[stream_id]
            try:
                await self._settle_all(some)
            except StoreUnavailable as error:  # the entries become due and are swept
                _log.warning("the journals of %d streams are projected later: %s", len(some), error.code)

    async def _settle_all(self, stream_ids: list[str], *, is_due: bool = False) -> None:
        """Settle several streams. Raise StoreUnavailable.

        Any other error of one stream is logged, and does not affect the other streams.
        """
        work = (self.settle(stream_id, is_due=is_due) for stream_id in stream_ids)
        results = await asyncio.gather(*work, return_exceptions=True)
        for stream_id, result in zip(stream_ids, results, strict=True):
            if isinstance(result, StoreUnavailable):
                raise result
            if isinstance(result, BaseException):
                _log.error("the journal of stream %s cannot be projected:\n%s", stream_id, stack_of(result))

    async def _project(self, entry: JournalEntry) -> str:
        """Copy one entry.

        Return `ok`, `again` or `stale`. An entry of a kind from another release is skipped.
        """
        if entry.kind == ERASE and self.erase is not None:
            await self.erase(entry)
            if not self._is_hidden(entry.owner):
                await self.feeds.forget(entry.owner, entry.stream_id)
        if entry.kind not in ("started", "stage", "waiting", "ended"):
            return "again"
        word, spent = "ok", entry.spent
        if not self._is_hidden(entry.owner):
            if any(spent):
                await self._usage.note(entry.owner, entry.at_ms)
            word = await self.feeds.project(entry)
        if word == "ok":
            for kind, tokens in zip(("input", "output"), spent, strict=True):
                telemetry.tokens.add(tokens, {"chain": entry.chain, "kind": kind})
        return word

    def _is_hidden(self, owner: str) -> bool:
        return owner == ANONYMOUS and self._is_shared
