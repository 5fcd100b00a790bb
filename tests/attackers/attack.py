"""The actions of an attacker, one each second. Each is limited in bytes and time. Loopback only."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

ACT_SECONDS = 5.0
PIPELINED = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n" * 5000  # 205 kB
POST = b"POST /stream HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
TRAILERS = POST + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" + b"x: y\r\n" * 40_000
LARGEST = 262_144  # the default of GATEWAY_MAX_BODY_BYTES
GOLDEN = 0.618034  # multiples of it, modulo 1, are evenly spread
HELD = 20  # open connections of one attacker that holds some


class Attacker:
    """One attacker. `number` selects its actions."""

    def __init__(self, host: str, port: int, number: int) -> None:
        self._where = host, port
        self._number = number
        self._held: list[asyncio.StreamWriter] = []
        self._acts: list[Callable[[], Awaitable[None]]] = [
            self._pipeline,
            self._trailers,
            self._hold,
            self._go_slowly,
            self._send_the_largest,
        ]
        self._act = self._acts[number % len(self._acts)]

    async def run(self, seconds: float) -> int:
        """Do one action a second, each attacker at its own time in the second; return the number of
        actions."""
        loop = asyncio.get_running_loop()
        ends, acts = loop.time() + seconds, 0
        await asyncio.sleep(self._number * GOLDEN % 1)
        while (now := loop.time()) < ends:
            with contextlib.suppress(OSError, TimeoutError):  # the server closed the connection
                async with asyncio.timeout(ACT_SECONDS):
                    await self._act()
            acts += 1
            await asyncio.sleep(max(0.0, now + 1 - loop.time()))
        for writer in self._held:
            writer.transport.abort()
        return acts

    async def _send(self, sent: bytes, *, read: bool) -> None:
        reader, writer = await asyncio.open_connection(*self._where)
        try:
            writer.write(sent)
            await writer.drain()
            if read:
                await reader.read()
        finally:
            writer.transport.abort()

    async def _pipeline(self) -> None:
        await self._send(PIPELINED, read=False)

    async def _trailers(self) -> None:
        await self._send(TRAILERS, read=True)

    async def _hold(self) -> None:
        """Open a connection, send half a request line and keep it open; close the oldest."""
        await self._keep(b"GET /hea")

    async def _go_slowly(self) -> None:
        """Send a body slowly: one byte on each connection that is kept open."""
        await self._keep(POST + b"content-length: 262144\r\n\r\n{")
        for writer in self._held:
            if not writer.is_closing():
                writer.write(b" ")

    async def _keep(self, sent: bytes) -> None:
        _, writer = await asyncio.open_connection(*self._where)
        writer.write(sent)
        self._held.append(writer)
        if len(self._held) > HELD:
            self._held.pop(0).transport.abort()

    async def _send_the_largest(self) -> None:
        """Send the largest body that is read whole, for an unknown chain: it is parsed and refused."""
        given = {"chain": "none", "messages": [{"role": "user", "content": "x" * 250}] * 900}
        body = json.dumps(given).encode().ljust(LARGEST)
        head = POST + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        await self._send(head + body, read=True)


async def main(url: str, count: int, seconds: float) -> None:
    """Run `count` attackers for this time; print the number of their actions."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 0
    assert host == "127.0.0.1", "loopback only"
    attackers = [Attacker(host, port, number) for number in range(count)]
    print(sum(await asyncio.gather(*(attacker.run(seconds) for attacker in attackers))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.attackers.attack")
    parser.add_argument("url")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    asyncio.run(main(given.url, given.count, given.seconds))
