"""A TCP proxy in front of Redis that simulates network faults: it cuts, delays, drops, doubles and reorders.

It recognises the subscriber connection of a hub by the name that the client sets for itself. All other
connections are for commands. Published messages are parsed only on subscriber connections; all else passes as
bytes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Literal, Self
from urllib.parse import urlsplit

Kind = Literal["hub", "commands"]
Direction = Literal["requests", "answers"]
Fault = Callable[[bytes], Iterable[bytes]]  # takes a published message; returns what the subscriber gets
CHUNK_BYTES = 64 * 1024
_HUB_NAME = b"holdfast-hub"
_MESSAGE = b"*3\r\n$7\r\nmessage\r\n"


def untouched(message: bytes) -> Iterable[bytes]:
    yield message


def dropped(message: bytes) -> Iterable[bytes]:
    return ()


def doubled(message: bytes) -> Iterable[bytes]:
    return (message, message)


class Swapped:
    """Delay each message until the next message has passed."""

    def __init__(self) -> None:
        self._waiting: bytes | None = None

    def __call__(self, message: bytes) -> Iterable[bytes]:
        if self._waiting is None:
            self._waiting = message
            return ()
        late, self._waiting = self._waiting, None
        return (message, late)


class Proxy:
    """`async with Proxy(redis_url) as proxy`; clients use `proxy.url`. The test then causes faults with its
    methods."""

    url = ""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.accepted: Counter[Kind] = Counter()  # connections so far
        self.messages = 0  # published messages from the server, including lost messages
        self.fault: Fault = untouched
        self._links: set[_Link] = set()
        self._gates: dict[tuple[Kind, Direction], asyncio.Event] = {}

    def connections(self, kind: Kind) -> int:
        """Return how many connections of this kind are open now."""
        return sum(link.kind == kind for link in self._links)

    def cut(self, kind: Kind) -> int:
        """Close the open connections of this kind abruptly; return their number."""
        links = [link for link in self._links if link.kind == kind]
        for link in links:
            link.cut()
        return len(links)

    def hold(self, kind: Kind, *directions: Direction) -> None:
        """Hold back the data of present and future connections, which look open (half-open)."""
        for direction in directions or ("requests", "answers"):
            self._gates[kind, direction] = asyncio.Event()

    def release(self) -> None:
        """Pass on all data that was held back."""
        gates, self._gates = self._gates, {}
        for gate in gates.values():
            gate.set()

    async def passage(self, kind: Kind, direction: Direction) -> None:
        """Return when this direction is not held back."""
        while gate := self._gates.get((kind, direction)):
            await gate.wait()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        where = urlsplit(self.upstream)
        if where.scheme == "unix":
            return await asyncio.open_unix_connection(where.path)
        return await asyncio.open_connection(where.hostname, where.port or 6379)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.release()
        tasks = [link.task for link in self._links]
        for link in list(self._links):
            link.cut()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(self, reader, writer)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)


class _Link:
    """One client's connection, and the proxy's connection to the server for it."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.kind: Kind = "commands"
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._dead = asyncio.Event()

    def cut(self) -> None:
        self._dead.set()

    async def run(self) -> None:
        upstream: asyncio.StreamWriter | None = None
        tasks: list[asyncio.Task[object]] = []
        try:
            first = await self._reader.read(CHUNK_BYTES)
            self.kind = "hub" if _HUB_NAME in first else "commands"
            self._proxy.accepted[self.kind] += 1
            source, upstream = await self._proxy.connect()
            tasks = [
                asyncio.create_task(self._requests(first, upstream)),
                asyncio.create_task(self._answers(source)),
                asyncio.create_task(self._dead.wait()),
            ]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass
        finally:
            for task in tasks:
                task.cancel()
            for writer in (self._writer, upstream):
                if writer is not None:
                    writer.transport.abort()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _requests(self, chunk: bytes, upstream: asyncio.StreamWriter) -> None:
        while chunk:
            await self._proxy.passage(self.kind, "requests")
            upstream.write(chunk)
            await upstream.drain()
            # while held, read no more than the socket buffers hold
            await self._proxy.passage(self.kind, "requests")
            chunk = await self._reader.read(CHUNK_BYTES)

    async def _answers(self, source: asyncio.StreamReader) -> None:
        buffer = b""
        while chunk := await source.read(CHUNK_BYTES):
            if self.kind == "hub":
                chunks, buffer = self._taken_apart(buffer + chunk)
                chunk = b"".join(chunks)
            await self._proxy.passage(self.kind, "answers")
            self._writer.write(chunk)
            await self._writer.drain()

    def _taken_apart(self, buffer: bytes) -> tuple[list[bytes], bytes]:
        """Return the whole replies in the buffer, with published messages changed by the fault, and the
        remaining bytes."""
        passed: list[bytes] = []
        start = 0
        while (end := reply_end(buffer, start)) is not None:
            reply = buffer[start:end]
            start = end
            if reply.startswith(_MESSAGE):
                self._proxy.messages += 1
                passed += self._proxy.fault(reply)
            else:
                passed.append(reply)
        return passed, buffer[start:]


def reply_end(buffer: bytes, start: int) -> int | None:
    """Return the end of the RESP2 reply that begins at `start`, or None if the reply is incomplete."""
    line_end = buffer.find(b"\r\n", start)
    if line_end < 0:
        return None
    kind, end = buffer[start : start + 1], line_end + 2
    if kind in b"+-:":
        return end
    count = int(buffer[start + 1 : line_end])
    if kind == b"$":
        end += count + 2 if count >= 0 else 0
        return end if end <= len(buffer) else None
    for _ in range(count):
        inner = reply_end(buffer, end)
        if inner is None:
            return None
        end = inner
    return end
