"""Whether this process can serve: each part that it needs, and its state.

One look serves all who ask within a second, so that nobody who probes can load the store. What is told are
states in words of our own and a number: no host's name, no exception's text.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from gateway.protocol.errors import QueueUnavailable, StoreUnavailable
from gateway.queue.job_queue import Admission
from gateway.redis.commands import Commands
from gateway.relay.hub import Hub
from gateway.store.due import BUCKETS
from gateway.store.log import Log
from gateway.store.presence import Presence

KEPT_SECONDS = 1.0
LOOK_SECONDS = 2.0  # within which a part answers, or is out of reach
# `unheard`: readers get everything by looks at the log. Were it unready, a server that delivers no publishes
# would take all processes out of rotation, though all of them serve.
GOOD = {"ok", "degraded", "idle", "unheard", "configured", "loading", "ready"}
T = TypeVar("T")
_log = logging.getLogger("holdfast.readiness")


class Shared(Generic[T]):
    """A look that costs something: one at a time, and its answer serves for a second."""

    def __init__(self, look: Callable[[], Awaitable[T]], seconds: float = KEPT_SECONDS) -> None:
        self._look = look
        self._seconds = seconds
        self._task: asyncio.Task[T] | None = None
        self._answered_at = 0.0

    async def __call__(self) -> T:
        """The answer, at most so many seconds old. Raises what the look raises, likewise."""
        task = self._task
        if task is None or (task.done() and time.monotonic() - self._answered_at > self._seconds):
            self._task = task = asyncio.create_task(self._run(), name="shared-look")
        return await asyncio.shield(task)  # whoever stops waiting leaves it to the others

    async def _run(self) -> T:
        try:
            return await self._look()
        finally:
            self._answered_at = time.monotonic()


class Parts(Protocol):
    """What is looked at."""

    @property
    def redis(self) -> Commands:
        """The store."""

    @property
    def log(self) -> Log:
        """Its clocks."""

    @property
    def queue(self) -> Admission:
        """The queue."""

    @property
    def hub(self) -> Hub:
        """The subscriber."""

    @property
    def presence(self) -> Presence:
        """Of workers."""


@dataclass(frozen=True, slots=True)
class Ready:
    """States by part, as of one look. `depth`: jobs queued or running; None when the queue does not tell."""

    store: str
    queue: str
    depth: int | None
    subscriber: str
    model: str
    workers: str = "none_seen"

    @property
    def good(self) -> bool:
        """Whether to send requests here. Jobs wait in the queue for a model that still loads."""
        return {self.store, self.queue, self.subscriber, self.model} <= GOOD

    def document(self) -> dict[str, Any]:
        """What a prober sees."""
        depth = {} if self.depth is None else {"depth": self.depth}
        return {
            "status": "ready" if self.good else "unready",
            "store": {"state": self.store},
            "queue": {"state": self.queue, **depth},
            "subscriber": {"state": self.subscriber},
            "model": {"state": self.model},
            "workers": {"state": self.workers},
        }


class Readiness:
    """`await readiness()`: the parts of an open gateway, opened by this where they are not."""

    def __init__(
        self, parts: Callable[[], Parts], model_state: Callable[[], str], works_here: Callable[[], bool]
    ) -> None:
        """`works_here`: whether this process itself runs jobs."""
        self._parts = parts
        self._model_state = model_state
        self._works_here = works_here
        self._loop: asyncio.AbstractEventLoop | None = None
        self._shared = Shared(self._look)

    def open(self) -> None:
        """The parts are open, in this event loop."""
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """They are closed, and not to be opened by a look from another thread."""
        self._loop = None

    async def __call__(self) -> Ready:
        """At most a second old."""
        return await self._shared()

    def depth(self) -> int | None:
        """The queue's depth, for a thread of the metrics' own; None while nobody can tell."""
        loop = self._loop
        if loop is None or not loop.is_running():
            return None
        asked = asyncio.run_coroutine_threadsafe(self(), loop)
        try:
            return asked.result(2 * LOOK_SECONDS).depth
        except (TimeoutError, CancelledError):  # the loop is busy, or ends
            asked.cancel()
            return None

    async def _look(self) -> Ready:
        try:
            parts = self._parts()
        except StoreUnavailable:  # there is no store to open
            return Ready("unreachable", "unreachable", None, "ended", self._model_state())
        store, depth, seen = await asyncio.gather(
            _store(parts), _depth(parts.queue), self._seen(parts.presence)
        )
        queue = "unreachable" if depth is None else "ok"
        return Ready(store, queue, depth, parts.hub.subscriber.state, self._model_state(), seen)

    async def _seen(self, presence: Presence) -> str:
        """`seen` where some process takes jobs, as far as the store knows."""
        if self._works_here():
            return "seen"
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                return "seen" if await presence.seen() else "none_seen"
        except (StoreUnavailable, TimeoutError):
            return "none_seen"


async def _store(parts: Parts) -> str:
    """`ok`, `refusing` (a write), `unreachable`, or `degraded`: some nodes of a cluster serve, not all."""
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            nodes = await parts.redis.by_node([f"{{{number:02x}}}:open" for number in range(BUCKETS)])
    except (StoreUnavailable, TimeoutError):
        return "unreachable"
    states = await asyncio.gather(*(_node(parts.redis, keys[0]) for keys in nodes))
    if "ok" in states:
        return "ok" if set(states) == {"ok"} else "degraded"
    return "refusing" if "refusing" in states else "unreachable"


async def _node(redis: Commands, near: str) -> str:
    """`ok` when it takes a write beside this key; `refusing`, and why in the log, when it does not."""
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            [answer] = await redis.answers(
                [("SET", f"turn:ready:{near}", 1, "PX", round(KEPT_SECONDS * 1000))]
            )
    except (StoreUnavailable, TimeoutError):
        return "unreachable"
    if isinstance(answer, Exception):
        _log.warning("the store refuses a write: %s", type(answer).__name__)
        return "refusing"
    return "ok"


async def _depth(queue: Admission) -> int | None:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            return await queue.depth()
    except (QueueUnavailable, TimeoutError):
        return None
