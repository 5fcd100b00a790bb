"""Measure the idle cost: 10,000 readers of 100 streams without events. It shows the cost of a reader and of
the heartbeats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from redis.asyncio import Redis

from bench import produce
from bench.load import cpu_seconds, resident_kb, sseload
from bench.report import Figure
from bench.sides import FLOOR, PRODUCT, USUAL, Server, floor, product, usual
from gateway.redis.connection import Connection
from gateway.store.log import Log

STREAMS, WATCH_SECONDS = 100, 4.0
# the usual design needs one Redis connection for each reader
READERS = {PRODUCT: 10_000, USUAL: 2_000, FLOOR: 10_000}
CONNECTS = 2_000  # new connections a second


async def measure(rounds: int) -> list[Figure]:
    """Measure one round only: memory hardly varies."""
    each = Figure("idle reader, memory of the server", "kB", "≤ 15 kB", lambda m: m[PRODUCT] <= 15)
    links = Figure("Redis connections more for them", "", "unchanged", lambda m: m[PRODUCT] <= 0, digits=0)
    busy = Figure("CPU of the server meanwhile", "%", "< 3 %", lambda m: m[PRODUCT] < 3)
    async with AsyncExitStack() as stack:
        ours, theirs = await stack.enter_async_context(product()), await stack.enter_async_context(usual())
        bare = await stack.enter_async_context(floor("hold"))
        for server in (ours, theirs, bare):
            kb, more, percent = await _sit(server)
            each.note(server.name, kb)
            busy.note(server.name, percent)
            if server.redis is not None:
                links.note(server.name, more)
    return [each, links, busy]


async def _sit(server: Server) -> tuple[float, float, float]:
    """Connect all readers and measure: kB for each reader, additional connections to Redis, percent of a
    core."""
    async with _streams(server) as paths:
        await _ask(server, paths, 50, 0.2)  # warm up imports and first-reader setup
        memory, links = resident_kb(server.pid), await _links(server)
        ready = paths.with_name("ready")
        readers = READERS[server.name]
        task = asyncio.create_task(_ask(server, paths, readers, WATCH_SECONDS + 3, str(ready)))
        while not ready.exists():
            await asyncio.sleep(0.05)
            assert not task.done(), task
        await asyncio.sleep(1)  # wait for work that the last connection has started
        used = cpu_seconds(server.pid)
        await asyncio.sleep(WATCH_SECONDS)
        percent = (cpu_seconds(server.pid) - used) / WATCH_SECONDS * 100
        each = (resident_kb(server.pid) - memory) / readers
        more = await _links(server) - links
        await task
        ready.unlink()
        return each, more, percent


async def _ask(server: Server, paths: Path, readers: int, seconds: float, ready: str = "") -> None:
    options = ("-r", str(CONNECTS), *(("-R", ready) if ready else ()))
    load = await sseload(server.port, paths, STREAMS, readers, seconds, *options)
    assert load.raw["ok"] == readers, load.raw


async def _links(server: Server) -> int:
    if server.redis is None:
        return 0
    async with Redis.from_url(server.redis.url) as client:
        return int((await client.info("clients"))["connected_clients"])


@asynccontextmanager
async def _streams(server: Server) -> AsyncIterator[Path]:
    """Make streams that wait for their next event; yield a file with their paths."""
    with TemporaryDirectory() as folder:
        paths = Path(folder, "paths")
        names = [f"/stream/{number}" for number in range(STREAMS)]
        if server.name != PRODUCT:
            paths.write_text("".join(f"{name}\n" for name in names))
            yield paths
            return
        assert server.redis is not None
        connection = Connection(server.redis.url, name="bench")
        log = Log(connection)
        pens = await asyncio.gather(*(produce.made(log) for _ in range(STREAMS)))
        paths.write_text("".join(f"/stream/{pen.claim.record.id}\n" for pen in pens))
        try:
            yield paths
        finally:
            await connection.close()


async def main() -> None:
    """Print only the lines of this measurement."""
    for figure in await measure(1):
        print(figure.row())


if __name__ == "__main__":
    asyncio.run(main())
