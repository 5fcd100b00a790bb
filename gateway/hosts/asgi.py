"""Host 2: Starlette. Its routes are the one table of both hosts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import formats
from gateway.formats.langgraph import state
from gateway.protocol.errors import HoldfastError, MethodNotAllowed, RouteNotFound
from gateway.streams.service import Gateway
from gateway.web import (
    catalogue,
    hostnames,
    joint_streams,
    openapi_document,
    pages,
    probes,
    producers,
    stream_list,
    streams,
    thread_list,
    usage,
    webhook_secret,
)
from gateway.web.answers import NO_ROUTE, Handler, Shape, answered, problem
from gateway.web.where import route_path

Routes = tuple[tuple[str, str, Handler], ...]


def _with_heads(routes: Routes) -> Routes:
    """HEAD where GET is, by the same handler; it is answered without a body."""
    return tuple(
        (method, path, handler)
        for given, path, handler in routes
        for method in ((given, "HEAD") if given == "GET" else (given,))
    )


PROBES: Routes = _with_heads(
    (
        ("GET", "/health", probes.health),
        ("GET", "/ready", probes.ready),
        ("GET", "/metrics", probes.metrics),
    )
)
ROUTES: Routes = (
    ("POST", "/stream", streams.create),
    *_with_heads((("GET", "/stream/{id}", streams.follow),)),
    ("DELETE", "/stream/{id}", streams.cancel),
    ("POST", "/stream/{id}/retry", streams.retry),
    ("POST", "/stream/{id}/resume", streams.resume),
    ("POST", "/stream/{id}/token", streams.token),
    ("DELETE", "/stream/{id}/token", streams.token_end),
    ("POST", "/stream/{id}/events", producers.produce),
    ("POST", "/api/http_trigger", streams.http_trigger),
    *_with_heads(
        (
            ("GET", "/streams", stream_list.streams),
            ("GET", "/streams/events", joint_streams.follow_many),
            ("GET", "/usage", usage.usage),
            ("GET", "/threads", thread_list.threads),
            ("GET", "/webhooks/secret", webhook_secret.webhook_secret),
            ("GET", "/threads/{thread}/state", state.thread_state),
        )
    ),
    ("POST", "/streams/events", joint_streams.follow_many_by_body),
    ("DELETE", "/threads/{thread}", state.thread_delete),
    *(
        ("OPTIONS", path, streams.preflight)
        for path in (
            "/stream",
            "/stream/{id}",
            "/stream/{id}/retry",
            "/stream/{id}/resume",
            "/stream/{id}/token",
            "/stream/{id}/events",
            "/streams",
            "/streams/events",
            "/api/http_trigger",
            "/usage",
            "/chains",
            "/threads/{thread}/state",
        )
    ),
    *((method, route.path, route.handler) for route in formats.ROUTES for method in route.methods),
    *PROBES,
    *_with_heads(
        (
            ("GET", "/chains", catalogue.chains),
            ("GET", "/openapi.json", openapi_document.openapi),
            ("GET", "/", pages.page),
            ("GET", "/web/{name}", pages.part),
            ("GET", "/web/vendor/{name}", pages.part),
        )
    ),
)


def app(
    gateway: Gateway,
    routes: Routes = ROUTES,
    lifespan: Callable[[Any], AbstractAsyncContextManager[None]] | None = None,
) -> Starlette:
    """The ASGI application of one process. A worker's has the probes alone.

    Without a `lifespan` of the caller's the gateway closes with it.
    """

    def route(method: str, path: str, handler: Handler) -> Route:
        async def serve(request: Request) -> Response:
            return await handler(gateway, request)

        made = Route(path, serve, methods=[method], name=handler.__name__)
        made.methods = {method}  # Starlette adds HEAD to GET, also where a path has a HEAD of its own
        return made

    async def refused(request: Request, error: Exception) -> Response:
        """The router's own refusals, in the shape of the path's format.

        A 405 names the path's methods (RFC 9110, 15.5.6).
        """
        path = route_path(request.scope)
        if not isinstance(error, HTTPException) or error.status_code != 405:
            return await _refuse(gateway, request, RouteNotFound(), formats.shape_at(path))
        answer = await _refuse(gateway, request, MethodNotAllowed(), formats.shape_at(path))
        answer.headers["allow"] = ", ".join(m for m, route, _ in routes if compile_path(route)[0].match(path))
        return answer

    @asynccontextmanager
    async def closing(_: Starlette) -> AsyncIterator[None]:
        yield
        await gateway.close()

    application = Starlette(
        routes=[route(*item) for item in routes],
        exception_handlers={HTTPException: refused},
        lifespan=lifespan or closing,
    )
    application.router.redirect_slashes = False  # a path that is not a route's is told so, not sent elsewhere
    application.add_middleware(OwnName, gateway=gateway)
    return application


class OwnName:
    """Lets requests pass whose Host is right (`gateway.web.hostnames`), and answers the others."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway
        self._names = hostnames.names_of(gateway.settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand it on, or answer it."""
        if scope["type"] == "http":
            try:
                hostnames.check(Headers(scope=scope), scope["http_version"], self._names)
            except HoldfastError as error:
                response = await _refuse(self._gateway, Request(scope, receive), error)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _refuse(
    gateway: Gateway, request: Request, error: HoldfastError, shape: Shape = problem
) -> Response:
    """This error, which no route's handler has raised."""

    @answered(NO_ROUTE, shape=shape)
    async def refuse(gateway: Gateway, request: Request) -> Response:
        raise error

    return await refuse(gateway, request)
