"""Measure how long the event loop of a process blocks, in processor time of the whole process.

`python -m tests.support.turns web` is `python -m gateway web` with a watcher in its event loop and one more
route. `GET /turns` returns the longest turn since the last `GET /turns`, in milliseconds. A turn is the
processor time that the process has used between two moments at which the loop can run something else. It
counts all threads: C code that holds the interpreter in another thread is included. The load of other
processes is not included.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

BEAT_SECONDS = 0.001


class Watch:
    """Measure the longest turn of the running loop. A timer fires each millisecond: a late call shows a long
    turn."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._longest = 0.0
        self._at = time.process_time()
        self._timer = self._loop.call_later(BEAT_SECONDS, self._beat)

    def take(self) -> float:
        """Return the longest turn since the last call, in seconds."""
        self._note()
        longest, self._longest = self._longest, 0.0
        return longest

    def close(self) -> None:
        """Stop the measurement."""
        self._timer.cancel()

    def _beat(self) -> None:
        self._note()
        self._timer = self._loop.call_later(BEAT_SECONDS, self._beat)

    def _note(self) -> None:
        now = time.process_time()
        self._longest = max(self._longest, now - self._at)
        self._at = now


def cost(call: Callable[[], object], enough: float = 0.0, times: int = 10) -> float:
    """Return the processor time of a call in seconds: the lowest of several tries. A try below `enough` ends
    the measurement.

    On a shared machine the same work can need twice the processor time from one moment to the next.
    """
    best = float("inf")
    for _ in range(times):
        began = time.process_time()
        call()
        best = min(best, time.process_time() - began)
        if best < enough:
            break
    return best


class Watched:
    """An ASGI application with the additional route `GET /turns`."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application
        self._watch: Watch | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._watch is None:
            self._watch = Watch()
        if scope["type"] == "http" and scope["path"] == "/turns":
            await JSONResponse(self._watch.take() * 1000)(scope, receive, send)
        else:
            await self._application(scope, receive, send)


def run() -> int:
    """Run the product's own program with this measurement in its application."""
    import gateway.process as program
    from gateway.__main__ import run as product

    made: Any = vars(program)["app"]
    setattr(program, "app", lambda *given: Watched(made(*given)))  # noqa: B010
    return product()


if __name__ == "__main__":
    sys.exit(run())
