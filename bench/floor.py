"""The lower limit of the cost: uvicorn alone, sending prepared bytes. It has no store, no framework and no
guarantee.

`python -m bench.floor SOCKET_FD live RATE SECONDS READY STREAMS`: as soon as the file READY exists, send RATE
events a second in each of STREAMS streams, to all connections of `/stream/{number}`. `python -m bench.floor
SOCKET_FD ready BYTES`: send this number of bytes at once in each answer. `python -m bench.floor SOCKET_FD
hold`: send the response head, then nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

TICK_SECONDS = 0.001  # uvloop rounds half of this to zero, and would spin
Send = Callable[[dict[str, Any]], Awaitable[None]]
_HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
_END = {"type": "http.response.body", "body": b""}


class Live:
    """Streams whose events are made in this process, in one task, and sent at once."""

    def __init__(self, rate: float, seconds: float, ready: str, streams: int) -> None:
        self._rate, self._total, self._ready, self._streams = rate, int(rate * seconds), ready, streams
        self._readers: dict[int, list[Send]] = defaultdict(list)
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def serve(self, path: str, send: Send) -> None:
        self._task = self._task or asyncio.create_task(self._produce())
        await send(_HEAD)
        self._readers[int(path.rpartition("/")[2])].append(send)
        await self._over.wait()

    async def _produce(self) -> None:
        while not os.path.exists(self._ready):  # sseload can only signal with a file
            await asyncio.sleep(0.01)
        every, count = 1 / (self._rate * self._streams), int(self._total) * self._streams
        sent, began = 0, time.perf_counter()
        while sent < count:
            due = min(count, int((time.perf_counter() - began) / every) + 1)
            for number in range(sent, due):
                turn, stream = divmod(number, self._streams)
                body = {"type": "http.response.body", "body": _event(turn + 1), "more_body": True}
                for send in self._readers[stream]:
                    await send(body)
            sent = due
            await asyncio.sleep(TICK_SECONDS)
        for send in [send for sends in self._readers.values() for send in sends]:
            await send(_END)
        self._over.set()


def _event(number: int) -> bytes:
    """Return an event with the present time, as long as an event of the product."""
    token = b'{\\"ts\\":%d,\\"seq\\":%d,\\"token\\":\\"abcdefgh\\"}' % (time.time_ns(), number)
    data = b'{"deployment":"m","delta_content":"%b","stage":"chat"}' % token
    return b"id: %d-beef\ndata: %b\n\n" % (number, data)


async def hold(path: str, send: Send) -> None:
    """Open a stream and send no event."""
    await send(_HEAD)
    await send({"type": "http.response.body", "body": b":\n", "more_body": True})
    await asyncio.Event().wait()


def ready(size: int) -> Callable[[str, Send], Awaitable[None]]:
    """Return an application that sends a whole log in one piece."""
    body = b"".join(_event(number) for number in range(size // len(_event(1)) + 1))[:size]

    async def serve(path: str, send: Send) -> None:
        await send(_HEAD)
        await send({"type": "http.response.body", "body": body})

    return serve


def main(fd: int, kind: str, *given: str) -> None:
    """Serve until the process is killed."""
    made: list[Any] = []  # filled inside the event loop that serves

    def serving() -> Callable[[str, Send], Awaitable[None]]:
        if not made:
            if kind == "live":
                rate, seconds, ready_file, streams = given
                made.append(Live(float(rate), float(seconds), ready_file, int(streams)).serve)
            else:
                made.append(ready(int(given[0])) if kind == "ready" else hold)
        serve: Callable[[str, Send], Awaitable[None]] = made[0]
        return serve

    async def app(scope: Any, receive: Any, send: Send) -> None:
        if scope["path"] == "/health":
            await send(_HEAD)
            await send(_END)
        else:
            await serving()(scope["path"], send)

    config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=fd)])


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
