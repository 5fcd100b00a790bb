"""Takes jobs from the queue while there is room, and runs them: the worker of every host but Functions.

A job takes a place before it is received, so a busy process leaves the others' share in the queue.
"""

from __future__ import annotations

import asyncio
import logging

from gateway.errors import HoldfastError, QueueUnavailable, StoreUnavailable, stack_of
from gateway.queue import Delivery, JobQueue
from workers.runner import Runner

_BACKOFF_SECONDS = (0.1, 5.0)
_LAST_RECEIVE_SECONDS = 2.0  # more than a receive waits for its first delivery
_log = logging.getLogger("holdfast.loop")


class Loop:
    """`run` until it is cancelled; then running jobs are handed over."""

    def __init__(self, queue: JobQueue, runner: Runner, *, concurrency: int) -> None:
        self._queue = queue
        self._runner = runner
        self._places = concurrency
        self._running: set[asyncio.Task[None]] = set()
        self._receiving: asyncio.Task[list[Delivery]] | None = None

    async def run(self) -> None:
        """Receive and run. Goes on through an unreachable queue, ever more slowly, up to every 5 s."""
        backoff = _BACKOFF_SECONDS[0]
        try:
            while True:
                await self._room()
                try:
                    deliveries = await self._receive()
                    backoff = _BACKOFF_SECONDS[0]
                except QueueUnavailable:
                    _log.warning("queue out of reach; next try in %.1f s", backoff)
                    await asyncio.sleep(backoff)
                    backoff = min(backoff * 2, _BACKOFF_SECONDS[1])
                    continue
                for delivery in deliveries:
                    task = asyncio.create_task(self._work(delivery), name="job")
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(self._give_back(), *self._running, return_exceptions=True)

    async def _receive(self) -> list[Delivery]:
        self._receiving = asyncio.create_task(self._queue.receive(self._places - len(self._running)))
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

    async def _room(self) -> None:
        if len(self._running) >= self._places:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)

    async def _work(self, delivery: Delivery) -> None:
        try:
            settled = await self._runner.run(delivery.body)
            if settled.again_in_ms is None:
                await self._queue.done(delivery)
            else:
                await self._queue.later(delivery, settled.again_in_ms)
        except (StoreUnavailable, QueueUnavailable) as error:
            _log.warning("a delivery stays pending: %s", error.code)
        except HoldfastError as error:
            _log.error("a delivery stays pending: %s", error.code)
        except Exception as error:
            _log.error("a delivery stays pending:\n%s", stack_of(error))
        finally:
            self._queue.leave(delivery)  # where it was not settled
