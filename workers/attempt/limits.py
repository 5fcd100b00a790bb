"""Limit how long a stage may run, and how long its worker may run.

The limit of a stage is for each node of a graph, not for the whole graph. Each time a node ends, at any
depth, the limit starts again for the next node. A platform that ends its workers also limits the claim
(`GATEWAY_RUN_LIMIT_SECONDS`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic

from gateway.settings import Settings
from workers.langchain.stage import Pace


class OverTime(Exception):
    """A stage took longer than allowed.

    It has the `stage`, the limit in `seconds`, and the setting of this limit.
    """

    def __init__(self, stage: str, seconds: float, setter: str) -> None:
        super().__init__(stage, seconds, setter)
        self.stage, self.seconds, self.setter = stage, seconds, setter


class Limits:
    """The time limits of one claim. `own`: limits in seconds of stages that have their own; 0: no limit."""

    def __init__(self, settings: Settings, own: Mapping[str, float], *, began: float) -> None:
        self._settings = settings
        self._own = own
        self._began = began  # when the claim began, by `monotonic`
        self._run_limit = settings.run_limit

    def of(self, stage: str) -> float:
        """Return the limit of a stage in seconds. 0: no limit."""
        return self._own.get(stage, self._settings.stage_limit)

    def left(self) -> float:
        """Return the seconds until the platform may end this worker. Infinite: the platform has no limit."""
        return self._began + self._run_limit - monotonic() if self._run_limit else float("inf")

    def is_over(self) -> bool:
        """Return whether the time budget of the run is used up."""
        return 0 < self._settings.run_budget <= monotonic() - self._began

    def lets_begin(self, stage: str) -> bool:
        """Return whether this claim has enough time for one more stage.

        Another worker's new claim has the full time.
        """
        return not self.is_over() and min(self.of(stage), self._run_limit) <= self.left()

    def pace(self, stage: str) -> StagePace:
        """Return the time limit for one try of this stage."""
        return StagePace(self, stage)


class StagePace(Pace):
    """The time limit of one run of a stage. `async with pace` raises OverTime when the run takes too long."""

    def __init__(self, limits: Limits, stage: str) -> None:
        self._limits, self._stage = limits, stage
        self._limit = limits.of(stage)
        self._loop = asyncio.get_running_loop()
        self._bound = asyncio.timeout(None)
        self._is_open = False
        self._is_last = False  # True: the current time limit is the worker's, not the stage's

    async def __aenter__(self) -> StagePace:
        await self._bound.__aenter__()
        self._is_open = True
        self._set()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._is_open = False
        try:
            await self._bound.__aexit__(type(error) if error else None, error, None)
        except TimeoutError:
            raise self._over_time() from None
        if error is not None and self._bound.expired() and isinstance(error, Exception):
            # the chain has replaced the cancellation with another exception
            raise self._over_time() from None

    def node_ended(self) -> None:
        """Start the time limit again for the next node. May be called from any thread."""
        self._loop.call_soon_threadsafe(self._set)

    def is_over(self) -> bool:
        """Return whether the time budget of the run is used up."""
        return self._limits.is_over()

    def _set(self) -> None:
        if not self._is_open or self._bound.expired():
            return
        left = self._limits.left()
        self._is_last = not self._limit or left < self._limit
        seconds = left if self._is_last else self._limit
        if seconds != float("inf"):
            self._bound.reschedule(self._loop.time() + seconds)

    def _over_time(self) -> OverTime:
        if self._is_last:
            return OverTime(self._stage, self._limits._run_limit, "GATEWAY_RUN_LIMIT_SECONDS")
        return OverTime(self._stage, self._limit, "GATEWAY_STAGE_LIMIT_SECONDS, or `limits` of the chain")
