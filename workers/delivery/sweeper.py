"""Find the jobs that no worker holds, and have them delivered again.

Each bucket has an index of its open streams. The index is sorted by the time at which a stream must be
checked: the end of a lease, or the end of the time that a queued job may wait. Only one process at a time has
the turn to sweep. So the cost does not grow with the number of processes. If Redis's clock goes back, every
open stream is checked once, and gets a new time.
"""

from __future__ import annotations

import asyncio
import logging

from gateway.protocol.errors import QueueUnavailable, StoreUnavailable, stack_of
from gateway.queue.job_queue import Sender
from gateway.queue.redeliver import revive
from gateway.store.log import Log

TURN_SECONDS = 1.0
MOST_OF_A_BUCKET = 100
MOST_AFTER_A_JUMP = 10_000  # also per bucket; each stream is checked only once then
AT_ONCE = 32
_log = logging.getLogger("holdfast.sweeper")


class Sweeper:
    """The sweeper of one process. `run` runs until it is cancelled.

    `backoff`: the shortest time in seconds before the same job may be enqueued again.
    """

    def __init__(self, log: Log, queue: Sender, *, backoff: float) -> None:
        self._log = log
        self._queue = queue
        self._backoff = backoff
        self._places = asyncio.Semaphore(AT_ONCE)
        self._went_back = False  # True: Redis's clock went back, and no sweep has finished since then

    async def run(self) -> None:
        """Sweep whenever the turn is free. After an error, the next sweep tries again."""
        put_off = ""
        while True:
            await asyncio.sleep(TURN_SECONDS)
            try:
                await self.turn()
                put_off = ""
            except (StoreUnavailable, QueueUnavailable) as error:
                if error.code != put_off:  # the same error is logged again only after a successful sweep
                    put_off = error.code
                    _log.warning("sweep put off: %s", error.code)
            except Exception as error:  # without this task, no such job would be found
                _log.error("sweep failed:\n%s", stack_of(error))

    async def turn(self) -> None:
        """Sweep, if the turn is free. Raises StoreUnavailable or QueueUnavailable."""
        turn = await self._log.take_turn("sweep", round(TURN_SECONDS * 900))
        self._went_back |= turn == "back"
        if turn != "no":
            if self._log.projector is not None:
                await self._log.projector.sweep()
            await self.sweep(all_of_them=self._went_back)
            self._went_back = False

    async def sweep(self, *, all_of_them: bool = False) -> int:
        """Check every stream whose time has come, once. Return how many jobs were enqueued.

        A stream that cannot be checked is logged and skipped. Raises StoreUnavailable or QueueUnavailable.
        """
        most = MOST_AFTER_A_JUMP if all_of_them else MOST_OF_A_BUCKET
        due = await self._log.due(most, all_of_them=all_of_them)
        results = await asyncio.gather(*map(self._look, due), return_exceptions=True)
        for stream_id, result in zip(due, results, strict=True):
            if isinstance(result, StoreUnavailable | QueueUnavailable):
                raise result
            if isinstance(result, BaseException):
                _log.error("stream %s cannot be looked after:\n%s", stream_id, stack_of(result))
        return sum(result is True for result in results)

    async def _look(self, stream_id: str) -> bool:
        async with self._places:
            return await revive(self._log, self._queue, stream_id, backoff=self._backoff)
