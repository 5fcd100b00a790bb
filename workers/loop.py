"""Takes jobs from the queue while there is room, and runs them: the worker of every host but Functions.

No more are asked for than there are places, so a busy process leaves the others' share in the queue. What has
come is run, even if direct starts have taken its places meanwhile.
"""

from __future__ import annotations

import asyncio
import logging

from gateway.errors import QueueUnavailable
from gateway.queue import Delivery, JobQueue
from workers.places import Places
from workers.runner import Runner

_BACKOFF_SECONDS = (0.1, 5.0)
_LAST_RECEIVE_SECONDS = 2.0  # more than a receive waits for its first delivery
_log = logging.getLogger("holdfast.loop")


class Loop:
    """`run` until it is cancelled; then running jobs are handed over."""

    def __init__(self, queue: JobQueue, runner: Runner, *, concurrency: int) -> None:
        self._queue = queue
        self.places = Places(queue, runner, count=concurrency)
        self._receiving: asyncio.Task[list[Delivery]] | None = None

    async def run(self) -> None:
        """Receive and run. Goes on through an unreachable queue, ever more slowly, up to every 5 s."""
        backoff = _BACKOFF_SECONDS[0]
        try:
            while True:
                await self.places.room()
                try:
                    deliveries = await self._receive()
                    backoff = _BACKOFF_SECONDS[0]
                except QueueUnavailable:
                    _log.warning("queue out of reach; next try in %.1f s", backoff)
                    await asyncio.sleep(backoff)
                    backoff = min(backoff * 2, _BACKOFF_SECONDS[1])
                    continue
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
