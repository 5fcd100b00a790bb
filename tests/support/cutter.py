"""A TCP proxy between a client and the gateway. It cuts connections after a given number of bytes of the
answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from typing import Self
from urllib.parse import urlsplit

CHUNK_BYTES = 64 * 1024


class Cutter:
    """`async with Cutter(url, [300, 0, 120]) as cutter`; clients connect to `cutter.url`.

    Each connection uses the next bound in the list. It is reset after that number of answer bytes has passed.
    The bound 0 cuts before the answer, but the request is passed on. After the last bound, connections are
    not cut.
    """

    def __init__(self, upstream: str, bounds: Iterable[int]) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 0)
        self._bounds: Iterator[int] = iter(bounds)
        self.cuts = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        bound = next(self._bounds, None)
        far_reader, far_writer = await asyncio.open_connection(*self._upstream)
        asking = asyncio.create_task(_pass(reader, far_writer, None))
        try:
            await _pass(far_reader, writer, bound)
            self.cuts += bound is not None
        finally:
            asking.cancel()
            writer.transport.abort()
            far_writer.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bound: int | None) -> None:
    """Copy bytes until one side closes or the bound is reached."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(CHUNK_BYTES):
            if bound is not None and len(data) >= bound:
                writer.write(data[:bound])
                await writer.drain()
                return
            bound = None if bound is None else bound - len(data)
            writer.write(data)
            await writer.drain()
