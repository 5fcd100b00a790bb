"""Configure the HTTP server of the extension azurefunctions-extensions-http-fastapi for this product.

The extension starts uvicorn with its defaults, in the main thread of the platform's worker process. With
these defaults:

- The access log prints each query to a console that the platform stores, with function keys and stream
  tokens.
- Idle connections are closed earlier than the host's proxy closes them.
- SIGTERM, with which the platform stops an instance, ends the process and everything that runs in it.

`install` replaces the server that the extension starts.

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
# The runtime's module in Python 3.13 and later, and its module in earlier versions.
RUNTIMES = ("azure_functions_runtime.http_v2", "azure_functions_worker.http_v2")
# The host's proxy keeps an idle connection for a minute (PooledConnectionIdleTimeout of .NET). This server
# must keep it longer. Otherwise a new request could arrive on a connection that this server is just closing.
KEEP_ALIVE_SECONDS = 75
# The largest head of a request. It is the same as in this product's own processes (uvicorn_protocol). h11's
# default is a quarter of that, and the host accepts 32 KiB (the default of Kestrel's
# MaxRequestHeadersTotalSize).
MOST_HEAD_BYTES = 64 * 1024
LET_GO_SECONDS = 2.0  # time limit to hand over jobs
GRACE_SECONDS = 1  # time limit for unfinished answers
# Time limit to close connections and the chains' resources, and to send the remaining telemetry.
CLOSE_SECONDS = 1.2
CHAINS_SECONDS = 1.0  # the part of CLOSE_SECONDS for the chains' resources; late ones are logged
LIMIT_SECONDS = 4.5  # time limit for all of this; the platform documents no limit
_log = logging.getLogger("holdfast.extension")


class Process(Protocol):
    """The parts that must be closed before the process ends."""

    async def let_go(self) -> None:
        """Hand over jobs, and end the readers' connections so that the readers connect again."""

    async def close(self) -> None:
        """Close connections and the chains' resources, and send the remaining telemetry.

        No request arrives any more.
        """


class Server(uvicorn.Server):
    """A uvicorn server. SIGTERM and SIGINT end the whole process in an orderly way."""

    def __init__(self, config: uvicorn.Config, process: Process) -> None:
        super().__init__(config)
        self._process = process
        self._ending: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Use this product's signal handlers. Those of uvicorn raise the signal again after serving."""
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
        """Serve until a signal comes. Then end the process with exit code 0, as the platform asked."""
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
    """A middleware before the extension's application.

    It removes line feeds from a path before it is routed. The extension's route accepts every path without
    line feeds. With one, the function that the host has called would wait for its request forever. The path's
    id comes from the host and keeps its line feeds.

    After the answer, it deletes the runtime's entry for this request. The runtime stores the request in a
    dictionary to pair it with the call of its function, and never removes it. This would leak 2 kB for each
    request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._app({**scope, "path": scope["path"].replace("\n", "")}, receive, send)
        except asyncio.CancelledError:
            raise  # the function may still run, and needs the entry then
        except BaseException:
            _forget(scope)
            raise
        _forget(scope)


def install(process: Process) -> None:
    """Make the extension start this server. Call it before the runtime has indexed the app."""

    async def serve(self: web.WebServer) -> None:
        config = uvicorn.Config(
            self.web_app,
            host=self.hostname,
            port=self.port,
            # Named explicitly: `auto` would use httptools where it is installed, and it is not deployed.
            http="h11",
            h11_max_incomplete_event_size=MOST_HEAD_BYTES,
            ws="none",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        await Server(config, process).serve()

    # FastAPI serves an empty description of itself at /openapi.json, but this product uses that path.
    web.FastAPI = partial(web.FastAPI, openapi_url=None, middleware=[Middleware(Seam)])
    web.WebServer.serve = serve


def exit_now(code: int) -> None:
    """End the process at once. A normal exit of the platform's worker would wait for its threads."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end_late() -> None:
    """End the process after LIMIT_SECONDS, even if a chain blocks the loop or ignores its cancellation."""
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
    """Delete the runtime's entry for a request whose answer was sent."""
    for name in RUNTIMES:
        coordinator = getattr(sys.modules.get(name), "http_coordinator", None)
        notes = getattr(coordinator, "_context_references", None)
        if notes is not None:
            notes.pop(Headers(scope=scope).get(INVOCATION_ID), None)
