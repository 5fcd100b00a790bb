"""The checkpointers of graphs that bring none: one for each owner, in the Redis that the streams are in.

LangGraph is imported only where a graph is run. The number of checkpointers is bounded, and one that was
dropped is made again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from gateway.redis.commands import Commands
from gateway.settings import Settings
from gateway.store.log import Log
from gateway.store.record import Record

if TYPE_CHECKING:
    from workers.checkpoints.draft import Draft
    from workers.checkpoints.saver import Saver

MOST_OWNERS = 256


class Memory:
    """Where the graph of one stage's run has its checkpoints, when it brings no checkpointer.

    `run` is the stream's id. `is_new`: nothing stands in the thread but what this run has left there.
    `is_left`: an earlier attempt of the run may have stored something.
    """

    def __init__(
        self, saver: Callable[[], Saver], thread: str, run: str, *, is_new: bool, is_left: bool
    ) -> None:
        self._saver = saver
        self._thread = thread
        self._run = run
        self._is_new = is_new
        self._is_left = is_left
        self._last: Draft | None = None

    async def draft(self) -> Draft:
        """A draft on the thread as it was before this run. Raises StoreUnavailable."""
        from workers.checkpoints.draft import Draft, take_back

        saver = self._saver()
        if self._is_left or (self._last is not None and self._last.is_stored):
            await take_back(saver, self._thread, self._run)
        self._is_left = False
        self._last = Draft(saver, self._thread, self._run, is_new=self._is_new)
        return self._last


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

    def memory(self, record: Record, thread: str) -> Memory | None:
        """Where the graph of a stage's run has its checkpoints; None where no Redis is there for them."""
        if (redis := self._log.connection) is None:
            return None
        is_new = not record.resumes and thread != record.thread
        saver = partial(self.of, record.owner, redis)
        return Memory(saver, thread, record.id, is_new=is_new, is_left=record.attempt > 1)
