"""Measure the replay of a finished log of 10,000 events by one reader, and by fifty readers at once."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time_ns

from redis.asyncio import Redis

from bench import produce
from bench.load import sseload
from bench.report import Figure
from bench.sides import FLOOR, PRODUCT, Server, floor, product, usual
from gateway.redis.connection import Connection
from gateway.store.log import Log

EVENTS = 10_000
READERS = (1, 50)
BARS = {1: 20.0, 50: 500.0}
AT_ONCE = 100  # events in each append


async def measure(rounds: int) -> list[Figure]:
    """Return the milliseconds from the first connection to the last event of the last reader."""
    figures = {
        readers: Figure(
            f"replay of {EVENTS:,} events, {readers} reader{'s'[: readers > 1]}",
            "ms",
            f"≤ {BARS[readers]:.0f} ms",
            lambda medians, readers=readers: medians[PRODUCT] <= BARS[readers],  # type: ignore[misc]
        )
        for readers in READERS
    }
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        ours, theirs = await enter(product()), await enter(usual())
        path, size = await _ours(ours)
        await _theirs(theirs)
        bare = await enter(floor("ready", str(size)))
        paths = Path(stack.enter_context(TemporaryDirectory()), "paths")
        for _ in range(rounds):
            for server, where in ((ours, path), (theirs, "/stream/r"), (bare, "/stream/0")):
                for readers, figure in figures.items():
                    paths.write_text(f"{where}\n")
                    figure.note(server.name, await _read(server, paths, readers))
    return list(figures.values())


async def _read(server: Server, paths: Path, readers: int) -> float:
    options = ("-i", "0.5") if server.name == FLOOR else ("-i", "0.5", "-c", "data", "-e", str(EVENTS))
    load = await sseload(server.port, paths, 1, readers, 30, *options)
    assert load.events >= EVENTS * readers, load
    return float(load.raw["last_event_after_start_s"]) * 1000


async def _ours(server: Server) -> tuple[str, int]:
    """Write the log; return its path and its size."""
    assert server.redis is not None
    connection = Connection(server.redis.url, name="bench")
    log = Log(connection)
    stream = await produce.made(log)
    for _ in range(EVENTS // AT_ONCE):
        for _ in range(AT_ONCE):
            stream.say()
        await produce.append(log, stream)
    await produce.finish(log, stream)
    await connection.close()
    return f"/stream/{stream.claim.record.id}", stream.end


async def _theirs(server: Server) -> None:
    assert server.redis is not None
    async with Redis.from_url(server.redis.url) as redis:
        pipe = redis.pipeline(transaction=False)
        for number in range(1, EVENTS + 1):
            said = {"ts": time_ns(), "seq": number, "token": "abcdefgh"}
            pipe.xadd("r", {"d": json.dumps(said, separators=(",", ":"))})
        pipe.xadd("r", {"end": "1"})
        await pipe.execute()


async def main() -> None:
    """Print only the lines of this measurement."""
    for figure in await measure(3):
        print(figure.row())


if __name__ == "__main__":
    asyncio.run(main())
