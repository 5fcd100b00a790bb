"""The checkpointers of graphs that bring none: one for each owner, in the Redis that the streams are in.

LangGraph is imported only where a graph is run. The number of checkpointers is bounded, and one that was
dropped is made again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from gateway.protocol import Status
from gateway.redis.commands import Commands
from gateway.settings import Settings
from gateway.store.log import Log
from gateway.store.record import Record

if TYPE_CHECKING:
    from workers.checkpoints.draft import Draft
    from workers.checkpoints.saver import Saver

MOST_OWNERS = 256
_LAST = 1_000_000_000  # an attempt at a run that has ended: no other follows it


class Memory:
    """Where the graph of one stage's run has its checkpoints, when it brings no checkpointer.

    `run` is the stream's id, and `attempt` counts from 1. `space` is of the one graph among several of a
    chain. `is_new`: nothing stands in the thread but what this run has left there. `has_failed`: whether a
    run of the thread has ended without a result.
    """

    def __init__(
        self,
        saver: Callable[[], Saver],
        thread: str,
        run: str,
        attempt: int,
        *,
        space: str,
        is_new: bool,
        has_failed: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._saver = saver
        self._thread = thread
        self._run = run
        self._attempt = attempt
        self._space = space
        self._is_new = is_new
        self._has_failed = has_failed
        self._is_left = attempt > 1  # an earlier attempt may have stored something
        self._last: Draft | None = None

    async def draft(self) -> Draft:
        """A draft on the thread as it was before this run. Raises StoreUnavailable or TurnOver."""
        from workers.checkpoints.draft import Draft, take_back
        from workers.checkpoints.store import Author

        saver, by = self._saver(), Author(self._run, self._attempt)
        if self._is_left or (self._last is not None and self._last.is_stored):
            await take_back(saver, self._thread, by)
        if self._last is None and not self._is_new:
            await self._without_failed(saver)
        self._is_left = False
        self._last = Draft(saver, self._thread, by, is_new=self._is_new, space=self._space)
        return self._last

    async def _without_failed(self, saver: Saver) -> None:
        """Take back what runs have stored that were cancelled, or failed, before their end stood."""
        from workers.checkpoints.draft import take_back
        from workers.checkpoints.store import Author

        seen = {self._run}
        while (run := await saver.store.newest_run(self._thread, self._space)) and run not in seen:
            seen.add(run)
            if not await self._has_failed(run):
                return
            await take_back(saver, self._thread, Author(run, _LAST))


class Savers:
    """Those of one process, for the event loop that runs jobs."""

    def __init__(self, log: Log, settings: Settings) -> None:
        self._log = log
        self._settings = settings
        self._known: OrderedDict[str, Saver] = OrderedDict()

    def of(self, owner: str, redis: Commands) -> Saver:
        """The checkpointer of this owner's threads."""
        from workers.checkpoints.saver import Saver

        found = self._known.pop(owner, None)
        if found is None:
            seconds, patience = self._settings.thread_seconds, self._settings.store_patience
            found = Saver(redis, owner=owner, seconds=seconds, patience=patience, in_turn=True)
        self._known[owner] = found
        if len(self._known) > MOST_OWNERS:
            self._known.popitem(last=False)
        return found

    def memory(self, record: Record, thread: str, space: str = "") -> Memory | None:
        """Where the graph of a stage's run has its checkpoints; None where no Redis is there for them."""
        if (redis := self._log.connection) is None:
            return None
        return Memory(
            partial(self.of, record.owner, redis),
            thread,
            record.id,
            record.attempt,
            space=space,
            is_new=not record.resumes and thread != record.thread,
            has_failed=partial(_has_failed, redis),
        )


async def _has_failed(redis: Commands, stream_id: str) -> bool:
    status: bytes | None = await redis.call("HGET", Log.keys(stream_id)[0], "status")
    return status is not None and status.decode() in (Status.CANCELLED, Status.FAILED)
