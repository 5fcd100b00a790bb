"""`@classic`: use a function with a `func.HttpRequest` together with the FastAPI extension.

The Azure Functions runtime decides once for the whole app how HTTP functions get their requests. It loads no
app that has both kinds. So `@classic` wraps the function in one of the extension's kind. The code of the
function is called unchanged.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

import azure.functions as func
from azurefunctions.extensions.http.fastapi import Request, Response

REQUEST = "req"  # the parameter's name if no type hint says func.HttpRequest


def classic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make this HTTP function loadable. Write it directly above the `def`, below the decorators of the app.

    A function that is not async runs in a thread, as the runtime would run it.
    """
    hints = typing.get_type_hints(function)
    name = request_of(hints) or REQUEST

    @functools.wraps(function)
    async def answer(**given: Any) -> Any:
        given[name] = await _asked(given[name])
        if inspect.iscoroutinefunction(function):
            return _told(await function(**given))
        return _told(await asyncio.to_thread(function, **given))

    # The runtime reads these annotations, and the signature, which `wraps` copies.
    answer.__annotations__ = {**hints, name: Request, "return": Response}
    return answer


def request_of(hints: typing.Mapping[str, Any]) -> str:
    """Return the name of the parameter that is a `func.HttpRequest`, or the empty string."""
    for name, kind in hints.items():
        if name != "return" and isinstance(kind, type) and issubclass(kind, func.HttpRequest):
            return name
    return ""


async def _asked(request: Any) -> func.HttpRequest:
    return func.HttpRequest(
        request.method,
        str(request.url),
        headers=dict(request.headers),
        params=dict(request.query_params),
        route_params=dict(request.path_params),
        body=await request.body(),
    )


def _told(answer: Any) -> Any:
    """Convert the return value of the function to a response, by the same rules as the runtime."""
    if answer is None:
        return Response(status_code=204)
    if not isinstance(answer, func.HttpResponse):
        return Response(answer, media_type="text/plain")
    headers = dict(answer.headers)
    if "content-type" not in {name.lower() for name in headers}:
        headers["content-type"] = f"{answer.mimetype}; charset={answer.charset}"
    return Response(answer.get_body(), answer.status_code, headers=headers)
