"""How long a stage may run, how long its worker may, and what a stage says of both.

A stage's limit bounds each node of a graph, not the graph: every node that ends, at any depth, gives the next
one its own time. A platform that ends its workers bounds the claim too (`GATEWAY_RUN_LIMIT_SECONDS`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic

from gateway.settings import Settings
from workers.langchain.stage import Pace


class OverTime(Exception):
    """A stage has taken longer than it may: `stage`, `seconds`, and what has set the bound."""

    def __init__(self, stage: str, seconds: float, setter: str) -> None:
        super().__init__(stage, seconds, setter)
        self.stage, self.seconds, self.setter = stage, seconds, setter


class Limits:
    """Those of one claim. `own`: limits of stages that have their own, in seconds; 0: none."""

    def __init__(self, settings: Settings, own: Mapping[str, float], *, began: float) -> None:
        self._settings = settings
        self._own = own
        self._began = began  # the claim, by `monotonic`
        self._run_limit = settings.run_limit

    def of(self, stage: str) -> float:
        """A stage's limit in seconds; 0: none."""
        return self._own.get(stage, self._settings.stage_limit)

    def left(self) -> float:
        """Seconds until the platform may end this worker's run; infinite where none does."""
        return self._began + self._run_limit - monotonic() if self._run_limit else float("inf")

    def is_over(self) -> bool:
        """Whether the run's budget is spent."""
        return 0 < self._settings.run_budget <= monotonic() - self._began

    def lets_begin(self, stage: str) -> bool:
        """Whether this claim has the time for one stage more; another worker's claim has all of it."""
        return not self.is_over() and min(self.of(stage), self._run_limit) <= self.left()

    def pace(self, stage: str) -> StagePace:
        """The time of one try of this stage."""
        return StagePace(self, stage)


class StagePace(Pace):
    """One run of a stage: `async with pace` raises OverTime where it takes too long."""

    def __init__(self, limits: Limits, stage: str) -> None:
        self._limits, self._stage = limits, stage
        self._limit = limits.of(stage)
        self._loop = asyncio.get_running_loop()
        self._bound = asyncio.timeout(None)
        self._is_open = False
        self._is_last = False  # the time that is set is the worker's, not the stage's

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
            raise self._over_time() from None  # a chain has made another exception of the cancellation

    def node_ended(self) -> None:
        """The next node has its own time; from any thread."""
        self._loop.call_soon_threadsafe(self._set)

    def is_over(self) -> bool:
        """Whether the run's budget is spent."""
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
