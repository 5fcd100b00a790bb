"""The answers of all handlers: JSON, a problem, and one log line for each request.

Errors are RFC 9457 problems. An exception that is not ours is logged with its type and stack. It is answered
with 500, and its text is never sent. The log line of an event stream is written when its body has ended.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway import protocol
from gateway.observe import loglines, telemetry
from gateway.protocol import sse
from gateway.protocol.errors import (
    Encoded,
    HoldfastError,
    NoOwner,
    StoreUnavailable,
    TooManyReaders,
    stack_of,
)
from gateway.runtime.json_pieces import LARGE, is_long, pieces
from gateway.streams.room import Document
from gateway.streams.service import Gateway
from gateway.web.event_stream import EventStream
from gateway.web.headers import SECURE, cors
from gateway.web.where import base

JSON = "application/json"
DOCUMENT_SECONDS = 200.0  # time in seconds that a client may take to receive a long document
# The `route` in log and metrics for requests with a path, method or host that this gateway does not have.
NO_ROUTE = "none"
_METHODS = {"GET", "POST", "DELETE", "OPTIONS", "HEAD", "PUT", "PATCH"}
# EventSource accepts no status other than 200. So these two errors are not sent as problems: the event stream
# is closed in order instead. The keys are reasons of `Why`.
_SENT_AWAY = {"store": StoreUnavailable.code, "full": TooManyReaders.code}
_log = logging.getLogger("holdfast.request")

Handler = Callable[[Gateway, Request], Awaitable[Response]]
Shape = Callable[[HoldfastError], Response]


@dataclass(slots=True)
class Exchange:
    """A request and its answer, for log and metrics.

    `route` is a template, so that the metrics have few different routes.
    """

    method: str
    route: str
    probe: bool
    values: dict[str, object]
    began: float = field(default_factory=time.perf_counter)

    def answered(self, response: Response, code: str) -> None:
        """Record that the answer begins now. An event stream ends later, and calls `ended` then."""
        where = {"method": self.method, "route": self.route}
        kind = {"status": f"{response.status_code // 100}xx"}
        telemetry.request_time.record(time.perf_counter() - self.began, {**where, **kind})
        if code:
            telemetry.refusals.add(1, {"code": code})
        if isinstance(response, EventStream):
            response.on_end = functools.partial(self.ended, response.status_code)
        else:
            self._write(response.status_code, code=code)

    def ended(self, status: int, why: str, sent: int) -> None:
        """Record that an event stream's body has ended. `sent` is in bytes."""
        if why in _SENT_AWAY:
            telemetry.refusals.add(1, {"code": _SENT_AWAY[why]})
        self._write(status, failed=why == "store", bytes=sent, ended=why)

    def _write(self, status: int, *, failed: bool = False, **more: object) -> None:
        good = logging.DEBUG if self.probe else logging.INFO
        level = logging.WARNING if failed or status >= 500 else good
        milliseconds = round((time.perf_counter() - self.began) * 1000, 1)
        where = {"method": self.method, "route": self.route, "status": status, "ms": milliseconds}
        loglines.tell(_log, level, "request", **where, **self.values, **more)


def answered(
    route: str, *, probe: bool = False, shape: Shape | None = None, relative: bool = False
) -> Callable[[Handler], Handler]:
    """Turn every error into its problem document, and record each answer in log and metrics.

    `probe`: the path is requested every few seconds, so a good answer is logged at `debug` only. `shape`:
    makes the answer to an error, for formats with their own form of errors. `relative`: clients of this
    format prepend the gateway's address to `Location` themselves.
    """
    told = shape or problem

    def of(handler: Handler) -> Handler:
        @functools.wraps(handler)
        async def answer(gateway: Gateway, request: Request) -> Response:
            method = request.method if request.method in _METHODS else "other"
            code = ""
            with loglines.noting() as notes:
                exchange = Exchange(method, route, probe, notes)
                _note(request)
                try:
                    if route != NO_ROUTE:
                        _check_coding(request)
                    response = await handler(gateway, request)
                except HoldfastError as error:
                    response, code = told(error), error.code
                except Exception as error:
                    _log.error("%s failed:\n%s", handler.__name__, stack_of(error))
                    response, code = told(HoldfastError()), HoldfastError.code
                if not relative and (where := response.headers.get("location", "")).startswith("/"):
                    response.headers["location"] = base(request) + where
                response.headers.update(cors(request, gateway.settings.origins))
                if code == Encoded.code:
                    response.headers["accept-encoding"] = "identity"
                if request.method == "HEAD":
                    response = _without_body(response)
                exchange.answered(response, code)
            return response

        return answer

    return of


def problem(error: HoldfastError) -> Response:
    """Return the error as a problem document (RFC 9457)."""
    headers = {"cache-control": "no-store", **SECURE}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.status == 403 and not isinstance(error, NoOwner):
        headers["www-authenticate"] = 'Bearer error="insufficient_scope"'  # RFC 6750, 3.1
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(error.retry_after_seconds)
    return Response(
        json.dumps(error.problem()),
        error.status,
        headers=headers,
        media_type="application/problem+json",
    )


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON document.

    A long document is written and sent in pieces, as fast as the client receives it.
    """
    whole = {"cache-control": "no-store", **SECURE, **(headers or {})}
    if value.size > LARGE if isinstance(value, Document) else is_long(value):
        return Pieces(value, status, whole)
    return Response(sse.dumps(value), status, headers=whole, media_type=JSON)


def _check_coding(request: Request) -> None:
    """Raise Encoded for a request body with a content coding, e.g. a compressed body (RFC 9110, 15.5.16)."""
    codings = ",".join(request.headers.getlist("content-encoding")).split(",")
    if request.method == "POST" and any(c.strip().lower() not in ("", "identity") for c in codings):
        raise Encoded


def _without_body(response: Response) -> Response:
    """Return the answer to HEAD: what GET would be answered, without the body.

    The body of an event stream is not opened.
    """
    bare = Response(status_code=response.status_code)
    bare.raw_headers = response.raw_headers
    return bare


class Pieces(Response):
    """A long JSON document.

    It stays in memory until it was sent, or until the time limit for sending has passed.
    """

    def __init__(self, value: Any, status: int, headers: dict[str, str]) -> None:
        super().__init__(b"", status, headers=headers, media_type=JSON)
        del self.headers["content-length"]
        self._value = value

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the document. A client that is too slow is cut: it gets no end of the body."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        with suppress(TimeoutError):
            async with asyncio.timeout(DOCUMENT_SECONDS):
                for piece in pieces(self._value):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    # `send` does not wait while the socket accepts everything. So give other tasks a turn.
                    await asyncio.sleep(0)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        self._value = None


def _note(request: Request) -> None:
    """Note the stream that the path names, and the caller's trace, for the log line.

    A value that does not have the right form is left out.
    """
    stream_id = request.path_params.get("id", "")
    trace = loglines.trace_id(protocol.traceparent(request.headers.get("traceparent", "")))
    loglines.note(stream=stream_id if protocol.is_stream_id(stream_id) else "", trace=trace)
