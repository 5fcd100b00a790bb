"""The host as a process: `python -m tests.functions_host [--port 0] [--app-dir DIR] [--listen [--eager]]`.

With --listen it polls the queues of AzureWebJobsStorage and runs the timers; without, queue
messages and timers come only from a test's own calls. With --eager it polls after each answer to
a POST too, which the platform does not: a test need not wait then, and seldom polls otherwise.
FUNCTIONS_HOST_KEY is the function key that functions of that level ask for; without it nothing
is asked, as Core Tools do.

It prints one JSON line when it accepts requests, and ends when its stdin ends or on
SIGTERM, so that no test can leave it behind. An app that cannot be indexed ends it with 1
and the runtime's own exception on stderr.

Invariant: stdout carries that one line; whatever the packages print goes to stderr.
"""

import argparse
import asyncio
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TextIO

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .bindings import BindingError, Function, QueueTrigger, TimerTrigger
from .front import build_front, describe
from .listener import QueueListener, QueueOptions
from .messages import queue_invocation, timer_invocation
from .proxy import Proxy, open_inner_client
from .routes import Router, read_prefix
from .timers import Schedule, run_timer
from .worker import LOOPBACK, IndexingError, InvocationError, Worker, start_worker

SHUTDOWN_LIMIT_S = 1
STORAGE = "AzureWebJobsStorage"
READ_BYTES = 4096


class FrontServer(uvicorn.Server):
    """Leaves the signals to this process: two servers in it would fight over them."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.functions_host")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--app-dir", type=Path, default=Path())
    parser.add_argument("--listen", action="store_true")
    parser.add_argument("--eager", action="store_true")
    options = parser.parse_args()
    ready = _claim_stdout()
    # As the platform's worker does: whatever is logged from `info` up is passed on to the host.
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(_serve(options, ready))
    except (IndexingError, BindingError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _claim_stdout() -> TextIO:
    """The real stdout, for the ready line alone; file descriptor 1 becomes stderr."""
    kept = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(kept, "w", encoding="utf-8")


async def _serve(options: argparse.Namespace, ready: TextIO) -> None:
    app_dir = options.app_dir.resolve()
    worker = await start_worker(app_dir)
    router = Router(worker.functions, read_prefix(app_dir))
    proxy = Proxy(worker, router, open_inner_client(), os.environ.get("FUNCTIONS_HOST_KEY", ""))
    listeners = _listeners(worker, proxy, app_dir) if options.listen else []
    front = build_front(worker, _waking(proxy, listeners) if options.eager else proxy, proxy)
    listening = [asyncio.create_task(listener.run(), name="queue") for listener in listeners]
    listening += _timers(worker, proxy) if options.listen else []
    listener = socket.create_server((LOOPBACK, options.port))
    server = FrontServer(_config(front))
    _stop_with(server)
    url = f"http://{LOOPBACK}:{listener.getsockname()[1]}"
    with ready:
        # The socket listens already: a request that comes now waits in its backlog.
        print(json.dumps({"url": url, "functions": describe(worker.functions)}), file=ready)
    await server.serve(sockets=[listener])
    for task in listening:
        task.cancel()
    await asyncio.gather(*listening, return_exceptions=True)


def _listeners(worker: Worker, proxy: Proxy, app_dir: Path) -> list[QueueListener]:
    """What the platform starts by itself for each queue."""
    options, connection = QueueOptions.read(app_dir), os.environ[STORAGE]
    return [
        QueueListener(connection, trigger.queue_name, options, partial(_deliver, proxy, function, trigger))
        for function in worker.functions
        if isinstance(trigger := function.trigger, QueueTrigger)
    ]


def _timers(worker: Worker, proxy: Proxy) -> list[asyncio.Task[None]]:
    """And for each timer."""
    return [
        asyncio.create_task(
            run_timer(Schedule.parse(trigger.schedule), partial(_ring, proxy, function, trigger))
        )
        for function in worker.functions
        if isinstance(trigger := function.trigger, TimerTrigger)
    ]


def _waking(proxy: Proxy, listeners: list[QueueListener]) -> ASGIApp:
    """The proxy; when a POST is answered, what it has queued is in the queue."""

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        async def told(message: Message) -> None:
            if message["type"] == "http.response.start" and scope["method"] == "POST":
                for listener in listeners:
                    listener.wake()
            await send(message)

        await proxy(scope, receive, told)

    return front


async def _deliver(
    proxy: Proxy, function: Function, trigger: QueueTrigger, text: str, dequeue_count: int
) -> bool:
    try:
        await proxy.start(queue_invocation(function, trigger, text, dequeue_count))
    except InvocationError:
        return False  # the proxy has logged it
    return True


async def _ring(proxy: Proxy, function: Function, trigger: TimerTrigger) -> None:
    try:
        await proxy.start(timer_invocation(function, trigger))
    except InvocationError:
        return  # the proxy has logged it


def _config(front: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        front,
        log_config=None,
        access_log=False,
        ws="none",
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=SHUTDOWN_LIMIT_S,
    )


def _stop_with(server: uvicorn.Server) -> None:
    """Ends the server on SIGTERM, SIGINT or the end of stdin.

    The handlers come after the runtime's own uvicorn has set its, and replace them.
    """
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    threading.Thread(target=_await_eof, args=(loop, stop), daemon=True).start()


def _await_eof(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    # os.read holds no lock: a thread that blocks in sys.stdin would spoil the exit.
    while os.read(0, READ_BYTES):
        continue
    if not loop.is_closed():
        loop.call_soon_threadsafe(stop)


if __name__ == "__main__":
    sys.exit(main())
