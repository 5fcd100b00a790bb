"""`make run-functions`: the app in Azure Functions' own runtime, with all that it needs beside it.

Azurite carries the jobs, a private Redis the streams, and the small local model answers unless
one is configured. What is set in the environment wins: a REDIS_URL, a storage account, a model.

Invariant: everything started here is stopped here.
"""

import argparse
import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack

from gateway.embedded import EmbeddedRedis
from gateway.settings import Settings
from tests.support.azurite import Azurite
from workers.local_model import LocalModel

from .client import REPOSITORY

DEFAULTS = {
    "GATEWAY_QUEUE": "azure-storage",
    "GATEWAY_QUEUE_NAME": "holdfast-jobs",
    "GATEWAY_SWEEP_SCHEDULE": "*/10 * * * * *",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.functions_host.local")
    parser.add_argument("--port", type=int, default=7071)
    port: int = parser.parse_args().port
    try:
        return asyncio.run(_run(port))
    except KeyboardInterrupt:
        return 0


async def _run(port: int) -> int:
    async with AsyncExitStack() as stack:
        environment = {**DEFAULTS, **os.environ, **await _brought(stack)}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.functions_host", "--listen"),
            *("--port", str(port), "--app-dir", str(REPOSITORY)),
            cwd=REPOSITORY,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            if line := await process.stdout.readline():
                print(f"Holdfast serves {json.loads(line)['url']}, in Azure Functions' runtime", flush=True)
            return await process.wait()
        finally:
            process.stdin.close()
            await process.wait()


async def _brought(stack: AsyncExitStack) -> dict[str, str]:
    """What is not configured."""
    brought: dict[str, str] = {}
    if not os.environ.get("REDIS_URL"):
        redis = EmbeddedRedis()
        await redis.start()
        stack.push_async_callback(redis.stop)
        print(redis.notice, flush=True)
        brought["REDIS_URL"] = redis.url
    if not any(name.startswith("AzureWebJobsStorage") for name in os.environ):
        azurite = await stack.enter_async_context(Azurite())
        print(f"Queue: Azurite at {azurite.url}", flush=True)
        brought["AzureWebJobsStorage"] = azurite.connection
    settings = Settings.from_env({**os.environ, "GATEWAY_QUEUE": "redis"})
    if not settings.model_is_configured:
        model = LocalModel()
        stack.push_async_callback(model.stop)
        await model.start()
        print(f"Model: {model.model}, on this machine", flush=True)
        brought |= {"OPENAI_BASE_URL": model.base_url, "GATEWAY_MODEL": model.model}
        brought["OPENAI_API_KEY"] = "local"
    return brought


if __name__ == "__main__":
    sys.exit(main())
