"""A server of the test that receives webhooks. It stores the requests and gives the answers that the test
sets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import orjson
from standardwebhooks.webhooks import Webhook

OK = b"HTTP/1.1 204 No Content\r\n\r\n"


def answer(status: int, *lines: str) -> bytes:
    """Return an answer without a body and with these header lines."""
    return "\r\n".join([f"HTTP/1.1 {status} x", "content-length: 0", *lines, "", ""]).encode()


@dataclass(frozen=True, slots=True)
class Received:
    """One attempt to deliver: the target, the headers with lower-case names, and the body."""

    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def document(self) -> dict[str, Any]:
        told: dict[str, Any] = orjson.loads(self.body)
        return told

    def verified(self, secret: str) -> dict[str, Any]:
        """Return the document, if an independent implementation accepts its signature."""
        told: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        return told


@dataclass(slots=True)
class Receiver:
    """A webhook receiver. It gives `answers` one by one, then OK. For None it gives no answer and keeps the
    connection."""

    answers: list[bytes | None] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _ends: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._ends.set()
        self._server.close()

    def url(self, target: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{target}"

    def of(self, target: str) -> list[Received]:
        """Return the attempts to this target."""
        return [one for one in self.received if one.target == target]

    async def until(self, enough: Callable[[], object], seconds: float = 60) -> None:
        """Wait until `enough` is true of the received attempts."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: bool(enough()))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {
                name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])
            }
            body = await reader.readexactly(int(headers["content-length"]))
            told = self.answers.pop(0) if self.answers else OK
            async with self._changed:
                self.received.append(Received(head[0].split(" ")[1], headers, body))
                self._changed.notify_all()
            if told is None:
                await self._ends.wait()
            else:
                writer.write(told)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):  # the sender has died
            pass
        finally:
            writer.close()
