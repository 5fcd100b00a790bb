"""Run one process: uvicorn and workers, together or apart, or another command of the command line.

`run` needs no settings: without REDIS_URL it starts a private store, and without a configured model it starts
the packaged one. On SIGTERM or SIGINT running jobs are handed over. Readers' connections are closed cleanly,
so that the readers connect again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import uvicorn

if sys.platform != "win32":  # uvloop has no wheel for Windows
    import uvloop

from gateway.cli import commands
from gateway.cli.doctor import Finding, doctor
from gateway.cli.parser import ASKING
from gateway.cli.parser import SERVING as MODES
from gateway.cli.purge import purge
from gateway.cli.starting import cannot_listen, example, known, no_model, unusable
from gateway.cli.store import stored
from gateway.cli.usage import usage
from gateway.cli.webhooks import webhooks
from gateway.hosts.asgi import PROBES, ROUTES, Routes, app
from gateway.hosts.uvicorn_protocol import bounded
from gateway.observe import loglines, telemetry
from gateway.observe.configure import configure
from gateway.outbox.deliverer import Deliverer
from gateway.protocol.errors import stack_of
from gateway.runtime.settled import settle
from gateway.settings import Settings, misspelt, read_env_file
from gateway.streams.input_schemas import Inputs
from gateway.streams.service import Gateway
from gateway.web import kill_worker
from holdfast_gateway.extras import needs
from holdfast_gateway.new import made_as
from workers import guard
from workers.chains.checking import wrong_with
from workers.chains.drawn import drawing
from workers.chains.own import check
from workers.chains.registry import Registry
from workers.delivery.shift import Shift
from workers.development.local_model import PACKAGES, LocalModel, LocalModelMissing
from workers.development.reload import Reload
from workers.threads.states import state_of, states_of

T = TypeVar("T")
GRACE_SECONDS = 5
THREAD_SECONDS = 1.0  # time limit for a chain's threads, after all else has ended
# Longer than clients and proxies keep an idle connection for the next request. Otherwise a request could
# arrive on a connection that this server is just closing.
KEEP_ALIVE_SECONDS = 75
# The kernel reduces this to its own limit (net.core.somaxconn). docs/scaling.md says what to raise.
BACKLOG = 65_535
SERVING, WORKING = "Holdfast serves", "Holdfast works; probes at"
REHEARSAL: Routes = (("POST", "/dev/kill-worker", kill_worker.kill_worker),)
STALLED_MS = 75_000  # longer than the hub's own limit, because only the hub logs the reason
_WORDS = re.compile(r"[A-Za-z' ]+")  # the beginning of an asyncio message, without the reprs


class Server(uvicorn.Server):
    """A uvicorn server without its own signal handlers. It calls `serving` when the port is open."""

    def __init__(self, config: uvicorn.Config, serving: Callable[[], None]) -> None:
        super().__init__(config)
        self._serving = serving

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing, because this process has already set its signal handlers."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the port, then call `serving`."""
        await super().startup(sockets)
        self._serving()


def _gateway(settings: Settings, model_state: Callable[[], str]) -> Gateway:
    """Return a gateway with the chains. Raises ValueError for a setting that only the chains can check."""
    registry = Registry(settings)
    schemas, params = registry.schemas(), registry.params()
    gateway = Gateway(settings, registry.catalogue(), schemas=schemas, params=params, model_state=model_state)
    gateway.state_of = state_of
    gateway.states_of = states_of
    gateway.drawn = drawing(registry)
    return gateway


async def _look(settings: Settings, given: argparse.Namespace) -> int:
    """Run a command that needs the store. Return the exit code."""
    async with stored(settings, alone=False) as (settings, _):
        if given.command == "retry":
            return await commands.retry(_gateway(settings, lambda: "configured"), given)
        if given.command == "purge":
            return await purge(_gateway(settings, lambda: "configured"), given.owner, asks=sys.stdin.isatty())
        if given.command == "usage":
            return await usage(_gateway(settings, lambda: "configured"), as_json=given.json)
        if given.command == "webhooks":
            return await webhooks(_gateway(settings, lambda: "configured"), given)
        return await commands.look(settings, given)


async def _chains(settings: Settings) -> list[Finding]:
    """Return the result of `doctor`'s check of the chains."""
    wrong = await wrong_with(settings)
    own = settings.chains or "none of GATEWAY_CHAINS"
    return [Finding("chains", not wrong, wrong or f"can be made: {own}")]


class Host:
    """One process: its settings, its gateway, and the model that it may have started."""

    def __init__(self, mode: str, settings: Settings, model: LocalModel | None) -> None:
        self._mode = mode
        self._settings = settings
        self._model = model
        probed = int(settings.worker_port) if settings.worker_port else None
        self._port = probed if mode == "worker" else settings.port
        self.gateway = _gateway(settings, self._model_state)
        reloads = mode == "all" and settings.is_development and settings.chains
        self._reload = Reload(settings, _servable) if reloads else None

    def _model_state(self) -> str:
        return self._model.state if self._model else "configured"

    async def run(self, stop: asyncio.Event) -> None:
        """Serve and work until `stop` is set, or until one of the two ends. Then close both in order."""
        server = self._server() if self._port is not None else None
        sockets = [self._socket()] if server else []
        worker = asyncio.create_task(self._work(), name="worker") if self._mode != "web" else None
        serving = asyncio.create_task(server.serve(sockets=sockets), name="server") if server else None
        parts = self.gateway.parts
        deliverer = Deliverer(self._settings, parts.log, parts.outbox)
        delivering = asyncio.create_task(deliverer.run(), name="webhooks")
        stopped = asyncio.create_task(stop.wait(), name="stop")
        looking = asyncio.create_task(self._look_for_store(), name="look for the store")
        tasks = [task for task in (worker, serving) if task is not None]
        await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        looking.cancel()
        if worker is not None:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
        delivering.cancel()
        await asyncio.gather(delivering, return_exceptions=True)
        await self.gateway.parts.hub.close()
        if server is not None:
            server.should_exit = True
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await self.gateway.close()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _look_for_store(self) -> None:
        if said := await unusable(self._settings):
            logging.getLogger("holdfast").error(said)

    async def _work(self) -> None:
        """Run jobs until cancelled. After a reload, run them with the new chains."""
        # These imports load LangChain. This takes a second, which a process without workers does not need to
        # spend.
        from workers.delivery.sweeper import Sweeper

        settings = await _with_model(self._settings, self._model) if self._model else self._settings
        parts = self.gateway.parts
        async with asyncio.TaskGroup() as tasks:
            shift = self._shift(Registry(settings, loaded=settle))
            task = tasks.create_task(shift.run(), name="jobs")
            tasks.create_task(Sweeper(parts.log, parts.queue, backoff=settings.lease).run(), name="sweeper")
            while self._reload is not None:
                registry = await self._reload.next(settings)
                self.gateway.learn(registry.catalogue(), registry.schemas(), registry.params())
                shift.replace()
                task.cancel()
                shift = self._shift(registry)
                task = tasks.create_task(shift.run(), name="jobs")

    def _shift(self, registry: Registry) -> Shift:
        parts = self.gateway.parts
        first = self._settings.default_chain
        return Shift(parts.log, parts.queue, registry, first=first, opened=self.gateway.start_here)

    def _socket(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._settings.host else socket.AF_INET
        address = (self._settings.host, self._port)
        try:
            self._bound = socket.create_server(address, family=family, backlog=BACKLOG)
            # Cut the connection to a peer that reads nothing. An orderly close would wait for it.
            if sys.platform == "linux":
                self._bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_MS)
        except OSError as error:
            assert self._port is not None
            raise SystemExit(cannot_listen(error, self._settings.host, self._port, self._mode)) from None
        return self._bound

    def _server(self) -> Server:
        config = uvicorn.Config(
            app(self.gateway, routes_of(self._mode, self._settings)),
            http=bounded(self._settings.connections),  # type: ignore[arg-type]
            ws="none",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            backlog=BACKLOG,
        )
        return Server(config, self._say_serving)

    def _say_serving(self) -> None:
        settle()
        host, port = self._bound.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        if self._mode == "all":
            print(known(self.gateway.chains, self._settings, Path.cwd()), flush=True)
        print(f"{WORKING if self._mode == 'worker' else SERVING} {url}", flush=True)
        if self._mode == "all":
            print(example(url), flush=True)


def _servable(registry: Registry) -> None:
    """Raise ValueError if a schema of a chain is invalid."""
    Inputs(registry.schemas(), registry.params())


def routes_of(mode: str, settings: Settings) -> Routes:
    """Return the routes of a process. On a developer's machine, one of them kills a worker."""
    if mode == "worker":
        return PROBES
    own = mode == "all" and settings.is_open and settings.is_loopback
    return ROUTES + REHEARSAL if own else ROUTES


async def _with_model(settings: Settings, model: LocalModel) -> Settings:
    """Wait for the packaged model. A failure is printed once, and the jobs then fail by themselves."""
    try:
        await model.start()
    except LocalModelMissing:
        print(no_model(settings.default_chain, PACKAGES), flush=True)
        return settings
    except RuntimeError as error:
        print(f"The chain chat cannot answer: {error}", file=sys.stderr, flush=True)
        return settings
    print(f"Model: {model.model}, on this machine: a toy, asked by the chain chat", flush=True)
    return replace(settings, openai_base_url=model.base_url, openai_api_key="local", model=model.model)


async def main(mode: str, settings: Settings) -> None:
    """Start the store and the model that are missing, run the host, and stop them again."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as brought:
        brought.push_async_callback(asyncio.to_thread, configure(settings))
        try:
            check(settings)
        except ValueError as error:
            raise SystemExit(str(error)) from None
        try:
            with needs("embedded", "a store of its own, as REDIS_URL is not set,"):
                store = stored(settings, alone=mode == "all")
                settings, notice = await brought.enter_async_context(store)
        except ImportError as error:
            raise SystemExit(str(error)) from None
        if notice:
            print(notice, flush=True)
        model = None
        if mode == "all" and not settings.model_is_configured:
            model = LocalModel()
            brought.push_async_callback(model.stop)
        try:
            host = Host(mode, settings, model)
        except ValueError as error:  # a setting that only the registry can check
            raise SystemExit(str(error)) from None
        await host.run(stop)


def run_in_loop(work: Coroutine[None, None, T], *, serving: bool = False) -> T:
    """Run the work in asyncio, on uvloop if it is available. `serving`: only `work` itself ends the loop."""
    factory = uvloop.new_event_loop if sys.platform != "win32" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return _surviving(runner.get_loop(), _ending(work)) if serving else runner.run(_ending(work))


def _surviving(loop: asyncio.AbstractEventLoop, work: Coroutine[None, None, T]) -> T:
    """Run the work to its end, whatever exceptions other tasks raise.

    asyncio lets SystemExit and KeyboardInterrupt of any task end the loop. The task then stores its
    exception, and the code that awaits the task receives it, so the chain's stream fails. This function
    continues the loop after that.
    """
    guard.leave_to_the_host()
    loop.set_exception_handler(_untold)
    task = loop.create_task(work)
    while True:
        try:
            return loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as error:
            if task.done():
                raise
            logging.getLogger("holdfast").error("%s in a task; the process goes on", type(error).__name__)


def _untold(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error that no code awaits: asyncio's words without values, and where the exception came from.

    asyncio's own line has the exception's text, which may quote a prompt. Such errors come from tasks that a
    chain has left.
    """
    words, error = _WORDS.match(context.get("message") or ""), context.get("exception")
    stack = f"\n{stack_of(error)}" if isinstance(error, BaseException) else ""
    logging.getLogger("holdfast").error("%s%s", words[0].strip() if words else "asyncio", stack)


async def _ending(work: Coroutine[None, None, T]) -> T:
    """Run the work, and then end within a time limit. A chain that ignores its cancellation is abandoned."""
    try:
        return await work
    finally:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left and (await asyncio.wait(left, timeout=GRACE_SECONDS))[1]:
            _end("the process ends though a chain does not", 1)
        try:
            await asyncio.wait_for(asyncio.get_running_loop().shutdown_default_executor(), GRACE_SECONDS)
        except TimeoutError:
            _end("the process ends though a chain's thread does not", 1)


def _end(why: str, code: int) -> None:
    """End the process at once, whatever still runs."""
    logging.getLogger("holdfast").error(why)
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


def _end_without(threads: Sequence[threading.Thread]) -> None:
    """End the process at once if threads keep it alive, such as a connection that a chain left open."""
    ends = time.monotonic() + THREAD_SECONDS
    for thread in threads:
        thread.join(max(0.0, ends - time.monotonic()))
    if names := ", ".join(thread.name for thread in threads if thread.is_alive()):
        _end(f"the process ends though a chain has left threads: {names}", 0)


def execute(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    """Run the command of the command line. Return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a lone surrogate must not stop a command
    if given.command == "new":
        return made_as(given.name, given.wheels)
    try:
        read_env_file(Path.cwd() / ".env")
    except ValueError as error:
        parser.error(str(error))
    if given.command == "key":
        try:
            print(commands.make_key(given.name, as_json=given.json))
        except ValueError as error:
            parser.error(str(error))
        return 0
    if given.command == "doctor":
        logging.disable()  # each problem is printed only once, by its name
        return run_in_loop(doctor(_chains))
    settings = commands.settings_for(parser, given.command)
    for sentence in misspelt():
        print(sentence, file=sys.stderr)
    loglines.set_up(settings.log_level, settings.log_format)
    telemetry.quiet(settings)
    if given.command in MODES:
        run_in_loop(main(given.command, settings), serving=True)
        own = threading.main_thread()
        _end_without([one for one in threading.enumerate() if one is not own and not one.daemon])
        return 0
    if given.command in ASKING:
        return run_in_loop(commands.ask(settings, given))
    return run_in_loop(_look(settings, given))
