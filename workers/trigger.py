"""A queue trigger's delivery: the platform settles it when the function returns.

The platform counts every delivery that fails and gives the message up after a few, so "later" is a new
message, hidden until then, before this one is settled; only what could not be decided at all raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.gateway import Gateway
from gateway.queue import Holding, Message
from workers.chains.registry import Registry
from workers.places import Places
from workers.sweeper import Sweeper

if TYPE_CHECKING:
    from workers.runner import Runner, Settled

HELD_SPARE_MS = 1000  # behind the end of its holder's lease


class Trigger:
    """The functions that nobody calls over HTTP; opens at the first, within the event loop that serves."""

    def __init__(self, gateway: Gateway, registry: Registry) -> None:
        self._gateway = gateway
        self._registry = registry
        self._runner: Runner | None = None
        self._places: Places | None = None
        self._sweeper: Sweeper | None = None

    async def run(self, body: bytes) -> None:
        """Run a job. Raises StoreUnavailable or QueueUnavailable: the platform delivers it again."""
        await self._again(body, await self._opened().run(body))

    async def start(self, message: Message) -> bool:
        """Run a POST's job in the instance that took it, as `Places.start`; queue deliveries take no place.

        The platform takes an instance away without a word: then others get the job within a lease.
        """
        if self._places is None:
            queue, settings = self._gateway.parts.queue, self._gateway.settings
            self._places = Places(queue, self._opened(), count=settings.worker_concurrency)
        return await self._places.start(message)

    async def give_up(self, body: bytes) -> None:
        """Look after a message of the poison queue: its job ends if it is sick, else it goes on later.

        Raises StoreUnavailable or QueueUnavailable: the platform delivers it again.
        """
        await self._again(body, await self._opened().give_up(body))

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

    def _opened(self) -> Runner:
        if self._runner is None:
            from workers.runner import (
                Runner,
            )  # with LangChain: an instance that runs no job starts without it

            self._runner = Runner(self._gateway.settings, self._gateway.parts.log, self._registry)
        return self._runner

    async def _again(self, body: bytes, settled: Settled) -> None:
        if settled.again_in_ms is None:
            return
        delay_ms = settled.again_in_ms and settled.again_in_ms + HELD_SPARE_MS
        await self._gateway.parts.queue.enqueue(Message.decode(body), delay_ms)
