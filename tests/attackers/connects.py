"""Open thousands of connections to a process that is stopped for seconds at a time: none may be reset."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections import Counter
from urllib.parse import urlsplit

from tests.support.processes import GatewayProcess

EACH, A_SECOND, HELD_SECONDS, FREE_SECONDS = 5000, 1000, 3.0, 5.0
LIMIT_SECONDS = 60
ASK = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


async def run(rounds: int, each: int = EACH) -> Counter[str]:
    """Return the results of the connections, by the first line of the answer or the error."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    seen: Counter[str] = Counter()
    async with GatewayProcess("web", {"REDIS_URL": "redis://127.0.0.1:1"}) as web:
        parts = urlsplit(web.url)
        for number in range(rounds):
            holding = asyncio.create_task(_hold(web))
            asking = []
            loop = asyncio.get_running_loop()
            began = loop.time()
            for index in range(each):
                await asyncio.sleep(max(0.0, began + index / A_SECOND - loop.time()))
                asking.append(asyncio.create_task(_ask(parts.hostname or "", parts.port or 0)))
            seen.update(await asyncio.gather(*asking))
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)
            print(f"round {number + 1}: {dict(seen)}", flush=True)
    return seen


async def _hold(web: GatewayProcess) -> None:
    """Stop the process for some seconds and let it run for some, until cancelled."""
    try:
        while True:
            web.signal(signal.SIGSTOP)
            await asyncio.sleep(HELD_SECONDS)
            web.signal(signal.SIGCONT)
            await asyncio.sleep(FREE_SECONDS)
    finally:
        web.signal(signal.SIGCONT)


async def _ask(host: str, port: int) -> str:
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(ASK)
                return (await reader.readline()).decode().strip() or "closed without an answer"
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError) as error:
        return type(error).__name__
