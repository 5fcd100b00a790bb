"""Run the jobs of one process with one version of the chains."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.queue.job_queue import JobQueue, Message
from gateway.store.log import Log
from gateway.store.presence import Presence
from workers.chains.registry import Registry

Starts = Callable[[Message], Awaitable[bool]]


class Shift:
    """The jobs of one process with one version of the chains. `run` runs until it is cancelled.

    `first`: the chain that is created before the first job. `opened` is called with the function that starts
    a job in this process, as soon as jobs can start.
    """

    def __init__(
        self, log: Log, queue: JobQueue, registry: Registry, *, first: str, opened: Callable[[Starts], object]
    ) -> None:
        from workers.delivery.runner import (
            Runner,  # imports LangChain, which a process without workers does not need
        )

        self._log = log
        self._queue = queue
        self._registry = registry
        self._first = first
        self._opened = opened
        self._runner = Runner(registry.settings, log, registry, queue)

    def replace(self) -> None:
        """Note that another shift follows in this process.

        When this shift then hands its jobs over, this does not count against the jobs' attempts.
        """
        self._runner.replaced = True

    async def run(self) -> None:
        """Create the chains and run jobs.

        At the end, hand over the jobs and close what the factories opened.
        """
        from workers.delivery.consumer import Loop

        registry, settings = self._registry, self._registry.settings
        try:
            await registry.warm(self._first)
            async with asyncio.TaskGroup() as tasks:
                if settings.is_development:
                    tasks.create_task(registry.warm_own(), name="chains")
                loop = Loop(self._queue, self._runner, concurrency=settings.worker_concurrency)
                self._opened(loop.places.start)
                tasks.create_task(loop.run(), name="loop")
                assert self._log.connection is not None
                presence = Presence(self._log.connection, settings.queue_name)
                tasks.create_task(presence.tell(), name="presence")
        finally:
            await registry.close()
