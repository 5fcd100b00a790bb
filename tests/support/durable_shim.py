"""The writing side of Durable Streams, only for its conformance suite. The reading side is the gateway's own.

The suite makes its own streams of any bytes with PUT and POST. This server stores them as streams of ours:
each append is one block of `custom` events, and a close is the terminal event. GET, HEAD and OPTIONS go to
the gateway unchanged, and the gateway's answers come back with their status and headers. In the answers, the
suite's messages are extracted from our events (`start` and the terminal event do not belong to the suite),
and the content type is the one that the suite gave the stream.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from gateway import protocol
from gateway.formats.durable import wire
from gateway.protocol import Event
from gateway.store.log import Log
from gateway.web.headers import SECURE
from tests.hosts import LIMIT_SECONDS, NOBODY
from tests.support.following import DONE, Stream

JSON = "application/json"
NOT_PASSED_ON = {"host", "content-length", "transfer-encoding", "connection", "date", "server"}


@dataclass
class Written:
    """A stream of the suite."""

    stream: Stream
    kind: str
    offset: str = ""
    closed: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def is_json(self) -> bool:
        return self.kind.partition(";")[0].strip().lower() == JSON

    @property
    def is_text(self) -> bool:
        return self.kind.startswith("text/")

    def events(self, body: bytes) -> list[Event]:
        """Return the events to append. Raises ValueError for a body that is not JSON in a JSON stream."""
        if not self.is_json:
            items: list[Any] = [base64.b64encode(body).decode()] if body else []
        else:
            value = json.loads(body) if body else []
            items = value if isinstance(value, list) else [value]
        return [protocol.custom("suite", item, stage="answer") for item in items]

    def body(self, messages: list[dict[str, Any]]) -> bytes:
        """Return the body that the suite wrote, from the messages of our events."""
        items = [one["data"]["data"] for one in messages if one["type"] == "custom"]
        if self.is_json:
            return json.dumps(items, separators=(",", ":"), ensure_ascii=False).encode()
        return b"".join(base64.b64decode(item) for item in items)

    def told(self) -> dict[str, str]:
        return {"stream-next-offset": self.offset} | ({"stream-closed": "true"} if self.closed else {})


class Shim:
    """`async with Shim(gateway_url, log) as shim`; the suite connects to `shim.url`."""

    def __init__(self, upstream: str, log: Log) -> None:
        self._upstream = upstream
        self._log = log
        self._streams: dict[str, Written] = {}
        self._made: list[Stream] = []
        self._making: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def __aenter__(self) -> Self:
        bound = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        methods = ["GET", "HEAD", "OPTIONS", "PUT", "POST", "DELETE"]
        app = Starlette(routes=[Route("/v1/stream/{name}", self._answer, methods=methods)])
        config = uvicorn.Config(
            app,
            log_config=None,
            timeout_graceful_shutdown=1,
            # Node closes idle connections after 4 s. With the server's default of 5 s, a busy machine can
            # lose a request.
            timeout_keep_alive=75,
            lifespan="off",
        )
        self._server = uvicorn.Server(config)
        self._http = httpx.AsyncClient(
            base_url=self._upstream, timeout=LIMIT_SECONDS, limits=httpx.Limits(max_connections=None)
        )
        self._task = asyncio.create_task(self._server._serve([bound]), name="durable-shim")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        await self._task
        await self._http.aclose()
        await asyncio.gather(*(stream.discard() for stream in self._made))

    async def _answer(self, request: Request) -> Response:
        name = request.path_params["name"]
        match request.method:
            case "PUT":
                async with self._making[name]:
                    return await self._create(request, name)
            case "POST" if name in self._streams:
                return await self._append(request, self._streams[name])
            case "DELETE" if name in self._streams:
                del self._streams[name]
                return Response(status_code=204, headers=SECURE)
            case "POST" | "DELETE":
                return Response(status_code=404, headers=SECURE)
            case _:
                return await self._read(request, self._streams.get(name))

    async def _create(self, request: Request, name: str) -> Response:
        body, kind = await request.body(), request.headers.get("content-type", "application/octet-stream")
        known = self._streams.get(name)
        if known is not None:
            same = known.kind.lower() == kind.lower()
            return Response(status_code=200 if same else 409, headers={**SECURE, **known.told()})
        self._made.append(await Stream.create(self._log))
        written = Written(self._made[-1], kind)
        end = [DONE] if request.headers.get("stream-closed") == "true" else []
        events = [*written.events(body), *end]
        last = await written.stream.write(*events) if events else await self._end(written.stream)
        written.offset, written.closed = wire.offset(last), bool(end)
        self._streams[name] = written
        headers = {**SECURE, **written.told(), "location": str(request.url), "content-type": kind}
        return Response(status_code=201, headers=headers)

    async def _end(self, stream: Stream) -> str:
        [head] = await self._log.heads([stream.id])
        return head.last_id

    async def _append(self, request: Request, written: Written) -> Response:
        body, end = await request.body(), request.headers.get("stream-closed") == "true"
        kind = request.headers.get("content-type", "")
        async with written.lock:
            if written.closed:
                return Response(status_code=409 if body else 204, headers={**SECURE, **written.told()})
            if body and kind.lower() != written.kind.lower():
                return Response(status_code=409 if kind else 400, headers=SECURE)
            try:
                events = written.events(body)
            except ValueError:
                events = []
            if not events and not (end and not body):
                return Response(status_code=400, headers=SECURE)
            last = await written.stream.write(*events, *([DONE] if end else []))
            written.offset, written.closed = wire.offset(last), end
            return Response(status_code=204, headers={**SECURE, **written.told()})

    async def _read(self, request: Request, written: Written | None) -> Response:
        """Return the gateway's answer to the same query and headers. For an unknown stream it asks for an
        unknown id."""
        path = f"/durable/{written.stream.id if written else NOBODY}"
        asked = self._http.build_request(
            request.method,
            httpx.URL(path, query=request.scope["query_string"]),
            headers=[(name, value) for name, value in request.headers.items() if name not in NOT_PASSED_ON],
        )
        answer = await self._http.send(asked, stream=True)
        headers = {name: value for name, value in answer.headers.items() if name not in NOT_PASSED_ON}
        if written is None or answer.status_code not in (200, 304):
            return Response(await _whole(answer), answer.status_code, headers)
        if headers.get("content-type") == "text/event-stream":
            if not written.is_json and not written.is_text:
                headers["stream-sse-data-encoding"] = "base64"
            return StreamingResponse(_translated(answer, written), 200, headers)
        body = await _whole(answer)
        if "content-type" in headers:
            assert headers["content-type"] == JSON
            headers["content-type"] = written.kind
        return Response(written.body(json.loads(body)) if body else b"", answer.status_code, headers)


async def _whole(answer: httpx.Response) -> bytes:
    async with contextlib.aclosing(answer):
        return await answer.aread()


async def _translated(answer: httpx.Response, written: Written) -> AsyncIterator[bytes]:
    """Return the server-sent events: `control` unchanged, and `data` with the bytes that the suite has
    written."""
    rest = b""
    async with contextlib.aclosing(answer):
        async for chunk in answer.aiter_raw():
            *blocks, rest = (rest + chunk).split(b"\n\n")
            if blocks:
                yield b"".join(_block(block, written) for block in blocks)


def _block(block: bytes, written: Written) -> bytes:
    kind, _, data = block.removeprefix(b":\n").partition(b"\n")
    if kind != b"event: data":
        return block + b"\n\n"
    body = written.body(json.loads(data.removeprefix(b"data:")))
    return _event(body, written) if body not in (b"", b"[]") else b""


def _event(body: bytes, written: Written) -> bytes:
    """Encode a `data` event (section 5.8): one `data` line for each line of text; bytes that are not text as
    base64."""
    if not written.is_json and not written.is_text:
        body = base64.b64encode(body)
    lines = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return b"event: data\n%b\n\n" % b"\n".join(b"data:" + line for line in lines)
