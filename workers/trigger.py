"""A queue trigger's delivery: the platform settles it, so what is not settled must raise."""

from __future__ import annotations

from gateway.gateway import Gateway
from workers.chains.registry import Registry
from workers.runner import Runner


class NotSettled(Exception):
    """Somebody else holds this job; the platform delivers the message again after its visibility time-out."""


class Trigger:
    """Runs the jobs of one process; opens at the first, within the event loop that serves."""

    def __init__(self, gateway: Gateway, registry: Registry) -> None:
        self._gateway = gateway
        self._registry = registry
        self._runner: Runner | None = None

    async def run(self, body: bytes) -> None:
        """One delivery. Raises NotSettled or StoreUnavailable for the platform to deliver it again."""
        if self._runner is None:
            self._runner = Runner(self._gateway.settings, self._gateway.parts.log, self._registry)
        settled = await self._runner.run(body)
        if settled.again_in_ms is not None:
            raise NotSettled
