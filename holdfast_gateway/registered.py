"""The gateway's functions in another Azure Functions app: routes, queue triggers and a timer.

Requests that start or end work need a function key, unless GATEWAY_AUTH or the app's `owner` identifies
callers. To read a stream needs no function key: if callers are not identified, it needs only the stream's id,
which nobody can guess.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import azure.functions as func
from azurefunctions.extensions.http.fastapi import Request, Response

from gateway import formats as foreign_formats
from gateway.azure.function_timeout import limited
from gateway.callers.auth import OwnerOf
from gateway.hosts import asgi, functions_extension
from gateway.observe import telemetry
from gateway.observe.configure import configure
from gateway.runtime.settled import settle
from gateway.settings import Settings
from gateway.streams.service import Gateway
from gateway.web import openapi_document, pages, probes, producers, streams
from gateway.web.answers import Handler
from gateway.web.where import below
from holdfast_gateway.classic import request_of
from holdfast_gateway.host_file import HostFile
from holdfast_gateway.streams import Streams
from workers.chains.drawn import drawing
from workers.chains.registry import Registry
from workers.delivery.functions import Trigger
from workers.threads.states import state_of, states_of

NAMED = "holdfast_"  # prefix of each function's name
STORAGE = "AzureWebJobsStorage"
RUN_BUDGET_SECONDS = 600.0  # after this time a run starts no further stage here
# Handlers without a function key: each checks the caller itself, returns only states, or needs the id of a
# stream.
OPEN = (
    streams.follow,
    streams.preflight,
    probes.health,
    probes.ready,
    probes.metrics,
    openapi_document.openapi,
    producers.produce,  # this handler checks the write token
)
PAGE = (pages.page, pages.docs, pages.part)
ANYBODY = func.AuthLevel.ANONYMOUS


@dataclass(frozen=True, slots=True)
class Function:
    """One HTTP function: a handler at a path, with all methods that it accepts there."""

    name: str
    path: str
    methods: tuple[str, ...]
    handler: Handler
    open: bool


class Process:
    """The parts to stop when the platform stops the instance."""

    def __init__(self, gateway: Gateway, trigger: Trigger, registry: Registry, end_telemetry: Any) -> None:
        self._gateway = gateway
        self._trigger = trigger
        self._registry = registry
        self._end_telemetry = end_telemetry

    async def let_go(self) -> None:
        """Hand the jobs over to other processes.

        Then end the readers' connections, so that they reconnect.
        """
        try:
            await self._trigger.hand_over()
        finally:
            await self._gateway.end_readers()

    async def close(self) -> None:
        """Close the connections and the resources of chains, and send the remaining telemetry."""
        await asyncio.gather(
            self._gateway.close(),
            self._registry.close(functions_extension.CHAINS_SECONDS),
            asyncio.to_thread(self._end_telemetry),
        )


def register(
    app: func.FunctionApp,
    *,
    prefix: str = "",
    auth_level: func.AuthLevel | str | None = None,
    page: bool = True,
    formats: bool = True,
    owner: OwnerOf | None = None,
) -> Streams:
    """Add the gateway to an app, after the app's own functions.

    The names of its functions begin with `holdfast_`.

    `prefix`: a path below the app's `routePrefix`. `auth_level`: for requests that start, end or list
    streams. None means a function key, unless GATEWAY_AUTH or `owner` identifies callers. `page`, `formats`:
    whether the page, and the foreign formats, are served. `owner`: gets the request and returns the caller's
    name, as in `asgi.create_app`.

    Raises ValueError for a wrong setting or `host.json`. Also raises ValueError, with the names, for
    functions of the app that the runtime would not load together with the gateway's functions.
    """
    path = _path(prefix)
    caller = inspect.currentframe()
    assert caller is not None
    assert caller.f_back is not None
    file = caller.f_back.f_globals.get("__file__")
    host = HostFile.found([*([Path(file).absolute().parent] if file else []), Path.cwd()])
    settings = _settings(host, owner)
    telemetry.quiet(settings)
    registry = Registry(settings, loaded=settle)
    end_telemetry = configure(settings)
    gateway = Gateway(
        settings, registry.catalogue(), schemas=registry.schemas(), params=registry.params(), owner=owner
    )
    gateway.state_of = state_of
    gateway.states_of = states_of
    gateway.drawn = drawing(registry)
    trigger = Trigger(gateway, registry)
    gateway.direct_start = trigger.start
    functions_extension.install(Process(gateway, trigger, registry, end_telemetry))
    level = func.AuthLevel.FUNCTION if settings.is_open else ANYBODY
    if auth_level is not None:
        level = func.AuthLevel[auth_level.upper()] if isinstance(auth_level, str) else auth_level
    _serve(app, gateway, host, path, level, page=page, formats=formats)
    _work(app, trigger, settings)
    _check(app)
    return Streams(gateway)


def _settings(host: HostFile, owner: OwnerOf | None) -> Settings:
    # A run releases its stream at the latest one minute before the host's functionTimeout.
    settings = limited(Settings.from_env(run_budget=RUN_BUDGET_SECONDS, queue="azure-storage"), host.folder)
    if settings.queue != "azure-storage":
        raise ValueError(
            "GATEWAY_QUEUE must be azure-storage on Azure Functions: its queue trigger reads no other"
        )
    if settings.metrics and not settings.metrics_key:
        raise ValueError(
            "GATEWAY_METRICS needs GATEWAY_METRICS_KEY on Azure Functions: everybody reaches /metrics"
        )
    return settings if owner is None else replace(settings, auth="owner")


def _path(prefix: str) -> str:
    path = prefix.strip("/")
    if path and not re.fullmatch(r"[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*", path):
        raise ValueError("the prefix must be a path of letters, digits, dots, dashes, underscores and tildes")
    return path


def functions(*, page: bool, formats: bool) -> Iterator[Function]:
    """Yield the HTTP functions, made from the routes of the ASGI application."""
    foreign = {(route.path, route.handler): route for route in foreign_formats.ROUTES}
    methods: dict[tuple[str, Handler], list[str]] = {}
    for method, path, handler in asgi.ROUTES:
        methods.setdefault((path, handler), []).append(method)
    for (path, handler), taken in methods.items():
        route = foreign.get((path, handler))
        if (route and not formats) or (handler in PAGE and not page):
            continue
        is_open = handler in OPEN + PAGE or (route is not None and route.open)
        yield Function(_name(path, handler), path, tuple(taken), handler, is_open)


def _name(path: str, handler: Handler) -> str:
    """Return a unique function name, as the platform requires. One handler may serve several paths."""
    several = handler in (streams.preflight, pages.part)
    return "_".join([handler.__name__, *(re.findall(r"\w+", path) if several else [])])


def _serve(
    app: func.FunctionApp,
    gateway: Gateway,
    host: HostFile,
    prefix: str,
    level: func.AuthLevel,
    *,
    page: bool,
    formats: bool,
) -> None:
    base = "/".join(filter(None, (host.prefix, prefix)))

    def add(one: Function) -> None:
        handler = one.handler
        if handler is openapi_document.openapi and level != ANYBODY:
            handler = openapi_document.openapi_with_function_key

        async def answer(req: Request) -> Response:
            below(req.scope, base)
            return await handler(gateway, req)

        answer.__name__ = NAMED + one.name
        route = f"{prefix}/{one.path.removeprefix('/')}".strip("/") or "/"
        app.route(route, methods=list(one.methods), auth_level=ANYBODY if one.open else level)(answer)

    for one in functions(page=page, formats=formats):
        add(one)


def _work(app: func.FunctionApp, trigger: Trigger, settings: Settings) -> None:
    @app.queue_trigger(arg_name="message", queue_name=settings.queue_name, connection=STORAGE)
    async def holdfast_work(message: func.QueueMessage) -> None:
        """Run a job."""
        await trigger.run(message.get_body())

    @app.queue_trigger(arg_name="message", queue_name=f"{settings.queue_name}-poison", connection=STORAGE)
    async def holdfast_give_up(message: func.QueueMessage) -> None:
        """Handle a job whose message was delivered without success too often."""
        await trigger.give_up(message.get_body())

    @app.timer_trigger(arg_name="timer", schedule=settings.sweep_schedule, use_monitor=False)
    async def holdfast_sweep(timer: func.TimerRequest) -> None:
        """Deliver the jobs again that no worker has claimed."""
        await trigger.sweep()


def _check(app: func.FunctionApp) -> None:
    """Raise ValueError with the names of the functions that the runtime would not load together with ours.

    `get_functions` remembers the names that it returned, and refuses a name that it sees again. The runtime
    calls it after this function. So the remembered names are removed here.
    """
    classic = sorted(
        str(one.get_function_name())
        for one in app.get_functions()
        if one.is_http_function() and request_of(typing.get_type_hints(one.get_user_function()))
    )
    app.functions_bindings = None
    if classic:
        raise ValueError(
            f"{', '.join(classic)}: beside the gateway's functions the runtime loads none that takes "
            "func.HttpRequest, and then none at all. Put @classic (from holdfast_gateway.functions) directly "
            "above its def"
        )
