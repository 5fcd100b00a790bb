"""A TCP proxy in front of Redis. It cuts and holds connections; it drops, doubles and delays published
messages.

The proxy parses only the answers of a connection that has subscribed; all other bytes pass unchanged. A
connection leads to the server that `upstream` names when the connection is opened.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

READ_BYTES = 64 * 1024
_SUBSCRIBE = b"\r\n$9\r\nSUBSCRIBE\r\n"
_RESET = struct.pack("ii", 1, 0)  # linger time 0: sends RST, not FIN
_MESSAGE = b"*3\r\n$7\r\nmessage\r\n"


@dataclass(frozen=True, slots=True)
class Mischief:
    """The probabilities of each fault for a published message."""

    drop: float = 0.0
    double: float = 0.0
    late: float = 0.0  # delivered after the next message


@dataclass(slots=True)
class Mangled:
    """The number of messages with each fault."""

    dropped: int = 0
    doubled: int = 0
    late: int = 0


class Proxy:
    """`async with Proxy(upstream, rng) as proxy`; clients connect to `proxy.url`.

    `upstream` returns the path of a server's UNIX socket. While `passing` is not set, no byte passes in any
    direction. Bytes that are held at that time are lost if their connection is cut.
    """

    def __init__(self, upstream: Callable[[], Path], rng: random.Random) -> None:
        self.passing = asyncio.Event()
        self.passing.set()
        self.mischief = Mischief()
        self.mangled = Mangled()
        self.rng = rng
        self._upstream = upstream
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def cut(self, share: float) -> int:
        """Reset a share of the connections, chosen at random; at least one if there is one."""
        writers = [writer for writer in self._clients.values() if not writer.is_closing()]
        chosen = self.rng.sample(writers, min(len(writers), max(1, round(share * len(writers)))))
        for writer in chosen:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        return len(chosen)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients[task] = writer
        try:
            with contextlib.suppress(OSError):  # Redis is down, or one side was cut
                await self._forward(reader, writer)
        except asyncio.CancelledError:
            pass  # the proxy closes; asyncio would log a cancelled handler
        finally:
            del self._clients[task]
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_unix_connection(self._upstream())
        answers = Answers(self)
        both = [
            asyncio.create_task(self._pump(reader, to_redis, answers.asked), name="proxy-up"),
            asyncio.create_task(self._pump(from_redis, writer, answers.mangle), name="proxy-down"),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            to_redis.transport.abort()  # abort first: an await could be cancelled
            await asyncio.gather(*both, return_exceptions=True)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Callable[[bytes], bytes]
    ) -> None:
        while data := await reader.read(READ_BYTES):
            await self.passing.wait()
            if changed := change(data):
                writer.write(changed)
                await writer.drain()


class Answers:
    """The answers of the server on one connection. Whole messages to a subscriber may be changed."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._subscribed = False
        self._buffer = b""
        self._late = b""

    def asked(self, data: bytes) -> bytes:
        """Pass data from the client unchanged."""
        self._subscribed = self._subscribed or _SUBSCRIBE in data
        return data

    def mangle(self, data: bytes) -> bytes:
        """Take data from the server; return the data that the client gets now."""
        if not self._subscribed:
            return data
        self._buffer += data
        passed = []
        while (end := reply_end(self._buffer, 0)) is not None:
            reply, self._buffer = self._buffer[:end], self._buffer[end:]
            passed.append(self._message(reply) if reply.startswith(_MESSAGE) else reply)
        return b"".join(passed)

    def _message(self, reply: bytes) -> bytes:
        late, self._late = self._late, b""
        mischief, mangled = self._proxy.mischief, self._proxy.mangled
        chance = self._proxy.rng.random()
        if chance < mischief.drop:
            mangled.dropped += 1
            return late
        if chance < mischief.drop + mischief.double:
            mangled.doubled += 1
            return reply + late + reply
        if chance < mischief.drop + mischief.double + mischief.late and not late:
            mangled.late += 1
            self._late = reply
            return b""
        return reply + late


def reply_end(buffer: bytes, start: int) -> int | None:
    """Return the end of the RESP2 reply that begins at `start`, or None while it is incomplete."""
    line_end = buffer.find(b"\r\n", start)
    if line_end < 0:
        return None
    kind, after = buffer[start : start + 1], line_end + 2
    if kind in (b"+", b"-", b":"):
        return after
    count = int(buffer[start + 1 : line_end])
    if kind == b"$":
        end = after + (count + 2 if count >= 0 else 0)
        return end if len(buffer) >= end else None
    at: int | None = after
    for _ in range(max(count, 0)):
        if at is None:
            return None
        at = reply_end(buffer, at)
    return at
