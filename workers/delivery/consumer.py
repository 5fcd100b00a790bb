"""Receive jobs from the queue while places are free, and run them. All hosts except Azure Functions use this.

A process asks for at most as many jobs as it has free places. So a busy process leaves jobs in the queue for
other processes. A received job always runs, even if direct starts have used the places in the meantime.
"""

from __future__ import annotations

import asyncio
import logging
import random

from gateway.protocol.errors import QueueUnavailable, stack_of
from gateway.queue.job_queue import Delivery, Receiver
from workers.delivery.capacity import Places
from workers.delivery.runner import Runner

_BACKOFF_SECONDS = (0.1, 2.0)
_LAST_RECEIVE_SECONDS = 2.0  # longer than a receive waits for its first delivery
_log = logging.getLogger("holdfast.loop")


class Loop:
    """The loop that receives and runs jobs.

    `run` runs until it is cancelled, and then hands over the running jobs.
    """

    def __init__(self, queue: Receiver, runner: Runner, *, concurrency: int) -> None:
        self._queue = queue
        self.places = Places(queue, runner, count=concurrency)
        self._receiving: asyncio.Task[list[Delivery]] | None = None

    async def run(self) -> None:
        """Receive jobs and run them. After an error from the queue, retry with pauses that grow up to 2 s.

        The log gets one line when the queue becomes unreachable, and one line when it is reachable again.
        """
        backoff, trouble = _BACKOFF_SECONDS[0], ""
        try:
            while True:
                await self.places.room()
                try:
                    deliveries = await self._receive()
                except Exception as error:  # if this task ended, the process would run no more jobs
                    told = error.code if isinstance(error, QueueUnavailable) else stack_of(error)
                    if told != trouble:
                        trouble = told
                        _log.warning("the queue cannot be read, and is asked again until it can: %s", told)
                    await asyncio.sleep(backoff * random.uniform(0.5, 1.0))
                    backoff = min(backoff * 2, _BACKOFF_SECONDS[1])
                    continue
                if trouble:
                    _log.info("the queue is read again")
                backoff, trouble = _BACKOFF_SECONDS[0], ""
                for delivery in deliveries:
                    self.places.run(delivery)
        finally:
            await asyncio.gather(self._give_back(), self.places.hand_over(), return_exceptions=True)

    async def _receive(self) -> list[Delivery]:
        self._receiving = asyncio.create_task(self._queue.receive(self.places.free))
        deliveries = await asyncio.shield(self._receiving)
        self._receiving = None
        return deliveries

    async def _give_back(self) -> None:
        """Make the deliveries of an unfinished receive visible at once, so that other workers get them."""
        if self._receiving is None:
            return
        done, _ = await asyncio.wait({self._receiving}, timeout=_LAST_RECEIVE_SECONDS)
        if not done:
            self._receiving.cancel()
        elif self._receiving.exception() is None:
            for delivery in self._receiving.result():
                await self._queue.later(delivery, 0)
