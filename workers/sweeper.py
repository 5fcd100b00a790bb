"""Finds the jobs that nobody holds and nobody watches, and has them delivered again.

Each bucket's index of open streams is sorted by when somebody should look: a lease's end, or the end of
the time that a queued job may wait. One process at a time has the turn, so the cost does not grow with
the fleet.
"""

from __future__ import annotations

import asyncio
import logging

from gateway.errors import QueueUnavailable, StoreUnavailable
from gateway.log import Log
from gateway.queue import JobQueue
from gateway.revive import revive

TURN_SECONDS = 1.0
MOST_OF_A_BUCKET = 100
_log = logging.getLogger("holdfast.sweeper")


class Sweeper:
    """`run` until it is cancelled. `backoff` in seconds: how soon a job may be enqueued once more."""

    def __init__(self, log: Log, queue: JobQueue, *, backoff: float) -> None:
        self._log = log
        self._queue = queue
        self._backoff = backoff

    async def run(self) -> None:
        """Take the turn when it is free; what is out of reach now is met again at the next."""
        while True:
            await asyncio.sleep(TURN_SECONDS)
            try:
                if await self._log.take_turn("sweep", round(TURN_SECONDS * 900)):
                    await self.sweep()
            except (StoreUnavailable, QueueUnavailable) as error:
                _log.warning("sweep put off: %s", error.code)

    async def sweep(self) -> int:
        """Look once at every stream whose time has come; answers how many were enqueued."""
        enqueued = 0
        for stream_id in await self._log.due(MOST_OF_A_BUCKET):
            enqueued += await revive(self._log, self._queue, stream_id, backoff=self._backoff)
        return enqueued
