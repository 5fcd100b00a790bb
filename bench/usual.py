"""The usual resumable design: one Redis stream per answer, one XREAD loop per reader, on sse-starlette.

`python -m bench.usual SOCKET_FD REDIS_URL`.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from redis.asyncio import Redis
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

BLOCK_MS = 2000
READ_COUNT = 100


def app(url: str) -> Starlette:
    """Return an app whose `/stream/{id}` follows the Redis stream of that name, after `Last-Event-ID`."""
    redis: Any = Redis.from_url(url, max_connections=9000, socket_timeout=None)

    async def events(key: str, last: str) -> AsyncIterator[ServerSentEvent]:
        while True:
            for _, entries in await redis.xread({key: last}, block=BLOCK_MS, count=READ_COUNT):
                for entry_id, fields in entries:
                    last = entry_id.decode()
                    if b"end" in fields:
                        return
                    yield ServerSentEvent(fields[b"d"].decode(), id=last)

    async def follow(request: Request) -> EventSourceResponse:
        last = request.headers.get("last-event-id", "0")
        return EventSourceResponse(events(request.path_params["id"], last))

    return Starlette(routes=[Route("/stream/{id}", follow)])


def main(fd: int, url: str) -> None:
    """Serve until the process is killed."""
    config = uvicorn.Config(app(url), log_level="critical", access_log=False)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=fd)])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
