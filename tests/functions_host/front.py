"""The host's HTTP surface: the app's routes, and a way in for queue messages and timers.

    POST /__host/queue/{queue_name}[?dequeue_count=N]   the raw message as body
    POST /__host/timer/{function_name}
    everything else                                     the app's HTTP functions

Invariant: a control call answers when the function has ended, 200 {"ok": true} or
500 {"ok": false, "error_type": …}; retries and the poison queue are the caller's.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from types import SimpleNamespace

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from .bindings import DurableTrigger, Function, HttpTrigger, QueueTrigger, TimerTrigger
from .messages import queue_invocation, timer_invocation
from .proxy import Proxy
from .worker import InvocationError, Worker

MESSAGE_LIMIT_BYTES = 64 * 1024

Handler = Callable[[Request], Awaitable[JSONResponse]]


def build_front(worker: Worker, routes: ASGIApp, proxy: Proxy) -> Starlette:
    """Return the ASGI app; `routes` answers the requests to the app. It closes the proxy at its shutdown."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await proxy.close()

    front = Starlette(
        routes=[
            Route("/__host/queue/{queue_name}", _queue_handler(worker, proxy), methods=["POST"]),
            Route("/__host/timer/{function_name}", _timer_handler(worker, proxy), methods=["POST"]),
        ],
        lifespan=lifespan,
    )
    front.router.default = routes  # not as a route, whose pattern would not match a line feed
    return front


def _queue_handler(worker: Worker, proxy: Proxy) -> Handler:
    async def handle(request: Request) -> JSONResponse:
        queue_name = request.path_params["queue_name"]
        found = _find_queue(worker.functions, queue_name)
        if found is None:
            return _refuse(404, "UnknownQueue")
        body = await request.body()
        if len(body) > MESSAGE_LIMIT_BYTES:
            return _refuse(413, "MessageTooLarge")
        try:
            text = body.decode("utf-8")
            dequeue_count = int(request.query_params.get("dequeue_count", "1"))
        except ValueError:
            return _refuse(400, "InvalidMessage")
        return await _run(proxy, queue_invocation(*found, text, dequeue_count))

    return handle


def _timer_handler(worker: Worker, proxy: Proxy) -> Handler:
    async def handle(request: Request) -> JSONResponse:
        name = request.path_params["function_name"]
        for function in worker.functions:
            if function.name == name and isinstance(function.trigger, TimerTrigger):
                return await _run(proxy, timer_invocation(function, function.trigger))
        return _refuse(404, "UnknownTimer")

    return handle


async def _run(proxy: Proxy, invocation: SimpleNamespace) -> JSONResponse:
    try:
        await proxy.start(invocation)
    except InvocationError as error:
        return _refuse(500, error.error_type)
    return JSONResponse({"ok": True})


def _refuse(status: int, error_type: str) -> JSONResponse:
    return JSONResponse({"ok": False, "error_type": error_type}, status)


def _find_queue(functions: Iterable[Function], queue_name: str) -> tuple[Function, QueueTrigger] | None:
    for function in functions:
        trigger = function.trigger
        if isinstance(trigger, QueueTrigger) and trigger.queue_name == queue_name:
            return function, trigger
    return None


def describe(functions: Iterable[Function]) -> list[dict[str, object]]:
    """Return the functions for the ready line; only HTTP functions have a route."""
    return [_describe(function) for function in functions]


def _describe(function: Function) -> dict[str, object]:
    match function.trigger:
        case HttpTrigger(_, route, methods, auth_level):
            http = {"route": route, "methods": list(methods), "authLevel": auth_level}
            return {"name": function.name, "type": "httpTrigger", **http}
        case QueueTrigger(_, queue_name):
            return {"name": function.name, "type": "queueTrigger", "queueName": queue_name}
        case TimerTrigger(_, schedule):
            return {"name": function.name, "type": "timerTrigger", "schedule": schedule}
        case DurableTrigger(_, kind):
            return {"name": function.name, "type": kind}
