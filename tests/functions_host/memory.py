"""Measure the worker's memory under many requests: `python -m tests.functions_host.memory`, by hand.

It is not part of `make test`, because it takes minutes. It warms the worker up, sends many more requests, and
exits with 1 if the resident memory has grown by more than GROWTH.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from tests.hosts import functions_environment, quick_app
from tests.support.azurite import Azurite
from tests.support.model_server import ModelServer
from tests.support.redis_server import RedisServer

from .client import FunctionsHost

GROWTH = 0.05
CONNECTIONS = 8
LOOKS = 10
REQUEST = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.functions_host.memory")
    parser.add_argument("--warm", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        async with ModelServer() as model, RedisServer() as store, Azurite() as azurite:
            environment = functions_environment(store.url, model, azurite.connection)
            environment |= {"GATEWAY_LOG_LEVEL": "warning"}
            async with FunctionsHost(quick_app(Path(folder)), environment) as host:
                return await _measured(host, options.warm, options.requests)


async def _measured(host: FunctionsHost, warm: int, requests: int) -> int:
    await _ask(host, warm)
    before = seen = _resident_kb(host.worker_pid)
    print(f"after {warm} requests: {before} kB", flush=True)
    for number in range(1, LOOKS + 1):
        await _ask(host, requests // LOOKS)
        seen = _resident_kb(host.worker_pid)
        growth = seen / before - 1
        print(f"and {number * requests // LOOKS} more: {seen} kB, {growth:+.1%}", flush=True)
    return int(seen > before * (1 + GROWTH))


async def _ask(host: FunctionsHost, times: int) -> None:
    """Send requests over some connections to the host's front, one after another on each."""
    port = int(host.url.rpartition(":")[2])
    await asyncio.gather(*(_connection(port, times // CONNECTIONS) for _ in range(CONNECTIONS)))


async def _connection(port: int, times: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(times):
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
    writer.close()
    await writer.wait_closed()


def _resident_kb(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
