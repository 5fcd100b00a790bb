"""Brings the entries of streams' journals to their owners' keys: within a second, once, whatever dies.

The process whose script has written an entry does it at once, as it knows the stream (`told`). Where it dies
first, the entry comes due, and whoever has the turn to sweep does it. Each step may be made twice, by several
processes at once: the owner's side knows the number of each stream's last entry.
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
MOST_ROUNDS = 1000  # of one stream
CLOSE_SECONDS = 5.0
_log = logging.getLogger("holdfast.projector")


class Projector:
    """Of one process. Must be used within its event loop."""

    def __init__(self, redis: Commands, settings: Settings) -> None:
        self.journal = Journal(redis)
        self.feeds = Feeds(redis, settings)
        self._usage = Usage(redis)
        # Where everybody may ask and nobody is asked who he is, all would share one feed.
        self._is_shared = settings.is_open and settings.open_to_all == "yes"
        self._pending: dict[str, None] = {}  # streams whose journals have something new, in order
        self._task: asyncio.Task[None] | None = None
        self._later: dict[str, asyncio.TimerHandle] = {}  # streams with an entry whose time is to come
        # What erases a stream that is not to be stored; None: another process does it.
        self.erase: Callable[[JournalEntry], Awaitable[None]] | None = None

    def told(self, stream_id: str) -> None:
        """A script has written to this stream's journal: project it soon."""
        self._pending[stream_id] = None
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain(), name="projector")

    async def settle(self, stream_id: str, *, is_due: bool = False) -> None:
        """Project all that the stream's journal has. Raises StoreUnavailable.

        `is_due`: also where there is nothing in it, the stream leaves the due index, or its question expires.
        """
        for _ in range(MOST_ROUNDS):
            found = await self.journal.read(stream_id)
            if not found and not is_due:
                return  # another call has done it
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
        """Project what others have left behind; how many streams that were. Raises StoreUnavailable."""
        due = await self.journal.due()
        for first in range(0, len(due), AT_ONCE):
            await self._settle_all(due[first : first + AT_ONCE], is_due=True)
        return len(due)

    def _settle_in(self, stream_id: str, ms: int) -> None:
        """An entry's time comes then. Where this process has died, it comes due for another."""
        if stream_id not in self._later:
            loop = asyncio.get_running_loop()
            self._later[stream_id] = loop.call_later(ms / 1000, self._come, stream_id)

    def _come(self, stream_id: str) -> None:
        del self._later[stream_id]
        self.told(stream_id)

    async def close(self) -> None:
        """Project what is pending, for some seconds; the rest is for others."""
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
            except StoreUnavailable as error:  # they come due
                _log.warning("the journals of %d streams are projected later: %s", len(some), error.code)

    async def _settle_all(self, stream_ids: list[str], *, is_due: bool = False) -> None:
        """Raises StoreUnavailable; any other error is told, and leaves the others alone."""
        work = (self.settle(stream_id, is_due=is_due) for stream_id in stream_ids)
        results = await asyncio.gather(*work, return_exceptions=True)
        for stream_id, result in zip(stream_ids, results, strict=True):
            if isinstance(result, StoreUnavailable):
                raise result
            if isinstance(result, BaseException):
                _log.error("the journal of stream %s cannot be projected:\n%s", stream_id, stack_of(result))

    async def _project(self, entry: JournalEntry) -> str:
        """`ok`, `again` or `stale`. What another release has written is passed over."""
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
