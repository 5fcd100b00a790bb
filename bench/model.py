"""The model: a scripted server in a separate process, so that its work counts for neither side.

`python -m bench.model` prints its URL and serves until its stdin is closed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.model_server import ModelServer
from tests.support.processes import REPOSITORY


@asynccontextmanager
async def model() -> AsyncIterator[dict[str, str]]:
    """Start the server; yield the environment for a process that uses it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.model"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        url = (await process.stdout.readline()).decode().strip()
        assert url, "the model's server ended before it began"
        yield {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "bench", "GATEWAY_MODEL": "scripted"}
    finally:
        process.stdin.close()
        await process.wait()


async def main() -> None:
    """Serve until stdin is closed."""
    async with ModelServer() as server:
        print(server.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
