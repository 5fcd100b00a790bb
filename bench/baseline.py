"""The usual resumable design: one Redis stream per answer, one XREAD loop per reader.

Run by `python -m bench.baseline URL SOCKET_FD`; it is the other column of `make bench`.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

BLOCK_MS = 2000


def app(url: str) -> Starlette:
    redis: Any = Redis.from_url(url, max_connections=4096)

    async def frames(key: str) -> AsyncIterator[bytes]:
        last = b"0"
        while True:
            for _, entries in await redis.xread({key: last}, block=BLOCK_MS, count=100):
                for entry_id, fields in entries:
                    last = entry_id
                    if b"end" in fields:
                        return
                    yield b"id: %b\ndata: %b\n\n" % (entry_id, fields[b"d"])

    async def follow(request: Request) -> StreamingResponse:
        return StreamingResponse(frames(request.path_params["id"]), media_type="text/event-stream")

    return Starlette(routes=[Route("/stream/{id}", follow)])


def main() -> None:
    bound = socket.socket(fileno=int(sys.argv[2]))
    config = uvicorn.Config(app(sys.argv[1]), log_level="error", access_log=False)
    asyncio.run(uvicorn.Server(config).serve(sockets=[bound]))


if __name__ == "__main__":
    main()
