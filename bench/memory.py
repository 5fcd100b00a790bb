"""Measure the memory of a `web` process after 10,000 streams that were read and have ended."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.load import resident_kb, sseload
from bench.report import Figure
from bench.sides import PRODUCT, Server, product
from tests.support.processes import REPOSITORY

STREAMS, AT_ONCE, EVENTS = 10_000, 500, 20
WARM = 2  # number of unmeasured batches of AT_ONCE, for imports, arenas and buffers
RATE = 100.0


async def measure(rounds: int) -> list[Figure]:
    """Measure one round."""
    before = Figure("memory of a process before", "MB")
    after = Figure(f"memory after {STREAMS:,} streams, read and ended", "MB", "within 5 % of before")
    async with product() as server:
        for _ in range(WARM):
            await _batch(server)
        first = resident_kb(server.pid) / 1024
        before.note(PRODUCT, first)
        for _ in range(STREAMS // AT_ONCE):
            await _batch(server)
        after.note(PRODUCT, resident_kb(server.pid) / 1024)
        after.holds = lambda m: m[PRODUCT] <= first * 1.05
    return [before, after]


async def _batch(server: Server) -> None:
    """Run AT_ONCE streams concurrently. Read each from its first event to its last."""
    assert server.redis is not None
    with TemporaryDirectory() as folder:
        paths, ready = Path(folder, "paths"), Path(folder, "ready")
        given = (str(AT_ONCE), str(RATE), str(EVENTS / RATE), str(paths), str(ready))
        producer = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.produce", server.redis.url, *given),
            cwd=REPOSITORY,
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            while not paths.exists():
                await asyncio.sleep(0.02)
            options = ("-i", "1", "-c", "data", "-R", str(ready))
            load = await sseload(server.port, paths, AT_ONCE, AT_ONCE, 10, *options)
            assert load.exact, load.raw
            assert await producer.wait() == 0
        finally:
            if producer.returncode is None:
                producer.kill()
                await producer.wait()


async def main() -> None:
    """Print only the lines of this measurement."""
    for figure in await measure(1):
        print(figure.row())


if __name__ == "__main__":
    asyncio.run(main())
