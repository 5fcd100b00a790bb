"""A proxy that turns a cut connection into a clean end of the body. Some proxies between HTTP/1.1 and HTTP/2
do this.

PYTEST_DONT_REWRITE: this module is imported before pytest sees it as a plugin.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Self

import httpx

HEAD_BYTES = 64 * 1024


class CleanEnder:
    """`async with CleanEnder(url, [300, 120]) as ender`; clients connect to `ender.url`.

    Each answer uses the next bound in the list: its body ends cleanly after that number of bytes.
    """

    def __init__(self, upstream: str, bounds: Iterable[int]) -> None:
        self._http = httpx.AsyncClient(base_url=upstream, timeout=60)
        self._bounds = iter(bounds)
        self.ends = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=HEAD_BYTES)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._http.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        method, path, _ = first.split(" ")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        passed = ("content-type", "last-event-id")
        kind = {name: told for name, told in headers.items() if name in passed}
        left = next(self._bounds, None)
        async with self._http.stream(method, path, content=body, headers=kind) as answer:
            told = f"HTTP/1.1 {answer.status_code} told\r\nconnection: close\r\n"
            told += f"content-type: {answer.headers.get('content-type', 'text/plain')}\r\n"
            told += "x-vercel-ai-ui-message-stream: v1\r\n\r\n"
            writer.write(told.encode())
            async for chunk in answer.aiter_raw():
                writer.write(chunk if left is None else chunk[:left])
                await writer.drain()
                if left is not None and len(chunk) >= left:
                    self.ends += 1
                    break
                left = None if left is None else left - len(chunk)
        writer.close()
