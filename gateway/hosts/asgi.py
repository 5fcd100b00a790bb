"""Serve with Starlette (the second host). Both hosts use the one table of routes in this module."""

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
    """Add a HEAD route to each GET route, with the same handler. The answer to HEAD has no body."""
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
            ("GET", "/docs", pages.docs),
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
    """Return the ASGI application of one process. The application of a worker has only the probes.

    If the caller gives no `lifespan`, the application closes the gateway when it ends.
    """

    def route(method: str, path: str, handler: Handler) -> Route:
        async def serve(request: Request) -> Response:
            return await handler(gateway, request)

        made = Route(path, serve, methods=[method], name=handler.__name__)
        made.methods = {method}  # Starlette adds HEAD to GET, even if the path has its own HEAD route
        return made

    async def refused(request: Request, error: Exception) -> Response:
        """Answer the router's own errors, in the shape of the path's format.

        A 405 names the methods of the path (RFC 9110, 15.5.6).
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
    application.router.redirect_slashes = False  # an unknown path gets an error, not a redirect
    application.add_middleware(OwnName, gateway=gateway)
    return application


class OwnName:
    """Passes on requests with a correct Host (`gateway.web.hostnames`), and refuses all others."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway
        self._names = hostnames.names_of(gateway.settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
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
    """Answer with this error. No handler of a route has raised it."""

    @answered(NO_ROUTE, shape=shape)
    async def refuse(gateway: Gateway, request: Request) -> Response:
        raise error

    return await refuse(gateway, request)
