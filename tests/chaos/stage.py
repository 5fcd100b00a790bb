"""The parts of a run: Redis behind a proxy, the model, two webs, three workers; starting and stopping them.

A killed process is replaced. Every started process is stopped by its pid, even after an error.
"""

from __future__ import annotations

import asyncio
import random
import re
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any

from redis.asyncio import Connection, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Lost

from tests.chaos.model import MOST_FAILURES, KnownModel
from tests.chaos.plan import Stores
from tests.chaos.proxy import Proxy
from tests.chaos.store import Store, Window, during, store
from tests.support.processes import GatewayProcess

WEBS = 2
WORKERS = 3
LEASE_SECONDS = 2.0
MAX_AGE_SECONDS = 20.0
SETTINGS = {
    "GATEWAY_LEASE_SECONDS": str(LEASE_SECONDS),
    "GATEWAY_HEARTBEAT_SECONDS": "2",
    "GATEWAY_STREAM_MAX_AGE_SECONDS": str(MAX_AGE_SECONDS),
    "GATEWAY_MAX_ATTEMPTS": "100000",
    "GATEWAY_MAX_FAILURES": "100000",
    "GATEWAY_MAX_READER_BYTES": "8192",
    "GATEWAY_STORE_PATIENCE_SECONDS": "120",
    "GATEWAY_QUEUE_GRACE_SECONDS": "5",
    "GATEWAY_STAGE_TRIES": str(2 * MOST_FAILURES),
    "GATEWAY_CHAINS": "tests.chaos.probe,tests.chaos.chains",
    "GATEWAY_LOG_LEVEL": "info",
}
_BAD_LINE = re.compile(r" (ERROR|CRITICAL) |Traceback|never retrieved|was destroyed but")
_TAIL_LINES = 40
_NOTES = 30


class _Look(Connection):
    """A connection that raises `Lost` when it is used after it was closed.

    CPython 3.13.0 raises `AttributeError` when `writelines` is called on a closed transport, and redis-py
    would keep using that connection without end.
    """

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        try:
            await super().send_packed_command(command, check_health)
        except AttributeError as closed:
            await self.disconnect(nowait=True)
            raise Lost("the transport is closed") from closed


class Stage:
    """The running processes, and the logs of those that have ended."""

    def __init__(self, held: Store, proxy: Proxy, window: Proxy, model: KnownModel) -> None:
        self.store = held
        self.proxy = proxy
        self.window = window
        self.model = model
        # The driver's own access to the store. Retry once, because a connection may belong to a server that
        # has died.
        self.redis: Any = Redis.from_url(window.url, connection_class=_Look, retry=Retry(NoBackoff(), 1))
        self.webs: list[GatewayProcess] = []
        self.workers: list[GatewayProcess] = []
        self.paused: set[GatewayProcess] = set()
        self.unrest: list[Window] = []  # times in which the workers or their connections were disturbed
        self.complaints: list[str] = []
        self._history: list[str] = []  # logs of ended processes, and the faults with their victims
        self.exits: list[str] = []
        self._environment = {"REDIS_URL": proxy.url, **model.environment(), **SETTINGS}

    async def start(self) -> None:
        """Start all parts; if a process does not start, the run ends."""
        await asyncio.gather(*(self.spawn("web") for _ in range(WEBS)))
        await asyncio.gather(*(self.spawn("worker") for _ in range(WORKERS)))

    async def spawn(self, mode: str) -> None:
        """Start one more process of a mode. A web process counts as started when it serves."""
        process = GatewayProcess(mode, self._environment)
        await process.__aenter__()
        self._of(mode).append(process)

    async def replace(self, mode: str, process: GatewayProcess) -> None:
        """Send SIGKILL, and start another process at once."""
        with during(self.unrest):
            self._of(mode).remove(process)
            self.note(f"kill {mode} {process.pid}")
            await process.kill()
            await self._bury(process)
            await self.spawn(mode)

    async def pause(self, process: GatewayProcess, seconds: float) -> None:
        """Send SIGSTOP, and later SIGCONT if the process still exists."""
        self.paused.add(process)
        process.signal(signal.SIGSTOP)
        self.note(f"stop worker {process.pid} for {seconds:.1f} s")
        try:
            with during(self.unrest):
                await asyncio.sleep(seconds)
        finally:
            process.signal(signal.SIGCONT)
            self.paused.discard(process)

    def url(self, rng: random.Random) -> str:
        """Return the URL of one of the web processes."""
        return rng.choice(self.webs).url if self.webs else ""

    def processes(self) -> list[tuple[str, GatewayProcess]]:
        """Return all running processes, with their modes."""
        return [("web", web) for web in self.webs] + [("worker", worker) for worker in self.workers]

    async def stop(self) -> None:
        """Stop all processes in order; record how they ended."""
        for mode, process in self.processes():
            await self._stop(mode, process)
        await self.redis.aclose()

    def read_logs(self) -> None:
        """Record the complaints in the logs of the running processes."""
        for _, process in self.processes():
            self._read(process)

    def note(self, what: str) -> None:
        """Record a fault, in the form of the processes' logs."""
        now = datetime.now().isoformat(" ", "milliseconds").replace(".", ",")  # noqa: DTZ005 - as theirs
        self._history.append(f"{now} CHAOS {what}")

    def story(self, words: Iterable[str]) -> str:
        """Return the faults, and the lines with these words in the logs of all processes, running or
        ended."""
        shown = [" CHAOS ", *words]
        lines = [*self._history, *(line for _, p in self.processes() for line in _signed(p))]
        return "\n".join(sorted(line for line in lines if any(word in line for word in shown)))

    def tails(self) -> str:
        """Return the last log lines of every running process."""
        lines = []
        for mode, process in self.processes():
            lines.append(f"--- {mode} {process.pid}")
            lines += process.log().splitlines()[-_TAIL_LINES:]
        return "\n".join(lines)

    def _of(self, mode: str) -> list[GatewayProcess]:
        return self.webs if mode == "web" else self.workers

    async def _stop(self, mode: str, process: GatewayProcess) -> None:
        try:
            code = await process.stop()
        except TimeoutError:
            self.exits.append(f"{mode} {process.pid} did not stop within its bound")
            return
        if code != 0:
            self.exits.append(f"{mode} {process.pid} ended with {code}")

    async def _bury(self, process: GatewayProcess) -> None:
        self._read(process)
        self._history += [line for line in _signed(process) if "stream " in line]
        await process.stop()  # it is dead; this closes its pipes

    def _read(self, process: GatewayProcess) -> None:
        lines = process.log().splitlines()
        for number, line in enumerate(lines):
            if _BAD_LINE.search(line) and len(self.complaints) < _NOTES:
                self.complaints.append("\n".join([f"pid {process.pid}:", *lines[number : number + 12]]))


def _signed(process: GatewayProcess) -> list[str]:
    return [f"{line} [{process.pid}]" for line in process.log().splitlines()]


@asynccontextmanager
async def stage(rng: random.Random, stores: Stores = Stores.BOTH) -> AsyncIterator[Stage]:
    """Run all parts. They are stopped at the end, even if the start fails halfway."""
    async with AsyncExitStack() as stack:
        held = await stack.enter_async_context(store(replicated=stores is not Stores.AOF))
        proxy, window = [
            await stack.enter_async_context(
                Proxy(lambda: held.server.socket, random.Random(rng.getrandbits(32)))
            )
            for _ in range(2)
        ]
        model = await stack.enter_async_context(KnownModel())
        made = Stage(held, proxy, window, model)
        stack.push_async_callback(made.stop)
        await made.start()
        yield made
