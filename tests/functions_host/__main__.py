"""The host as a process: `python -m tests.functions_host [--port 0] [--app-dir DIR] [--listen [--eager]]`.

With --listen it polls the queues of AzureWebJobsStorage and runs the timers; without, queue
messages and timers come only from a test's own calls. With --eager it polls the queues, but for those of
poison, after each answer to a POST that was not refused, which the platform does not: a test need not
wait then, and seldom polls otherwise.
FUNCTIONS_HOST_KEY is the function key that functions of that level ask for; without it nothing
is asked, as Core Tools do.

CORS_ALLOWED_ORIGINS, a JSON list, and CORS_SUPPORT_CREDENTIALS are the host's CORS (cors.py).

As on Azure the front, in this process, and the worker, with the runtime and the app, are two processes
(worker.py). The host prints one JSON line when it accepts requests, and ends when its stdin ends or on
SIGTERM or SIGINT, so that no test can leave it behind. Then it takes no more messages, sends the worker
SIGTERM, and kills it --grace seconds later. Its exit code is the worker's, as a shell tells it.
A worker that ends by itself takes the host with it; in Azure another would be started. An app that cannot
be indexed ends it with 1 and the runtime's own exception on stderr.

Invariant: stdout carries that one line; stderr the worker's log, and behind `[console] ` what it prints.
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
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .bindings import BindingError, Function, QueueTrigger, TimerTrigger
from .cors import HostCors
from .front import build_front, describe
from .listener import QueueListener, QueueOptions
from .messages import queue_invocation, timer_invocation
from .proxy import Proxy, open_inner_client
from .routes import Router, read_prefix
from .timers import Schedule, run_timer
from .worker import LOOPBACK, IndexingError, InvocationError, Spawned, Worker, spawn

SHUTDOWN_LIMIT_S = 1
KEEP_ALIVE_S = 130  # Kestrel's KeepAliveTimeout: connections stay open for reuse
SETTLE_LIMIT_S = 2  # for the last messages to Storage
GRACE_S = 5.0  # from SIGTERM to SIGKILL; Flex Consumption documents no value
STORAGE = "AzureWebJobsStorage"
READ_BYTES = 4096
FIRST_REFUSAL = 400  # the lowest HTTP status that is a refusal


class FrontServer(uvicorn.Server):
    """A server that leaves the signals to this process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.functions_host")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--app-dir", type=Path, default=Path())
    parser.add_argument("--listen", action="store_true")
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--grace", type=float, default=GRACE_S)
    options = parser.parse_args()
    options.app_dir = options.app_dir.resolve()
    try:
        listener = socket.create_server((LOOPBACK, options.port))
    except OSError as error:
        print(
            f"cannot listen on {LOOPBACK} port {options.port}: {os.strerror(error.errno or 0)}",
            file=sys.stderr,
        )
        return 1
    spawned = spawn(options.app_dir)
    ready = _claim_stdout()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    for chatty in ("azure", "httpx"):  # they log each request's URL
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        return asyncio.run(_serve(options, listener, spawned, ready))
    except (IndexingError, BindingError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


def _claim_stdout() -> TextIO:
    """Return the real stdout, only for the ready line; file descriptor 1 becomes stderr."""
    kept = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(kept, "w", encoding="utf-8")


async def _serve(
    options: argparse.Namespace, listener: socket.socket, spawned: Spawned, ready: TextIO
) -> int:
    """Run the host; return the exit code."""
    worker = Worker(spawned, lambda line: print(line, file=sys.stderr, flush=True))
    stop = _told_to_stop()
    try:
        await worker.start(options.app_dir, os.environ)
        return await _serving(options, listener, worker, ready, stop)
    finally:
        await worker.stop(options.grace)


async def _serving(
    options: argparse.Namespace, listener: socket.socket, worker: Worker, ready: TextIO, stop: asyncio.Event
) -> int:
    router = Router(worker.functions, read_prefix(options.app_dir))
    proxy = Proxy(worker, router, open_inner_client(), os.environ.get("FUNCTIONS_HOST_KEY", ""))
    listeners = _listeners(worker, proxy, options.app_dir) if options.listen else []
    jobs = [listener for listener in listeners if not listener.of_poison]
    routes = HostCors.of(_waking(proxy, jobs) if options.eager else proxy, os.environ)
    polling = [asyncio.create_task(each.run(), name="queue") for each in listeners]
    timers = _timers(worker, proxy) if options.listen else []
    server = FrontServer(_config(build_front(worker, routes, proxy)))
    url = f"http://{LOOPBACK}:{listener.getsockname()[1]}"
    told = {"url": url, "inner_url": worker.http_uri, "worker_pid": worker.spawned.pid}
    with ready:
        # The socket listens already: a request that arrives now waits in the backlog.
        print(json.dumps({**told, "functions": describe(worker.functions)}), file=ready)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="front")
    death = asyncio.create_task(worker.ended(), name="death")
    stopped = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait({serving, death, stopped}, return_when=asyncio.FIRST_COMPLETED)
    for ending in timers if stopped.done() else [*timers, *polling]:
        ending.cancel()
    for each in listeners:
        each.stop()
    stop.set()
    code = await worker.stop(options.grace)
    print(f"the worker exited with code {_as_a_shell(code)}", file=sys.stderr, flush=True)
    server.should_exit = True
    _, left = await asyncio.wait({serving, stopped, *timers, *polling}, timeout=SETTLE_LIMIT_S)
    for task in left:
        task.cancel()
    return _as_a_shell(code)


def _as_a_shell(code: int) -> int:
    """Return an exit code in the form that a shell reports."""
    return code if code >= 0 else 128 - code


def _listeners(worker: Worker, proxy: Proxy, app_dir: Path) -> list[QueueListener]:
    """Return the listeners that the platform starts by itself, one for each queue."""
    options, connection = QueueOptions.read(app_dir), os.environ[STORAGE]
    return [
        QueueListener(connection, trigger.queue_name, options, partial(_deliver, proxy, function, trigger))
        for function in worker.functions
        if isinstance(trigger := function.trigger, QueueTrigger)
    ]


def _timers(worker: Worker, proxy: Proxy) -> list[asyncio.Task[None]]:
    """Start the timers that the platform starts by itself."""
    return [
        asyncio.create_task(
            run_timer(Schedule.parse(trigger.schedule), partial(_ring, proxy, function, trigger))
        )
        for function in worker.functions
        if isinstance(trigger := function.trigger, TimerTrigger)
    ]


def _waking(proxy: Proxy, listeners: list[QueueListener]) -> ASGIApp:
    """Wrap the proxy: after the answer to a POST, poll the queues, because its message is in the queue
    then."""

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        async def told(message: Message) -> None:
            if (
                message["type"] == "http.response.start"
                and scope["method"] == "POST"
                and message["status"] < FIRST_REFUSAL
            ):
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


def _config(front: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        front,
        log_config=None,
        access_log=False,
        ws="none",
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_LIMIT_S,
    )


def _told_to_stop() -> asyncio.Event:
    """Return an event that is set on SIGTERM, SIGINT or the end of stdin."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    threading.Thread(target=_await_eof, args=(loop, stop.set), daemon=True).start()
    return stop


def _await_eof(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    # os.read holds no lock. A thread that blocks in sys.stdin would block the exit.
    while os.read(0, READ_BYTES):
        continue
    if not loop.is_closed():
        loop.call_soon_threadsafe(stop)


if __name__ == "__main__":
    sys.exit(main())
