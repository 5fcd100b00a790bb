"""Finds the jobs that nobody holds and nobody watches, and has them delivered again.

Each bucket's index of open streams is sorted by when somebody should look: a lease's end, or the end of
the time that a queued job may wait. One process at a time has the turn, so the cost does not grow with
the fleet. After Redis's clock has gone back every open stream is looked at once, which sets its time anew.
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
MOST_AFTER_A_JUMP = 10_000  # of a bucket too: they are looked at but once
AT_ONCE = 32
_log = logging.getLogger("holdfast.sweeper")


class Sweeper:
    """`run` until it is cancelled. `backoff` in seconds: how soon a job may be enqueued once more."""

    def __init__(self, log: Log, queue: Sender, *, backoff: float) -> None:
        self._log = log
        self._queue = queue
        self._backoff = backoff
        self._places = asyncio.Semaphore(AT_ONCE)
        self._went_back = False  # Redis's clock, and no sweep has come to its end since

    async def run(self) -> None:
        """Take the turn when it is free; what is out of reach now is met again at the next."""
        put_off = ""
        while True:
            await asyncio.sleep(TURN_SECONDS)
            try:
                await self.turn()
                put_off = ""
            except (StoreUnavailable, QueueUnavailable) as error:
                if error.code != put_off:  # a second time only after a sweep
                    put_off = error.code
                    _log.warning("sweep put off: %s", error.code)
            except Exception as error:  # without this task nobody would look after those
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
        """Look once at every stream whose time has come; answers how many were enqueued.

        One that cannot be looked at is told and left out. Raises StoreUnavailable or QueueUnavailable.
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
