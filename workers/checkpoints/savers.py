"""Checkpointers for graphs that have no checkpointer of their own: one per owner, in the streams' Redis.

LangGraph is imported only when a graph is run. The number of checkpointers in memory is bounded. A
checkpointer that was dropped is created again when it is needed.
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
# An attempt number greater than every real one. It is used for a run that has ended, which gets no new
# attempt.
_LAST = 1_000_000_000


class Memory:
    """The place for the checkpoints of one stage's graph in one run.

    It is used when the graph has no checkpointer of its own. `run` is the stream's id. `attempt` counts from
    1. `space` names the graph when a chain has several graphs.
    `is_new`: the thread contains only what this run has stored there. `has_failed` is called with the id of a
    run of the thread, and returns whether that run has failed or was cancelled.
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
        self._is_left = attempt > 1  # an earlier attempt may have stored data
        self._last: Draft | None = None

    async def draft(self) -> Draft:
        """Return a draft on the thread as it was before this run. Raises StoreUnavailable or TurnOver."""
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
        """Delete the checkpoints of failed or cancelled runs.

        Such a run stored them shortly before its stream ended without a result.
        """
        from workers.checkpoints.draft import take_back
        from workers.checkpoints.store import Author

        seen = {self._run}
        while (run := await saver.store.newest_run(self._thread, self._space)) and run not in seen:
            seen.add(run)
            if not await self._has_failed(run):
                return
            await take_back(saver, self._thread, Author(run, _LAST))


class Savers:
    """The checkpointers of one process, for the event loop that runs its jobs."""

    def __init__(self, log: Log, settings: Settings) -> None:
        self._log = log
        self._settings = settings
        self._known: OrderedDict[str, Saver] = OrderedDict()

    def of(self, owner: str, redis: Commands) -> Saver:
        """Return the checkpointer for the threads of this owner."""
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
        """Return the place for the checkpoints of a stage's graph, or None when the process has no Redis."""
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
