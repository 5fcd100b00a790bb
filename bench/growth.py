"""Measure how the cost grows with streams, readers, events in a stream, events a second, and processes.

The results are curves. Each curve goes on until a resource is full, so that it shows the breaking point.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from redis.asyncio import Redis

from bench import produce
from bench.live import Asked, over_redis
from bench.load import cpu_seconds, resident_kb, sseload
from bench.sides import Server, product
from gateway.redis.connection import Connection
from gateway.store.log import Log

SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Point:
    """One load and its cost. CPU is in cores; latencies are in milliseconds."""

    at: float
    per_second: float
    p50: float
    p99: float
    server: float
    redis: float
    commands: float = 0.0  # Redis commands for each event, including those in scripts
    kb: float = 0.0  # resident memory of the whole server


@dataclass(frozen=True, slots=True)
class Curve:
    """The cost as one quantity grows and the others stay constant."""

    name: str
    title: str
    grown: str
    points: Sequence[Point]


async def measure() -> list[Curve]:
    """Return all curves."""
    return [
        await _curve("streams", "streams × 20/s, a reader each", "streams", [
            (n, Asked(n, n, 20, SECONDS)) for n in (50, 100, 250, 500, 1000, 2000)
        ]),
        await _curve("rate", "250 streams, a reader each", "events a second in each", [
            (n, Asked(250, 250, n, SECONDS)) for n in (10, 25, 50, 100, 200, 400)
        ]),
        await _curve("readers", "one stream × 20/s", "readers", [
            (n, Asked(1, n, 20, SECONDS)) for n in (100, 500, 1000, 2000, 5000, 10_000)
        ]),
        await _length(),
        await _processes(),
    ]  # fmt: skip


async def _curve(name: str, title: str, grown: str, loads: list[tuple[float, Asked]]) -> Curve:
    points = []
    async with product() as server:
        for at, asked in loads:
            points.append(await _point(at, server, asked))
            print(title, points[-1], flush=True)
    return Curve(name, title, grown, points)


async def _point(at: float, server: Server, asked: Asked) -> Point:
    run = await over_redis(server, asked)
    return Point(
        at,
        run.delivered,
        run.load.p50,
        run.load.p99,
        run.cpu_seconds / asked.seconds,
        run.redis_cpu_seconds / asked.seconds,
        run.commands,
        resident_kb(server.pid),
    )


async def _length() -> Curve:
    """Measure one reader of a finished log: the time, and the memory in Redis."""
    points = []
    async with product() as server:
        for events in (100, 1000, 10_000, 100_000):
            points.append(await _replayed(server, events))
            print("replay", points[-1], flush=True)
    return Curve("length", "replay of a finished log, one reader", "events", points)


async def _replayed(server: Server, events: int) -> Point:
    assert server.redis is not None
    connection = Connection(server.redis.url, name="bench")
    log = Log(connection)
    stream = await produce.made(log)
    for _ in range(events // 100):
        for _ in range(100):
            stream.say()
        await produce.append(log, stream)
    await produce.finish(log, stream)
    await connection.close()
    with TemporaryDirectory() as folder:
        paths = Path(folder, "paths")
        paths.write_text(f"/stream/{stream.claim.record.id}\n")
        used = cpu_seconds(server.pid)
        load = await sseload(server.port, paths, 1, 1, 30, "-e", str(events + 1))
        used = cpu_seconds(server.pid) - used
    async with Redis.from_url(server.redis.url) as client:
        held = sum([await client.memory_usage(key) or 0 for key in log.keys(stream.claim.record.id)[:2]])
    took = float(load.raw["last_event_after_start_s"])
    return Point(events, events / took, took * 1000, took * 1000, used, 0.0, 0.0, held / 1024)


async def _processes() -> Curve:
    """Measure one stream with 4,000 readers, spread over a growing number of `web` processes on one Redis."""
    points = []
    for count in (1, 2, 4):
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(product())
            assert first.redis is not None
            others = [
                await stack.enter_async_context(product(REDIS_URL=first.redis.url)) for _ in range(count - 1)
            ]
            points.append(await _spread([first, *others]))
            print("processes", points[-1], flush=True)
    return Curve("processes", "one stream × 20/s to 4,000 readers", "processes", points)


async def _spread(servers: list[Server]) -> Point:
    """Give each process its share of the readers and a separate client."""
    readers, rate = 4000 // len(servers), 20.0
    first = servers[0]
    assert first.redis is not None
    with TemporaryDirectory() as folder:
        paths = Path(folder, "paths")
        ready = [Path(folder, f"ready{number}") for number in range(len(servers))]
        connection = Connection(first.redis.url, name="bench")
        log = Log(connection)
        stream = await produce.made(log)
        paths.write_text(f"/stream/{stream.claim.record.id}\n")
        last = int(rate * SECONDS)

        def reading(server: Server, flag: Path) -> Any:
            options = ("-w", "3", "-c", "data", "-e", str(last + 1), "-i", "5", "-R", str(flag))
            return sseload(server.port, paths, 1, readers, SECONDS + 10, *options)

        loads = [
            asyncio.create_task(reading(server, flag)) for server, flag in zip(servers, ready, strict=True)
        ]
        while not all(flag.exists() for flag in ready):
            await asyncio.sleep(0.02)
        used = [cpu_seconds(server.pid) for server in servers]
        await produce.produce([stream], rate, SECONDS)
        got = await asyncio.gather(*loads)
        used = [cpu_seconds(server.pid) - before for server, before in zip(servers, used, strict=True)]
        await produce.finish(log, stream)
        await connection.close()
    assert all(load.exact for load in got), got
    return Point(
        len(servers),
        sum(load.events for load in got) / SECONDS,
        max(load.p50 for load in got),
        max(load.p99 for load in got),
        sum(used) / SECONDS,
        0.0,
        0.0,
        sum(resident_kb(server.pid) for server in servers),
    )


def tables(curves: list[Curve]) -> list[str]:
    """Return one table for each curve."""
    lines: list[str] = []
    for curve in curves:
        names = ("events/s", "p50 ms", "p99 ms", "server, cores", "Redis, cores", "MB")
        lines += [f"**{curve.title}**", "", f"| {curve.grown} | " + " | ".join(names) + " |"]
        lines.append("|---" * (len(names) + 1) + "|")
        for one in curve.points:
            cells = (
                f"{one.at:,.0f}",
                f"{one.per_second:,.0f}",
                f"{one.p50:.1f}",
                f"{one.p99:.1f}",
                f"{one.server:.2f}",
                f"{one.redis:.2f}",
                f"{one.kb / 1024:.1f}",
            )
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def plain(curves: list[Curve]) -> list[dict[str, Any]]:
    """Return the curves as JSON values for the file."""
    whole: list[dict[str, Any]] = json.loads(json.dumps([asdict(curve) for curve in curves]))
    return whole
