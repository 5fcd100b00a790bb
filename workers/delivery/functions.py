"""Handle the deliveries of an Azure Functions queue trigger.

The platform settles one when the function returns.
The platform counts each failed delivery, and moves the message to the poison queue after a few failures. So
to deliver a job later, this module sends a new message that is hidden until then, and lets the platform
settle the current one. It raises an exception only when nothing could be decided about the job.
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

HELD_SPARE_MS = 1000  # milliseconds added after the end of the lease of the worker that holds the job


class Trigger:
    """The functions that are not called over HTTP.

    They open at the first call, in the event loop that serves.
    """

    def __init__(self, gateway: Gateway, registry: Registry) -> None:
        self._gateway = gateway
        self._registry = registry
        self._runner: Runner | None = None
        self._places: Places | None = None
        self._sweeper: Sweeper | None = None
        self._deliverer: Deliverer | None = None
        self._delivering: asyncio.Task[None] | None = None
        # work -> the task that waits for it
        self._handling: dict[asyncio.Task[Settled], asyncio.Task[object]] = {}
        self._stopping = False

    async def run(self, body: bytes) -> None:
        """Run a job.

        Raises StoreUnavailable or QueueUnavailable: then the platform delivers the message again.
        """
        await self._handle(body, self._opened().run)

    async def start(self, message: Message) -> bool:
        """Run the job of a POST in the instance that accepted it, as `Places.start` does.

        Deliveries from the queue use no place here. When the platform stops the instance, `hand_over` passes
        the job on to other instances. When the process dies, another instance receives the job within a
        lease.
        """
        if self._stopping:
            return False
        if self._places is None:
            queue, settings = self._gateway.parts.queue, self._gateway.settings
            self._places = Places(queue, self._opened(), count=settings.worker_concurrency)
        return await self._places.start(message)

    async def give_up(self, body: bytes) -> None:
        """Handle a message of the poison queue.

        A job that fails every time ends; any other job is delivered again later.
        Raises StoreUnavailable or QueueUnavailable: then the platform delivers the message again.
        """
        await self._handle(body, self._opened().give_up)

    async def sweep(self) -> None:
        """Deliver again the jobs that no worker holds, and release the messages whose waiting time is over.

        Also sends the webhooks that are due. Raises StoreUnavailable or QueueUnavailable.
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
        """Start no more jobs and cancel the running ones. Other instances can run them at once.

        Returns when the function has returned for each delivery.
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
        """Return the deliverer of webhooks.

        An instance that runs jobs also sends webhooks between the timer's calls.
        """
        if self._deliverer is None:
            parts = self._gateway.parts
            self._deliverer = Deliverer(self._gateway.settings, parts.log, parts.outbox)
        return self._deliverer

    def _opened(self) -> Runner:
        if self._delivering is None and not self._stopping:
            self._delivering = asyncio.create_task(self._webhooks().run(), name="webhooks")
        if self._runner is None:
            from workers.delivery.runner import (
                Runner,  # imports LangChain, which an instance without jobs does not need
            )

            parts = self._gateway.parts
            self._runner = Runner(self._gateway.settings, parts.log, self._registry, parts.queue)
        return self._runner

    async def _handle(self, body: bytes, work: Callable[[bytes], Coroutine[Any, Any, Settled]]) -> None:
        """Handle one delivery. When `hand_over` cancels it, its message is sent again at once."""
        if self._stopping:
            return await self._send(body, 0)
        caller = asyncio.current_task()
        assert caller is not None
        task = begin(work(body), name="delivery")
        self._handling[task] = caller
        try:
            await asyncio.wait({task})
            if task.cancelled():  # cancelled before it began, so it has no result
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
