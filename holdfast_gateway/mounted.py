"""A gateway inside another application: its routes, its lifespan, its workers."""

from __future__ import annotations

import asyncio
import importlib.util
import ipaddress
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.callers.auth import OwnerOf
from gateway.hosts import asgi
from gateway.observe.configure import configure
from gateway.outbox.deliverer import Deliverer
from gateway.producer.producer import Producer
from gateway.protocol.errors import Forbidden, HoldfastError, StoreUnavailable, stack_of
from gateway.settings import Settings
from gateway.streams.service import Gateway
from gateway.web.answers import NO_ROUTE, answered
from holdfast_gateway.streams import Streams
from workers.chains.drawn import drawing
from workers.chains.registry import Registry
from workers.threads.states import state_of, states_of

_NO_STORE = "REDIS_URL must be set: it names the store of the streams"
_PAGE = ("/", "/docs", "/web/{name}", "/web/vendor/{name}")
_NOT_STARTED = (
    "this gateway is not started: the application that it is a part of has to run its lifespan, as "
    "FastAPI(lifespan=holdfast.lifespan) does"
)
_NOBODY_ASKED = (
    "this gateway asks nobody who he is, so it serves this machine alone: give create_app an owner=, set "
    "GATEWAY_AUTH, or, for everybody to be let in, both GATEWAY_AUTH=none and GATEWAY_OPEN_TO_ALL=yes"
)
_log = logging.getLogger("holdfast.mounted")


class Holdfast:
    """The ASGI application that `create_app` returns.

    `streams` starts and reads streams without HTTP. `producer` writes streams without a chain.
    """

    def __init__(self, settings: Settings, owner: OwnerOf | None, *, worker: bool, page: bool) -> None:
        self._settings = settings
        self._worker = worker
        registry = Registry(settings)
        self._gateway = Gateway(
            settings, registry.catalogue(), schemas=registry.schemas(), params=registry.params(), owner=owner
        )
        self._gateway.state_of = state_of
        self._gateway.states_of = states_of
        self._gateway.drawn = drawing(registry)
        self.streams = Streams(self._gateway)
        self._producer = Producer(settings) if settings.redis_url else None
        routes = tuple(route for route in asgi.ROUTES if page or route[1] not in _PAGE)
        self._app = asgi.app(self._gateway, routes, self.lifespan)
        told_twice = settings.auth == "none" and settings.open_to_all == "yes"
        self._only_here = settings.is_open and not told_twice
        self._runs = False
        self._told: set[str] = set()

    @property
    def producer(self) -> Producer:
        """The producer for streams that this application's own code writes. It works while the lifespan runs.

        Raises ValueError without REDIS_URL.
        """
        if self._producer is None:
            raise ValueError(_NO_STORE)
        return self._producer

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:
        """Open the gateway and run its jobs until the block ends. Then hand jobs and readers over.

        `app` is not used: Starlette and FastAPI pass it to a lifespan. Raises ValueError without REDIS_URL,
        and RuntimeError if the lifespan already runs.
        """
        if self._runs:
            raise RuntimeError("the lifespan of this gateway runs already: an application is mounted once")
        producer = self.producer
        end_telemetry = configure(self._settings)
        parts = self._gateway.parts
        work = [asyncio.create_task(self._work(), name="holdfast")] if self._worker else []
        deliverer = Deliverer(self._settings, parts.log, parts.outbox)
        work.append(asyncio.create_task(deliverer.run(), name="webhooks"))
        self._runs = True
        try:
            async with producer:
                yield
        finally:
            self._runs = False
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            await parts.hub.close()
            await self._gateway.close()
            await asyncio.to_thread(end_telemetry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or run the lifespan events of a server if this application is not mounted."""
        refused = self._refusal(scope) if scope["type"] == "http" else None
        if refused is None:
            await self._app(scope, receive, send)
            return
        if refused.detail not in self._told:
            self._told.add(refused.detail)
            _log.error("a request was refused: %s", refused.detail)

        @answered(NO_ROUTE)
        async def refuse(gateway: Gateway, request: Request) -> Response:
            raise refused

        await (await refuse(self._gateway, Request(scope, receive)))(scope, receive, send)

    def _refusal(self, scope: Scope) -> HoldfastError | None:
        if self._only_here and not _is_here(scope.get("server")):
            return Forbidden(_NOBODY_ASKED)
        if scope["method"] == "POST" and not self._runs:
            return StoreUnavailable(_NOT_STARTED)
        return None

    async def _work(self) -> None:
        """Run jobs until cancelled.

        If an error ends this earlier, it is logged. Then other processes may run the jobs.
        """
        from workers.delivery.shift import Shift
        from workers.delivery.sweeper import Sweeper

        parts, settings = self._gateway.parts, self._settings
        try:
            shift = Shift(
                parts.log,
                parts.queue,
                Registry(settings),
                first=settings.default_chain,
                opened=self._gateway.start_here,
            )
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(shift.run(), name="jobs")
                tasks.create_task(
                    Sweeper(parts.log, parts.queue, backoff=settings.lease).run(), name="sweeper"
                )
        except Exception as error:
            _log.error("this process runs no jobs any more:\n%s", stack_of(error))


def create_app(
    settings: Settings | None = None,
    *,
    owner: OwnerOf | None = None,
    worker: bool = True,
    page: bool = True,
) -> Holdfast:
    """Create the gateway as an ASGI application.

    `settings`: None means those of the environment. `owner`: a function, also async, that gets the request
    and returns the name of the caller (1 to 128 characters). None means no caller, and the answer is 401. It
    replaces GATEWAY_AUTH. `worker`: whether this process runs jobs; if not, `holdfast worker` runs them.
    `page`: whether the page is served.

    Raises ValueError for a wrong setting, and ImportError if the extra `worker` is missing.
    """
    if worker and importlib.util.find_spec("langchain_core") is None:
        line = 'pip install "holdfast-gateway[server,worker]"'
        raise ImportError(f"to run jobs in this process takes LangChain: {line}, or create_app(worker=False)")
    given = settings or Settings.from_env()
    return Holdfast(given if owner is None else replace(given, auth="owner"), owner, worker=worker, page=page)


def _is_here(server: Any) -> bool:
    """Return whether the request came to an address of this machine alone.

    If the value is not an address (a UNIX socket, a test client), return True; then only the check of the
    Host header applies.
    """
    try:
        return ipaddress.ip_address(server[0].partition("%")[0]).is_loopback if server else True
    except ValueError:
        return True
