"""The processes of a run: redis-server, the scripted model, gateways.

Ports are free loopback ports; each process is stopped by its id.
"""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import itertools
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import redis

PDEATHSIG = 1
STORES = 256


def _ends_with_us() -> None:
    """Make a child process end when the runner ends, for any reason."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGKILL)


class Process:
    """A process and its log."""

    def __init__(self, name: str, command: list[str], env: dict, folder: str, cwd: str | None = None) -> None:
        self.log = os.path.join(folder, f"{name}.log")
        with open(self.log, "wb") as out:
            self.popen = subprocess.Popen(
                command,
                env=env,
                cwd=cwd,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                preexec_fn=_ends_with_us,
            )

    def said(self) -> str:
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    async def says(self, pattern: str, seconds: float = 90) -> str:
        """Wait for a matching line; return its first group."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := re.search(pattern, self.said(), re.M):
                return found[1]
            if self.popen.poll() is not None:
                break
            await asyncio.sleep(0.05)
        raise RuntimeError(f"{os.path.basename(self.log)}: no line {pattern!r}\n{self.said()[-2000:]}")

    async def stop(self, seconds: float = 20) -> bool:
        """Send SIGTERM, and SIGKILL if the process does not end; return whether it has ended by itself."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self.popen.wait, seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            await asyncio.to_thread(self.popen.wait)
            return False
        return True


class Kit:
    """All processes of one run. `modules`: the modules of the cases; `paths`: Python's search paths for
    them."""

    def __init__(self, modules: Sequence[str], paths: Sequence[str]) -> None:
        self.modules, self.paths = modules, paths
        self.project = os.getcwd()
        self._folder = tempfile.TemporaryDirectory(prefix="chains-")
        self.folder = self._folder.name
        self._started: list[Process] = []
        self._number = itertools.count(1)
        self._stores = itertools.count(0)
        self._callers: asyncio.Task | None = None
        self.redis_port = 0
        self.model = ""

    async def __aenter__(self) -> Kit:
        await asyncio.gather(self._start_redis(), self._start_model())
        os.environ |= {
            "CHAINS_MODEL": self.model,
            "CHAINS_SCRATCH": self.folder,
            "LANGSMITH_TRACING": "false",
        }
        os.environ |= {
            "OPENAI_BASE_URL": f"{self.model}/direct/v1",
            "OPENAI_API_KEY": "x",
        }  # for chains that read these
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in reversed(self._started):
            await process.stop(5)
        self._folder.cleanup()

    def start(self, name: str, command: list[str], env: dict, cwd: str | None = None) -> Process:
        process = Process(f"{next(self._number)}-{name}", command, env, self.folder, cwd)
        self._started.append(process)
        return process

    async def _start_redis(self) -> None:
        for _ in range(5):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            options = [
                "--port",
                str(port),
                "--bind",
                "127.0.0.1",
                "--databases",
                str(STORES),
                "--save",
                "",
                "--dir",
                self.folder,
            ]
            process = self.start("redis", ["redis-server", *options], dict(os.environ))
            client = redis.Redis(port=port)
            for _ in range(100):
                try:
                    # it is the server of this run
                    if client.info("server")["process_id"] == process.popen.pid:
                        self.redis_port = port
                        return
                    break
                except redis.ConnectionError:
                    await asyncio.sleep(0.05)
            await process.stop()
        raise RuntimeError("no redis-server could be started")

    async def _start_model(self) -> None:
        env = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(self.paths)}
        process = self.start("model", [sys.executable, "-m", "tests.chains.mock_server"], env)
        port = await process.says(r"^(\d+)$")
        self.model = f"http://127.0.0.1:{port}"

    def store(self) -> str:
        """Return a Redis database that no other gateway of this run uses."""
        return f"redis://127.0.0.1:{self.redis_port}/{next(self._stores)}"

    def environment(self, store: str, own: dict) -> dict:
        ours = (
            "GATEWAY_",
            "OPENAI",
            "AZURE",
            "LANGSMITH",
            "LANGCHAIN",
            "LANGGRAPH",
            "OTEL_",
            "REDIS",
            "APPLICATIONINSIGHTS",
        )
        kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        return (
            kept
            | {
                "PYTHONPATH": os.pathsep.join(self.paths),
                "REDIS_URL": store,
                "HOST": "127.0.0.1",
                "PORT": "0",
                "GATEWAY_WORKER_PORT": "0",
                "GATEWAY_CHAINS": ",".join(self.modules),
                "GATEWAY_MODEL": "stub",
                "OPENAI_BASE_URL": f"{self.model}/gateway/v1",
                "OPENAI_API_KEY": "x",
                "GATEWAY_MAX_OWNER_STREAMS": "1000",
                "GATEWAY_MAX_OWNER_STARTS_PER_MINUTE": "100000",
                "LANGSMITH_TRACING": "false",
            }
            | own
        )

    async def gateway(self, role: str = "all", *, store: str = "", env: dict | None = None) -> Gateway:
        """Start a gateway of the checkout in the current folder; return when it serves."""
        own = self.environment(store or self.store(), env or {})
        process = self.start(f"gateway-{role}", [sys.executable, "-m", "gateway", role], own, self.project)
        said = await process.says(r"^Holdfast (?:serves|works; probes at) (http://\S+)$")
        return Gateway(process, said, own)

    async def callers(self) -> tuple[Gateway, dict[str, str]]:
        """Return a gateway that requires API keys, and the keys of alice and bob; all checks share it."""
        if self._callers is None:
            self._callers = asyncio.create_task(self._with_keys("alice", "bob"))
        return await self._callers

    async def _with_keys(self, *names: str) -> tuple[Gateway, dict[str, str]]:
        keys = {name: secrets.token_urlsafe(32) for name in names}
        lines = [f"{name} {hashlib.sha256(key.encode()).hexdigest()}" for name, key in keys.items()]
        file = Path(self.folder, "keys")
        await asyncio.to_thread(file.write_text, "\n".join(lines) + "\n")
        env = {"GATEWAY_AUTH": "keys", "GATEWAY_KEYS_FILE": str(file), "GATEWAY_TOKEN_KEYS": "k" * 40}
        return await self.gateway(env=env), keys


class Gateway:
    """A running gateway."""

    def __init__(self, process: Process, url: str, env: dict) -> None:
        self.process, self.url, self.env = process, url, env
        limits = httpx.Limits(max_connections=100)
        self.client = httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(90), limits=limits)

    async def lives(self) -> bool:
        """Return whether it still answers."""
        try:
            return (await self.client.get("/health", timeout=5)).status_code == 200
        except httpx.HTTPError:
            return False

    async def stop(self, seconds: float = 20) -> bool:
        """Stop it; return whether it has ended by itself."""
        await self.client.aclose()
        return await self.process.stop(seconds)
