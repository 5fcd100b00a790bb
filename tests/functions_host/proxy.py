"""Handle HTTP requests: start the invocation and, at the same time, forward the request.

The runtime pairs the two by the header x-ms-invocation-id: the handler's response object runs inside the
forwarded request, so its body and its disconnect belong to that request.

Invariant: each chunk is passed on when it arrives, and when the client disconnects, the inner request is
closed at once. The invocation itself is never cancelled, as in Azure.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from types import SimpleNamespace
from uuid import uuid4

import httpx
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from .messages import http_invocation
from .routes import AmbiguousRouteError, Match, Router
from .worker import Worker

LOG = logging.getLogger(__name__)
INVOCATION_HEADER = b"x-ms-invocation-id"
ACTIVITY_LIMIT_S = 240  # DefaultHttpProxyService.cs: ForwarderRequestConfig.ActivityTimeout
CONNECT_RETRIES = 10  # RetryProxyHandler.cs
FAILURE_GRACE_S = 5
MAX_CONNECTIONS = 4096
KEEPALIVE_S = 60  # SocketsHttpHandler.PooledConnectionIdleTimeout of .NET
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer"
    b" transfer-encoding upgrade".split()
)


def open_inner_client() -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEPALIVE_S)
    return httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(retries=CONNECT_RETRIES, limits=limits),
        timeout=ACTIVITY_LIMIT_S,
    )


class Proxy:
    """The ASGI app for every path that does not belong to the test host itself."""

    def __init__(self, worker: Worker, router: Router, client: httpx.AsyncClient, key: str = "") -> None:
        """If there is a key, refuse functions of the level `function` and above to requests without the
        key."""
        self._worker = worker
        self._router = router
        self._client = client
        self._key = key
        self._invocations: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            match = self._router.match(request.method, scope["raw_path"].decode("ascii"))
        except AmbiguousRouteError as error:
            text = f"more than one function matches: {error}"
            return await PlainTextResponse(text, 500)(scope, receive, send)
        if match is None:
            return await PlainTextResponse("", 404)(scope, receive, send)
        if self._key and match.trigger.auth_level != "anonymous" and _key_of(request) != self._key:
            return await PlainTextResponse("", 401)(scope, receive, send)
        return await Exchange(request, send, self._client).run(self, match)

    async def close(self) -> None:
        """Close the connections to the runtime's server."""
        await self._client.aclose()

    @property
    def inner_url(self) -> str:
        assert self._worker.http_uri is not None, "a route exists, so the runtime serves HTTP"
        return self._worker.http_uri

    def start(self, invocation: SimpleNamespace) -> asyncio.Task[None]:
        """Start the invocation and return its task, which is kept until it ends, even if its caller stops
        waiting."""
        task = asyncio.create_task(self._worker.invoke(invocation))
        self._invocations.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._invocations.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            LOG.error("invocation failed: %s", error)


class Exchange:
    """One request of a client, one answer."""

    def __init__(self, request: Request, send: Send, client: httpx.AsyncClient) -> None:
        self._request = request
        self._send = send
        self._client = client
        self._invocation_id = str(uuid4())
        self._body_read = asyncio.Event()
        self._started = False

    async def run(self, proxy: Proxy, match: Match) -> None:
        invocation = proxy.start(http_invocation(self._invocation_id, match, self._request))
        answer = asyncio.create_task(self._forward(proxy.inner_url))
        others = [
            asyncio.create_task(self._gone()),
            asyncio.create_task(_failed(invocation, answer)),
        ]
        try:
            await asyncio.wait([answer, *others], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (answer, *others):
                task.cancel()
            await asyncio.wait([answer, *others])
        if answer.cancelled():
            await self._fail(500)
        else:
            answer.result()

    async def _forward(self, inner_url: str) -> None:
        try:
            response = await self._client.send(self._inner_request(inner_url), stream=True)
        except ClientDisconnect:
            return  # disconnected while sending its body: no answer is needed
        except httpx.TransportError:
            await self._fail(502)
        else:
            async with aclosing(response):
                await self._relay(response)

    async def _relay(self, response: httpx.Response) -> None:
        self._started = True
        headers = [*_end_to_end(response.headers.raw)]
        start = {"status": response.status_code, "headers": headers}
        await self._send({"type": "http.response.start", **start})
        try:
            async for chunk in response.aiter_raw():
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        except httpx.TransportError:
            return  # cut: cut the client too (HttpForwarder: ResponseBodyDestination aborts)
        await self._send({"type": "http.response.body", "body": b""})

    async def _fail(self, status: int) -> None:
        """Send the host's own answer if none has begun; send nothing to a client that has disconnected."""
        if not self._started:
            refusal = PlainTextResponse("", status)
            await refusal(self._request.scope, self._request.receive, self._send)

    def _inner_request(self, inner_url: str) -> httpx.Request:
        scope = self._request.scope
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        sent = self._request.headers
        has_body = "content-length" in sent or "transfer-encoding" in sent
        if not has_body:
            self._body_read.set()
        headers = [
            # White space around a value is not part of it, and a front removes it (RFC 9110, 5.5).
            *((n, value.strip(b" \t")) for n, value in _end_to_end(sent.raw) if n != INVOCATION_HEADER),
            (INVOCATION_HEADER, self._invocation_id.encode("ascii")),
        ]
        return httpx.Request(
            self._request.method,
            httpx.URL(inner_url).copy_with(raw_path=scope["raw_path"] + query),
            headers=headers,
            content=self._body() if has_body else None,
        )

    async def _body(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._request.stream():
                yield chunk
        finally:
            self._body_read.set()

    async def _gone(self) -> None:
        """Return when the client has disconnected. Only one task may read from the client, first the body."""
        await self._body_read.wait()
        message: Message = {"type": "http.request"}
        while message["type"] != "http.disconnect":
            message = await self._request.receive()


def _key_of(request: Request) -> str:
    """Return the key from the header or from `code` in the query (AuthUtility, FunctionAuthorizationLevel of
    the host)."""
    return request.headers.get("x-functions-key") or request.query_params.get("code", "")


async def _failed(invocation: asyncio.Task[None], answer: asyncio.Task[None]) -> None:
    """Return when the invocation has failed and the runtime has not answered for it.

    Usually the runtime answers with 500. Before it has paired the request it cannot answer, and the request
    would hang.
    """
    await asyncio.wait([invocation])
    failed = not invocation.cancelled() and invocation.exception() is not None
    await asyncio.wait([answer], timeout=FAILURE_GRACE_S if failed else None)


def _end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
    lowered = [(name.lower(), value) for name, value in headers]
    named = {
        token.strip().lower()
        for name, value in lowered
        if name == b"connection"
        for token in value.split(b",")
    }
    return [pair for pair in lowered if pair[0] not in HOP_BY_HOP | named]
