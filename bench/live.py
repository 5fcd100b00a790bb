"""Measure live delivery: events from a producer to thousands of readers. The client sseload checks every
event.

Server, Redis, producer and client are separate processes on one machine. The machine runs nothing else.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from redis.asyncio import Redis

from bench.load import Load, cpu_seconds, sseload, tool
from bench.report import Figure
from bench.sides import FLOOR, PRODUCT, USUAL, Server, floor, product, usual
from tests.support.processes import REPOSITORY
from tests.support.redis_server import RedisServer

WARM_SECONDS = 1.0
SETTLE_SECONDS = 2.0  # a run is abandoned after this time without an event
STREAMS, RATE, SECONDS = 250, 50.0, 4.0
READERS, READERS_RATE = 5_000, 50.0
CONNECTS = 2_000  # new connections a second


@dataclass(frozen=True, slots=True)
class Asked:
    """A load: events a second in every stream, the duration, and the number of readers."""

    streams: int
    readers: int
    rate: float
    seconds: float

    @property
    def per_second(self) -> float:
        """Return the number of events a second that all readers together must get."""
        return self.rate * self.readers


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement: the results of the readers, and the costs of the server process and of Redis."""

    load: Load
    delivered: float  # events a second: all that came up to 1 s after the last was due
    cpu_seconds: float
    round_trips: float = 0.0  # for each event: reads of client sockets by Redis
    commands: float = 0.0  # for each event, including commands in scripts
    redis_cpu_seconds: float = 0.0
    producer_cpu_seconds: float = 0.0

    @property
    def cpu_per_million(self) -> float:
        """Return the server's CPU seconds for a million received events."""
        return self.cpu_seconds / max(self.load.events, 1) * 1_000_000


@dataclass(frozen=True, slots=True)
class _Stats:
    """The counters of a Redis server at one moment."""

    reads: int
    commands: int
    cpu_seconds: float

    @classmethod
    async def of(cls, redis: RedisServer) -> _Stats:
        async with Redis.from_url(redis.url) as client:
            stats, cpu = await client.info("stats"), await client.info("cpu")
        used = float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])
        return cls(int(stats["total_reads_processed"]), int(stats["total_commands_processed"]), used)


async def over_redis(server: Server, asked: Asked) -> Run:
    """Measure a side that uses Redis. The product's producer is `bench.produce`; the usual design's is a C
    program."""
    assert server.redis is not None
    with TemporaryDirectory() as folder:
        paths, ready = Path(folder, "paths"), Path(folder, "ready")
        numbers = (str(asked.streams), str(asked.rate), str(asked.seconds))
        if server.name == PRODUCT:
            command: Sequence[str] = (sys.executable, "-m", "bench.produce", server.redis.url)
            command = (*command, *numbers, str(paths), str(ready))
        else:
            streams, rate, seconds = numbers
            key = f"{os.path.basename(folder)}:%d"
            _name(paths, [f"/stream/{key % number}" for number in range(asked.streams)])
            command = (tool("ssepub"), "-m", "xadd", "-p", str(server.redis.port), "-E", "-k", key)
            command = (*command, "-s", streams, "-r", rate, "-d", seconds, "-R", str(ready))
        producer = await asyncio.create_subprocess_exec(
            *command,
            cwd=REPOSITORY,
            stdout=asyncio.subprocess.PIPE,
            stderr=None if server.name == PRODUCT else asyncio.subprocess.DEVNULL,
        )
        try:
            while not os.path.exists(paths):  # the producer writes this file
                await asyncio.sleep(0.02)
            loading = asyncio.create_task(_load(server, asked, paths, ready))
            while not ready.exists() and not loading.done():
                await asyncio.sleep(0.01)
            before, used = await _Stats.of(server.redis), cpu_seconds(server.pid)
            load = await loading
            used = cpu_seconds(server.pid) - used
            out, _ = await asyncio.wait_for(producer.communicate(), 60)
            after = await _Stats.of(server.redis)
        finally:
            if producer.returncode is None:
                producer.kill()
                await producer.wait()
    told = json.loads(out) if server.name == PRODUCT else {}
    said = int(asked.streams * asked.rate * asked.seconds)
    return Run(
        load,
        _delivered(load, asked, server),
        used,
        (after.reads - before.reads) / said,
        (after.commands - before.commands) / said,
        after.cpu_seconds - before.cpu_seconds,
        told.get("cpu_seconds", 0.0),
    )


async def on_the_floor(asked: Asked) -> Run:
    """Measure uvicorn alone, which makes the events itself."""
    with TemporaryDirectory() as folder:
        paths, ready = Path(folder, "paths"), Path(folder, "ready")
        _name(paths, [f"/stream/{number}" for number in range(asked.streams)])
        given = (str(asked.rate), str(asked.seconds), str(ready), str(asked.streams))
        async with floor("live", *given) as server:
            loading = asyncio.create_task(_load(server, asked, paths, ready))
            while not ready.exists() and not loading.done():
                await asyncio.sleep(0.01)
            used = cpu_seconds(server.pid)
            load = await loading
            return Run(load, _delivered(load, asked, server), cpu_seconds(server.pid) - used)


async def _load(server: Server, asked: Asked, paths: Path, ready: Path) -> Load:
    # The measurement window of sseload begins with the first event. The product sends its first event when a
    # reader connects.
    warm = WARM_SECONDS + (asked.readers / CONNECTS if server.name == PRODUCT else 0)
    # A connection ends with the last event of the load, because the terminal event has no timestamp.
    last = int(asked.rate * asked.seconds) + (server.name == PRODUCT)
    options = ("-w", str(warm), "-i", str(SETTLE_SECONDS), "-c", "data", "-R", str(ready))
    connects = ("-r", str(CONNECTS), "-e", str(last))
    longest = asked.seconds + 1
    load = await sseload(server.port, paths, asked.streams, asked.readers, longest, *options, *connects)
    if server.name == PRODUCT:
        assert load.exact, f"an event was missed, or came twice: {load.raw}"
    return load


def _delivered(load: Load, asked: Asked, server: Server) -> float:
    # the product's `start` events are not part of the load
    first = asked.readers if server.name == PRODUCT else 0
    return (load.events - first) / asked.seconds


def _name(paths: Path, names: Sequence[str]) -> None:
    paths.write_text("".join(f"{name}\n" for name in names))


@asynccontextmanager
async def sides() -> AsyncIterator[tuple[Server, Server]]:
    """Start the servers of the product and of the usual design."""
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(product()), await stack.enter_async_context(usual())


async def steady(ours: Server, theirs: Server, rounds: int) -> list[Figure]:
    """Measure 250 streams with one reader each, at 50 events a second in each stream."""
    what = f"{STREAMS} streams × {RATE:.0f}/s, a reader each"
    p50, p99 = Figure(f"{what}: p50", "ms", digits=2), Figure(f"{what}: p99", "ms", digits=2)
    p99.bar = "≤ 5 ms and ≤ 1/100 of the usual design's"
    p99.holds = lambda m: m[PRODUCT] <= 5 and m[PRODUCT] <= m[USUAL] / 100
    cpu = Figure("the same: CPU of the server a million events", "s")
    trips = Figure("the same: round trips to Redis an event", "", "≤ 1", lambda m: m[PRODUCT] <= 1, digits=2)
    asked = Asked(STREAMS, STREAMS, RATE, SECONDS)
    for _ in range(rounds):
        for side, run in (
            (PRODUCT, await over_redis(ours, asked)),
            (USUAL, await over_redis(theirs, asked)),
            (FLOOR, await on_the_floor(asked)),
        ):
            p50.note(side, run.load.p50)
            p99.note(side, run.load.p99)
            cpu.note(side, run.cpu_per_million)
            if side != FLOOR:
                trips.note(side, run.round_trips)
    return [p50, p99, cpu, trips]


async def fan_out(ours: Server, theirs: Server, rounds: int) -> list[Figure]:
    """Measure one stream with 5,000 readers."""
    what = f"one stream × {READERS_RATE:.0f}/s to {READERS:,} readers"
    asked = Asked(1, READERS, READERS_RATE, SECONDS)
    whole = asked.per_second
    got = Figure(f"{what}: delivered", "/s", f"all {whole:,.0f}", digits=0)
    got.holds = lambda m: m[PRODUCT] >= whole
    p99 = Figure(f"{what}: p99", "ms", "aim: ≤ 250 ms", lambda m: m[PRODUCT] <= 250)
    for _ in range(rounds):
        for side, run in (
            (PRODUCT, await over_redis(ours, asked)),
            (USUAL, await over_redis(theirs, asked)),
            (FLOOR, await on_the_floor(asked)),
        ):
            got.note(side, run.delivered)
            p99.note(side, run.load.p99)
    return [got, p99]


async def measure(rounds: int) -> list[Figure]:
    """Run both measurements."""
    async with sides() as (ours, theirs):
        return [*await steady(ours, theirs, rounds), *await fan_out(ours, theirs, rounds)]


async def main() -> None:
    """Print only the lines of this measurement."""
    for figure in await measure(3):
        print(figure.row())


if __name__ == "__main__":
    asyncio.run(main())
