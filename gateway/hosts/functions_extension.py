"""The HTTP server of the extension azurefunctions-extensions-http-fastapi, set up as this product needs it.

The extension starts uvicorn with its defaults, in the main thread of the platform's worker process. The
access log then prints each query to a console that the platform keeps, with function keys and stream tokens.
Idle connections are closed before the host's proxy lets go of them. SIGTERM, by which the platform takes an
instance away, ends the process and all that runs in it. `install` replaces what the extension starts.

Invariant: after SIGTERM the process ends within `LIMIT_SECONDS`, whatever its chains do.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import uvicorn
from azurefunctions.extensions.http.fastapi import web
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

INVOCATION_ID = "x-ms-invocation-id"
# Of Python 3.13 and later, and of those before.
RUNTIMES = ("azure_functions_runtime.http_v2", "azure_functions_worker.http_v2")
# The host's proxy keeps an idle connection for a minute (PooledConnectionIdleTimeout of .NET). Who closes
# first never meets a request.
KEEP_ALIVE_SECONDS = 75
# Of a request's head: as much as at the door of a process of our own (`gateway.hosts.uvicorn_protocol`). h11's default is a
# quarter of that, and the host lets 32 KiB pass (the default of Kestrel's MaxRequestHeadersTotalSize).
MOST_HEAD_BYTES = 64 * 1024
LET_GO_SECONDS = 2.0  # to hand over jobs
GRACE_SECONDS = 1  # for answers that are on their way
CLOSE_SECONDS = 1.2  # to close connections and what chains have opened, and send what telemetry holds
CHAINS_SECONDS = 1.0  # of these, for what chains have opened; what is late is named in the log
LIMIT_SECONDS = 4.5  # of all; the platform's own limit is documented nowhere
_log = logging.getLogger("holdfast.extension")


class Process(Protocol):
    """What ends with the process."""

    async def let_go(self) -> None:
        """Hand jobs over, and send readers away to come back."""

    async def close(self) -> None:
        """Close connections and what chains have opened, send what telemetry holds; nobody asks any more."""


class Server(uvicorn.Server):
    """uvicorn; SIGTERM and SIGINT end the whole process in good order."""

    def __init__(self, config: uvicorn.Config, process: Process) -> None:
        super().__init__(config)
        self._process = process
        self._ending: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ours instead of uvicorn's, which raises the signal again when it has served."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()

        def told(number: int, frame: object) -> None:
            threading.Thread(target=_end_late, name="limit", daemon=True).start()
            loop.call_soon_threadsafe(self._end)

        kept = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)

    async def serve(self, sockets: Any = None) -> None:
        """Until a signal comes; then end the process with 0, as asked."""
        await super().serve(sockets)
        if self._ending is not None:
            await self._ending
            await _within(CLOSE_SECONDS, self._process.close)
            _log.info("this process has ended as the platform asked")
            exit_now(0)

    def _end(self) -> None:
        if self._ending is None:
            self._ending = asyncio.create_task(self._let_go(), name="end")

    async def _let_go(self) -> None:
        await _within(LET_GO_SECONDS, self._process.let_go)
        self.should_exit = True


class Seam:
    """Stands before the extension's application.

    Line feeds leave a path before it is routed: the pattern takes every path but those, and the function that
    the host has called would wait for its request for ever. The id comes from the host and keeps them.

    After the answer the runtime's note of this request is dropped. The runtime pairs a request with its
    function's call in a dictionary and takes nothing out of it, 2 kB for each request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._app({**scope, "path": scope["path"].replace("\n", "")}, receive, send)
        except asyncio.CancelledError:
            raise  # the function may still run, and then needs the note
        except BaseException:
            _forget(scope)
            raise
        _forget(scope)


def install(process: Process) -> None:
    """Have the extension start this server. To be called before the runtime has indexed the app."""

    async def serve(self: web.WebServer) -> None:
        config = uvicorn.Config(
            self.web_app,
            host=self.hostname,
            port=self.port,
            # By name: `auto` takes httptools where it is installed, and it is not deployed.
            http="h11",
            h11_max_incomplete_event_size=MOST_HEAD_BYTES,
            ws="none",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        await Server(config, process).serve()

    # FastAPI describes itself at /openapi.json, emptily: the path is ours.
    web.FastAPI = partial(web.FastAPI, openapi_url=None, middleware=[Middleware(Seam)])
    web.WebServer.serve = serve


def exit_now(code: int) -> None:
    """End the process here: the platform's worker would wait for its threads."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end_late() -> None:
    """A chain that holds the event loop, or swallows its cancellation, does not hold the process."""
    threading.Event().wait(LIMIT_SECONDS)
    _log.error("the process ends though not everything in it has")
    exit_now(1)


async def _within(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    try:
        async with asyncio.timeout(seconds):
            await work()
    except Exception as error:
        _log.error("the process ends without all that it had to do: %s", type(error).__name__)


def _forget(scope: Scope) -> None:
    """Drop the note of a request whose answer was sent."""
    for name in RUNTIMES:
        coordinator = getattr(sys.modules.get(name), "http_coordinator", None)
        notes = getattr(coordinator, "_context_references", None)
        if notes is not None:
            notes.pop(Headers(scope=scope).get(INVOCATION_ID), None)
