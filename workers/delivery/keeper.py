"""Renew the leases of this process's claims while code of a chain blocks the event loop.

A writer renews its lease in the event loop. Code of a chain that is not async (such as `time.sleep` in an
async tool) blocks this loop. Then the process would lose all of its leases, and other workers would run its
streams again. So a thread watches the heartbeat of the event loop. When the heartbeat stops, the thread
renews the leases over its own connection. It does so only up to a time limit, because a loop that never runs
again must not keep its streams forever. This costs nothing per chunk.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from threading import Lock, Thread, get_ident
from time import monotonic

from gateway.protocol.errors import HoldfastError, stack_of
from gateway.settings import Settings
from gateway.store.log import Log
from gateway.store.own_connection import opened
from gateway.store.record import Claim
from gateway.writing.writer import LONGEST_SILENCE_SECONDS
from workers.guard import chain_of

LONGEST_BEAT_SECONDS = 0.5
# The thread ends this many seconds after the last claim. Starting a new thread costs a job one millisecond.
LINGERS_SECONDS = 30.0
_log = logging.getLogger("holdfast.keeper")


class Keeper:
    """The lease keeper of a process that runs jobs. Call `holding` in the event loop that runs the jobs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lease_ms = round(settings.lease * 1000)
        self._beat_seconds = min(settings.lease / 6, LONGEST_BEAT_SECONDS)
        self._silence = min(settings.lease / 3, LONGEST_SILENCE_SECONDS)
        self._claims: dict[str, Claim] = {}  # claim token -> claim
        self._lock = Lock()  # guards the claims and the thread
        self._thread: Thread | None = None
        self._beat = 0.0  # time of the last heartbeat of the loop, by `monotonic`
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0

    @contextmanager
    def holding(self, claim: Claim) -> Iterator[None]:
        """Renew the lease of this claim, when necessary, inside the `with` block."""
        with self._lock:
            self._claims[claim.token] = claim
            if self._timer is None:
                self._loop, self._loop_thread = asyncio.get_running_loop(), get_ident()
                self._tick()
            if self._thread is None:
                self._thread = Thread(target=self._watch, name="leases", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                del self._claims[claim.token]
                if not self._claims and self._timer is not None:
                    self._timer.cancel()
                    self._timer = None

    def _tick(self) -> None:
        """Record a heartbeat of the event loop and schedule the next one."""
        self._beat = monotonic()
        assert self._loop is not None
        self._timer = self._loop.call_later(self._beat_seconds, self._tick)

    def _watch(self) -> None:
        try:
            asyncio.run(self._keep())
        except Exception as error:  # without this thread a chain that blocks loses its lease
            _log.error("leases are not kept while a chain blocks:\n%s", stack_of(error))
            with self._lock:
                self._thread = None  # the next claim starts another

    async def _keep(self) -> None:
        """Watch the heartbeat and renew leases. Return when there was no claim for LINGERS_SECONDS."""
        told, idle_since = 0, monotonic()
        log: Log | None = None
        async with AsyncExitStack() as opening:
            while True:
                await asyncio.sleep(self._beat_seconds)
                with self._lock:
                    claims = list(self._claims.values())
                    if not claims and monotonic() > idle_since + LINGERS_SECONDS:
                        self._thread = None
                        return
                if claims:
                    idle_since = monotonic()
                stood = monotonic() - self._beat if claims else 0.0
                if stood < self._silence:
                    told = 0
                    continue
                told = self._tell(told, stood)
                if stood < self._settings.blocked:
                    if log is None:
                        log = await opening.enter_async_context(opened(self._settings))
                    await self._renew(log, claims)

    async def _renew(self, log: Log, claims: list[Claim]) -> None:
        renewing = (log.renew(claim, self._lease_ms) for claim in claims)
        answers = await asyncio.gather(*renewing, return_exceptions=True)
        for claim, answer in zip(claims, answers, strict=True):
            if isinstance(answer, BaseException):
                said = answer.code if isinstance(answer, HoldfastError) else type(answer).__name__
                _log.warning("stream %s: its lease could not be renewed: %s", claim.record.id, said)

    def _tell(self, told: int, stood: float) -> int:
        """Log the chain that blocks the loop: once, and once more when its leases are no longer renewed.

        Returns 1 while the leases are renewed, and 2 after that. The caller passes this number back as
        `told`.
        """
        gives_up = stood >= self._settings.blocked
        if told == 0 or (told == 1 and gives_up):
            words = "others take its streams" if gives_up else "all of its streams wait"
            _log.log(
                logging.ERROR if gives_up else logging.WARNING,
                "chain %s has kept the event loop for %.1f s by code that is not async; %s: %s",
                self._blocking() or "(unknown)",
                stood,
                words,
                self._place(),
            )
        return 2 if gives_up else 1

    def _blocking(self) -> str:
        """Return the chain whose task blocks the event loop now.

        If that is unknown, return all running chains.
        """
        assert self._loop is not None
        name = chain_of(asyncio.current_task(self._loop))
        return name or ", ".join(sorted({claim.record.chain for claim in list(self._claims.values())}))

    def _place(self) -> str:
        """Return the file, line and function at which the thread of the event loop is now."""
        frame = sys._current_frames().get(self._loop_thread)
        if frame is None:
            return "nowhere"
        return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
