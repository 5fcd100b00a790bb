"""`make run-functions`: run the app in Azure Functions' own runtime, with all services that it needs.

Azurite carries the jobs, a store in the app's folder has the streams, and the small local model answers
unless another is configured. Environment variables have priority: a REDIS_URL, a storage account, a model,
the PORT.

Invariant: every process started here is stopped here, in order: Ctrl-C reaches this process alone.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from gateway.cli.starting import example
from gateway.redis.embedded import FOLDER, EmbeddedRedis
from gateway.settings import Settings
from tests.support.azurite import Azurite
from workers.development.local_model import LocalModel

from .client import REPOSITORY

PORT = 7071
LOOPBACK = "127.0.0.1"
NOISE = (b"INFO uvicorn.", b"the worker exited with code 0")
DEFAULTS = {
    "GATEWAY_QUEUE": "azure-storage",
    "GATEWAY_QUEUE_NAME": "holdfast-jobs",
    "GATEWAY_SWEEP_SCHEDULE": "*/10 * * * * *",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.functions_host.local")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT") or PORT))
    parser.add_argument("--app", type=Path, default=REPOSITORY, metavar="DIR", help="the app's folder")
    given = parser.parse_args()
    port: int = given.port
    if reason := _taken(port):
        print(f"cannot listen on {LOOPBACK} port {port}: {reason}", file=sys.stderr)
        return 1
    return asyncio.run(_run(port, given.app.resolve()))


def _taken(port: int) -> str | None:
    """Return why no process can listen there, before any process is started."""
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError as error:
        return os.strerror(error.errno or 0)
    return None


async def _run(port: int, app: Path) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    stopped = asyncio.create_task(stop.wait(), name="stop")
    async with AsyncExitStack() as stack:
        environment = {**DEFAULTS, **os.environ, **await _brought(stack, app)}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.functions_host", "--listen"),
            *("--port", str(port), "--app-dir", str(app)),
            cwd=REPOSITORY,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        ended = asyncio.create_task(_serving(process), name="host")
        telling = asyncio.create_task(_told(process), name="what the host tells")
        await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        assert process.stdin is not None
        process.stdin.close()  # the end of stdin stops it
        code = await ended
        await telling
    stopped.cancel()
    return 0 if stop.is_set() else code


async def _serving(process: asyncio.subprocess.Process) -> int:
    """Print where the host serves; return its exit code when it has ended."""
    assert process.stdout is not None
    if line := await process.stdout.readline():
        url = json.loads(line)["url"]
        print(f"Holdfast serves {url}, in Azure Functions' runtime\n{example(url)}", flush=True)
    return await process.wait()


async def _told(process: asyncio.subprocess.Process) -> None:
    """Print the log of the host, without its server's lines about start and stop."""
    assert process.stderr is not None
    while line := await process.stderr.readline():
        if not line.startswith(NOISE):
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()


async def _brought(stack: AsyncExitStack, app: Path) -> dict[str, str]:
    """Start the services that are not configured; return their settings."""
    brought: dict[str, str] = {}
    if not os.environ.get("REDIS_URL"):
        redis = EmbeddedRedis(Path(os.environ.get("GATEWAY_STORE_DIR") or app / FOLDER))
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
        print(f"Model: {model.model}, on this machine: a toy, asked by the chain chat", flush=True)
        brought |= {"OPENAI_BASE_URL": model.base_url, "GATEWAY_MODEL": model.model}
        if not os.environ.get("GATEWAY_DEFAULT_CHAIN"):
            brought["GATEWAY_DEFAULT_CHAIN"] = "demo"
        brought["OPENAI_API_KEY"] = "local"
    return brought


if __name__ == "__main__":
    sys.exit(main())
