"""Measure what one reconnect to a live log of 10 MB costs the web process, in our own format and in other
formats.

`python -m bench.reconnect [COUNT]`. A reader connects twenty events before the end of the log, reads these
and disconnects. The first reader of a format pays for the shared projection, and has a separate figure.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import httpx

from bench import produce
from bench.load import cpu_seconds
from bench.sides import product
from gateway.formats.base.projection import Place
from gateway.protocol import Cursor
from gateway.redis.connection import Connection
from gateway.store.log import Log

LOG_BYTES = 10_000_000
AT_ONCE = 500  # events in each append
BEHIND = 20  # number of events that a reconnecting reader lacks
COUNT = 200
RATE = 50  # events a second


async def main(count: int) -> None:
    """Print a line for each format."""
    async with product() as server:
        assert server.redis is not None
        connection = Connection(server.redis.url, name="bench")
        log = Log(connection)
        stream = await produce.made(log)
        ids: list[str] = []
        while stream.end < LOG_BYTES:
            for _ in range(AT_ONCE):
                stream.say()
                ids.append(stream.last)
            await produce.append(log, stream)
        run, at = stream.claim.record.id, ids[-BEHIND - 1]
        after = Place(Cursor.parse(at), 0).number
        base = f"http://127.0.0.1:{server.port}"
        ways: dict[str, Callable[[], tuple[str, dict[str, str]]]] = {
            "our own": lambda: (f"/stream/{run}", {"last-event-id": at, "accept": "text/event-stream"}),
            "OpenAI Responses": lambda: (f"/v1/responses/resp_{run}?stream=true&starting_after={after}", {}),
            # This format has one chunk for each text event, and two chunks before them: `start` and
            # `text-start`.
            "AI SDK, startIndex": lambda: (f"/api/chat/{run}/stream?startIndex={len(ids) - BEHIND + 2}", {}),
            "LangGraph, join": lambda: (
                f"/threads/{run}/runs/{run}/stream?stream_mode=messages-tuple",
                {"last-event-id": f"{at}.0"},
            ),
        }
        print(f"a log of {stream.end:,} bytes, {len(ids):,} events; {count} reconnects, {RATE} a second")
        async with httpx.AsyncClient(base_url=base, timeout=120) as http:
            for name, way in ways.items():
                first = cpu_seconds(server.pid)
                await _reconnect(http, *way())
                began = cpu_seconds(server.pid)
                waiting = []
                for _ in range(count):
                    waiting.append(asyncio.create_task(_reconnect(http, *way())))
                    await asyncio.sleep(1 / RATE)
                await asyncio.gather(*waiting)
                each = (cpu_seconds(server.pid) - began) / count * 1000
                print(f"{name}: {each:.2f} ms of CPU each, the first {(began - first) * 1000:.0f} ms")
        await produce.finish(log, stream)
        await connection.close()


async def _reconnect(http: httpx.AsyncClient, path: str, headers: dict[str, str]) -> None:
    seen = b""
    async with http.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200, answer.status_code
        async for chunk in answer.aiter_raw():
            seen += chunk
            if seen.count(b"data: ") >= BEHIND - 1:
                return


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else COUNT))
