"""Host 2: Starlette. The routes are those of function_app.py; a test compares them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, compile_path

from gateway import catalogue, contract, formats, handlers, pages, probes
from gateway.answers import Handler, answered
from gateway.errors import MethodNotAllowed, RouteNotFound
from gateway.gateway import Gateway

Routes = tuple[tuple[str, str, Handler], ...]
PROBES: Routes = (
    ("GET", "/health", probes.health),
    ("GET", "/ready", probes.ready),
    ("GET", "/metrics", probes.metrics),
)
ROUTES: Routes = (
    ("POST", "/stream", handlers.create),
    ("GET", "/stream/{id}", handlers.follow),
    ("DELETE", "/stream/{id}", handlers.cancel),
    ("POST", "/stream/{id}/token", handlers.token),
    ("POST", "/api/http_trigger", handlers.http_trigger),
    *(
        ("OPTIONS", path, handlers.preflight)
        for path in ("/stream", "/stream/{id}", "/stream/{id}/token", "/api/http_trigger", "/chains")
    ),
    ("GET", "/chains", catalogue.chains),
    *((route.method, route.path, route.handler) for route in formats.ROUTES),
    *PROBES,
    ("GET", "/openapi.json", contract.openapi),
    ("GET", "/", pages.page),
    ("GET", "/web/{name}", pages.part),
    ("GET", "/web/vendor/{name}", pages.part),
)


def app(gateway: Gateway, routes: Routes = ROUTES) -> Starlette:
    """The ASGI application of one process; the gateway closes with it. A worker's has the probes alone."""

    def route(method: str, path: str, handler: Handler) -> Route:
        async def serve(request: Request) -> Response:
            return await handler(gateway, request)

        made = Route(path, serve, methods=[method], name=handler.__name__)
        made.methods = {method}  # Starlette adds HEAD to GET: a HEAD on a live stream would never end
        return made

    async def refused(request: Request, error: Exception) -> Response:
        """The router's own refusals, as problems; a 405 names the path's methods (RFC 9110, 15.5.6)."""
        if not isinstance(error, HTTPException) or error.status_code != 405:
            return await _no_route(gateway, request)
        answer = await _no_method(gateway, request)
        path = request.scope["path"]
        answer.headers["allow"] = ", ".join(m for m, route, _ in routes if compile_path(route)[0].match(path))
        return answer

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await gateway.close()

    application = Starlette(
        routes=[route(*item) for item in routes],
        exception_handlers={HTTPException: refused},
        lifespan=lifespan,
    )
    application.router.redirect_slashes = False  # a path that is not a route's is told so, not sent elsewhere
    return application


@answered("none")
async def _no_route(gateway: Gateway, request: Request) -> Response:
    raise RouteNotFound


@answered("none")
async def _no_method(gateway: Gateway, request: Request) -> Response:
    raise MethodNotAllowed
