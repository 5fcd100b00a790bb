"""A queue trigger's delivery: the platform settles it when the function returns.

The platform counts every delivery that fails and gives the message up after a few, so "later" is a new
message, hidden until then, before this one is settled; only what could not be decided at all raises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from gateway.outbox.deliverer import Deliverer
from gateway.queue.job_queue import Holding, Message
from gateway.runtime.tasks import begin
from gateway.streams.service import Gateway
from workers.chains.registry import Registry
from workers.delivery.capacity import Places
from workers.delivery.sweeper import Sweeper

if TYPE_CHECKING:
    from workers.delivery.runner import Runner, Settled

HELD_SPARE_MS = 1000  # behind the end of its holder's lease


class Trigger:
    """The functions that nobody calls over HTTP; opens at the first, within the event loop that serves."""

    def __init__(self, gateway: Gateway, registry: Registry) -> None:
        self._gateway = gateway
        self._registry = registry
        self._runner: Runner | None = None
        self._places: Places | None = None
        self._sweeper: Sweeper | None = None
        self._deliverer: Deliverer | None = None
        self._delivering: asyncio.Task[None] | None = None
        self._handling: dict[asyncio.Task[Settled], asyncio.Task[object]] = {}  # by whom it is awaited
        self._stopping = False

    async def run(self, body: bytes) -> None:
        """Run a job. Raises StoreUnavailable or QueueUnavailable: the platform delivers it again."""
        await self._handle(body, self._opened().run)

    async def start(self, message: Message) -> bool:
        """Run a POST's job in the instance that took it, as `Places.start`; queue deliveries take no place.

        Where the platform takes the instance away, `hand_over` gives the job to others; where the process
        dies, they have it within a lease.
        """
        if self._stopping:
            return False
        if self._places is None:
            queue, settings = self._gateway.parts.queue, self._gateway.settings
            self._places = Places(queue, self._opened(), count=settings.worker_concurrency)
        return await self._places.start(message)

    async def give_up(self, body: bytes) -> None:
        """Look after a message of the poison queue: its job ends if it is sick, else it goes on later.

        Raises StoreUnavailable or QueueUnavailable: the platform delivers it again.
        """
        await self._handle(body, self._opened().give_up)

    async def sweep(self) -> None:
        """Have the jobs that nobody holds delivered again, and those whose message has waited long enough.

        Raises StoreUnavailable or QueueUnavailable.
        """
        if isinstance(self._gateway.parts.queue, Holding):
            await self._gateway.parts.queue.release()
        if self._sweeper is None:
            parts = self._gateway.parts
            self._sweeper = Sweeper(parts.log, parts.queue, backoff=self._gateway.settings.lease)
        await self._sweeper.turn()
        if not self._stopping:
            await self._webhooks().sweep()

    async def hand_over(self) -> None:
        """Start no more jobs, and let go of those that run: others have them at once.

        Returns when the platform has its answer for each delivery.
        """
        self._stopping = True
        for task in self._handling:
            task.cancel()
        if self._delivering is not None:
            self._delivering.cancel()
        waiting = set(self._handling.values())
        await asyncio.gather(
            *([self._places.hand_over()] if self._places else []),
            *([asyncio.wait(waiting)] if waiting else []),
            *([asyncio.wait({self._delivering})] if self._delivering else []),
        )

    def _webhooks(self) -> Deliverer:
        """Sends webhooks; an instance that runs jobs does it between the timer's calls, too."""
        if self._deliverer is None:
            parts = self._gateway.parts
            self._deliverer = Deliverer(self._gateway.settings, parts.log, parts.outbox)
        return self._deliverer

    def _opened(self) -> Runner:
        if self._delivering is None and not self._stopping:
            self._delivering = asyncio.create_task(self._webhooks().run(), name="webhooks")
        if self._runner is None:
            from workers.delivery.runner import (
                Runner,  # with LangChain: an instance that runs no job starts without it
            )

            parts = self._gateway.parts
            self._runner = Runner(self._gateway.settings, parts.log, self._registry, parts.queue)
        return self._runner

    async def _handle(self, body: bytes, work: Callable[[bytes], Coroutine[Any, Any, Settled]]) -> None:
        """One delivery, which `hand_over` can take away; then it is sent again at once."""
        if self._stopping:
            return await self._send(body, 0)
        caller = asyncio.current_task()
        assert caller is not None
        task = begin(work(body), name="delivery")
        self._handling[task] = caller
        try:
            await asyncio.wait({task})
            if task.cancelled():  # before it had begun, so that nothing was let go
                await self._send(body, 0)
            else:
                await self._again(body, task.result())
        finally:
            del self._handling[task]

    async def _again(self, body: bytes, settled: Settled) -> None:
        if settled.again_in_ms is None:
            return
        delay_ms = settled.again_in_ms and settled.again_in_ms + HELD_SPARE_MS
        await self._send(body, delay_ms)

    async def _send(self, body: bytes, delay_ms: int) -> None:
        await self._gateway.parts.queue.enqueue(Message.decode(body), delay_ms)
