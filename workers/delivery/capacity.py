"""Run a bounded number of jobs at once in this process.

A job comes from the loop that receives from the queue, or from a direct start. In a direct start, the process
that accepted a POST runs the job itself, as soon as the queue has acknowledged the job's message. The message
stays in the queue. It is hidden for one lease, and the lease is renewed. Invariant: a job runs only while its
message is in the queue. So another worker receives the message when this process dies.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.observe import telemetry
from gateway.protocol.errors import HoldfastError, QueueUnavailable, StoreUnavailable, stack_of
from gateway.queue.job_queue import Delivery, Holding, Message, Receiver
from gateway.runtime.tasks import begin

if TYPE_CHECKING:
    from workers.delivery.runner import Runner

_log = logging.getLogger("holdfast.places")


class Places:
    """The places for jobs in this process: one job runs in each. Call `hand_over` when the process stops."""

    def __init__(self, queue: Receiver, runner: Runner, *, count: int) -> None:
        self._queue = queue
        self._holding = queue if isinstance(queue, Holding) else None
        self._runner = runner
        self._count = count
        self._promised = 0  # reserved for jobs whose message is being sent
        self._running: set[asyncio.Task[None]] = set()
        self._freed = asyncio.Event()
        self._stopping = False

    @property
    def free(self) -> int:
        """Return how many more jobs may start in this process now."""
        return max(0, self._count - self._promised - len(self._running))

    async def room(self) -> None:
        """Wait until a place is free."""
        while not self.free:
            self._freed.clear()
            await self._freed.wait()

    async def start(self, message: Message) -> bool:
        """Enqueue a job and run it here at once. Return False, and do nothing, when no place is free.

        Returns when the queue has acknowledged the message. Raises QueueUnavailable: then the job does not
        run here.
        """
        holding = self._holding
        if holding is None or self._stopping or not self.free:
            return False
        self._promised += 1
        try:
            delivery = await holding.enqueue_held(message)
        finally:
            self._promised -= 1
            self._freed.set()
        if self._stopping:  # the process began to stop while the message was sent
            with suppress(QueueUnavailable):  # in any case the message becomes visible within a lease
                await self._queue.later(delivery, 0)
        else:
            telemetry.direct_starts.add(1)
            self.run(delivery)
        return True

    def run(self, delivery: Delivery) -> None:
        """Run a job and settle its delivery. The job uses a place, even when no place is free."""
        task = begin(self._work(delivery), name="job")
        self._running.add(task)
        task.add_done_callback(self._ended)

    async def hand_over(self) -> None:
        """Start no more jobs and cancel the running ones. Other workers can run them at once."""
        self._stopping = True
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._freed.set()

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
            self._queue.leave(delivery)  # for a delivery that was not settled
