"""Takes jobs from the queue while there is room, and runs them: the worker of every host but Functions.

No more are asked for than there are places, so a busy process leaves the others' share in the queue. What has
come is run, even if direct starts have taken its places meanwhile.
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
_LAST_RECEIVE_SECONDS = 2.0  # more than a receive waits for its first delivery
_log = logging.getLogger("holdfast.loop")


class Loop:
    """`run` until it is cancelled; then running jobs are handed over."""

    def __init__(self, queue: Receiver, runner: Runner, *, concurrency: int) -> None:
        self._queue = queue
        self.places = Places(queue, runner, count=concurrency)
        self._receiving: asyncio.Task[list[Delivery]] | None = None

    async def run(self) -> None:
        """Receive and run. Goes on through whatever the queue says, ever more slowly, up to every 2 s.

        The log tells when the queue is out of reach, and when it is there again, once each.
        """
        backoff, trouble = _BACKOFF_SECONDS[0], ""
        try:
            while True:
                await self.places.room()
                try:
                    deliveries = await self._receive()
                except Exception as error:  # without this task the process would run nothing any more
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
        """What the queue hands out to a receive that nobody waits for any more, others may have at once."""
        if self._receiving is None:
            return
        done, _ = await asyncio.wait({self._receiving}, timeout=_LAST_RECEIVE_SECONDS)
        if not done:
            self._receiving.cancel()
        elif self._receiving.exception() is None:
            for delivery in self._receiving.result():
                await self._queue.later(delivery, 0)
