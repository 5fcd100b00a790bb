"""Check whether this process can serve: the state of each part that it needs.

One check serves all requests within a second, so that probes cannot load the store. The result contains only
states in the gateway's own words, and a number. It contains no host names and no texts of exceptions.
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
LOOK_SECONDS = 2.0  # a part that does not answer within this time is unreachable
# States that let this process serve. `unheard`: no published blocks arrive, but readers still get everything
# by polling the log. If `unheard` were not good, a Redis that delivers no messages would remove all processes
# from the load balancer, although all of them can serve.
GOOD = {"ok", "degraded", "idle", "unheard", "configured", "loading", "ready"}
T = TypeVar("T")
_log = logging.getLogger("holdfast.readiness")


class Shared(Generic[T]):
    """An expensive check, made once at a time. Its result is used for a second."""

    def __init__(self, look: Callable[[], Awaitable[T]], seconds: float = KEPT_SECONDS) -> None:
        self._look = look
        self._seconds = seconds
        self._task: asyncio.Task[T] | None = None
        self._answered_at = 0.0

    async def __call__(self) -> T:
        """Return the result, which is at most `seconds` old.

        Raises the exception of the check, which is shared too.
        """
        task = self._task
        if task is None or (task.done() and time.monotonic() - self._answered_at > self._seconds):
            self._task = task = asyncio.create_task(self._run(), name="shared-look")
        return await asyncio.shield(task)  # a cancelled caller does not cancel the check for the others

    async def _run(self) -> T:
        try:
            return await self._look()
        finally:
            self._answered_at = time.monotonic()


class Parts(Protocol):
    """The parts of the gateway that are checked."""

    @property
    def redis(self) -> Commands:
        """The connection to the store."""

    @property
    def log(self) -> Log:
        """The log, which gives access to streams."""

    @property
    def queue(self) -> Admission:
        """The queue of jobs."""

    @property
    def hub(self) -> Hub:
        """The hub, which has the subscriber to published blocks."""

    @property
    def presence(self) -> Presence:
        """The key that workers write while they run."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The states of all parts in one check.

    `depth`: jobs queued or running; None if the queue does not report it.
    """

    store: str
    queue: str
    depth: int | None
    subscriber: str
    model: str
    workers: str = "none_seen"

    @property
    def good(self) -> bool:
        """Return whether requests may be sent to this process.

        While a model loads, its jobs wait in the queue.
        """
        return {self.store, self.queue, self.subscriber, self.model} <= GOOD

    def document(self) -> dict[str, Any]:
        """Return the JSON document for a probe."""
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
    """`await readiness()` returns the states of the gateway's parts. It opens the parts if necessary."""

    def __init__(
        self, parts: Callable[[], Parts], model_state: Callable[[], str], works_here: Callable[[], bool]
    ) -> None:
        """`works_here` returns whether this process runs jobs."""
        self._parts = parts
        self._model_state = model_state
        self._works_here = works_here
        self._loop: asyncio.AbstractEventLoop | None = None
        self._shared = Shared(self._look)

    def open(self) -> None:
        """Record that the parts are open, in the running event loop."""
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Record that the parts are closed.

        Then `depth`, which another thread calls, does not open them again.
        """
        self._loop = None

    async def __call__(self) -> Ready:
        """Return the states, which are at most a second old."""
        return await self._shared()

    def depth(self) -> int | None:
        """Return the depth of the queue, for the thread of the metrics; None if it is not known."""
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
        """Return `seen` if this process or another one runs jobs, otherwise `none_seen`."""
        if self._works_here():
            return "seen"
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                return "seen" if await presence.seen() else "none_seen"
        except (StoreUnavailable, TimeoutError):
            return "none_seen"


async def _store(parts: Parts) -> str:
    """Return the state of the store.

    `ok`; `refusing`: it refuses a write; `unreachable`; or `degraded`: only some nodes of a cluster serve.
    """
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
    """Test a write on the node of this key. Return `ok`, `refusing` or `unreachable`.

    The reason for `refusing` is logged.
    """
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
