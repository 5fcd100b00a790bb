"""The host for tests: spawned, awaited, asked, stopped.

    async with FunctionsHost(app_dir, {"SETTING": "value"}) as host:
        await httpx_client.get(host.url + "/route")
        answer = await host.queue("jobs", b"message")

Invariant: when the block is left the process has ended; only this one is ever signalled.
"""

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx

from tests.support import forked

REPOSITORY = Path(__file__).resolve().parents[2]
START_LIMIT_S = 60
STOP_LIMIT_S = 10
CALL_LIMIT_S = 30
STDERR_TAIL_BYTES = 64 * 1024
LOG_BYTES = 16 * 1024 * 1024
CONSOLE = "[console] "


class HostStartError(RuntimeError):
    """The host did not start; the text is what it wrote to stderr."""


class FunctionsHost:
    url: str
    inner_url: str
    """Of the runtime's own server in the worker: only the host's front asks there."""
    worker_pid: int
    functions: list[dict[str, Any]]

    def __init__(
        self,
        app_dir: Path,
        environment: Mapping[str, str] | None = None,
        *,
        listen: bool = False,
        eager: bool = False,
        anew: bool = False,
        grace_s: float | None = None,
    ) -> None:
        """Add `environment` to this process's own environment. `listen`: poll queues and run timers. `eager`:
        poll after each answer to a POST too.

        `anew`: use a new interpreter, not a fork of a process that has the imports already. `grace_s`: time
        from the worker's SIGTERM to its SIGKILL.
        """
        self._arguments = (
            "--app-dir",
            str(app_dir),
            *(("--listen",) if listen else ()),
            *(("--eager",) if eager else ()),
            *(("--grace", str(grace_s)) if grace_s is not None else ()),
        )
        self._anew = anew
        self._environment = {**os.environ, **(environment or {})}

    async def __aenter__(self) -> Self:
        """Start the host. Raises HostStartError."""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in _stop
        self._process = await forked.start(
            *("tests.functions_host", *self._arguments),
            environment=self._environment,
            cwd=REPOSITORY,
            stderr=self._stderr,
            anew=self._anew,
        )
        try:
            ready = await self._ready_line()
        except BaseException:
            await self._stop()
            raise
        self.url, self.functions = ready["url"], ready["functions"]
        self.inner_url, self.worker_pid = ready["inner_url"] or "", ready["worker_pid"]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def queue(self, name: str, body: bytes, *, dequeue_count: int = 1) -> dict[str, Any]:
        """Deliver a message; return {"ok": true}, or {"ok": false, "error_type": …}."""
        path = f"/__host/queue/{name}?dequeue_count={dequeue_count}"
        return await self._control(path, body)

    async def timer(self, function_name: str) -> dict[str, Any]:
        """Run a timer function once, now."""
        return await self._control(f"/__host/timer/{function_name}", b"")

    async def kill(self) -> None:
        """Send SIGKILL, as when an instance is removed, and wait. The worker ends with the host."""
        self._process.kill()
        await self._process.wait()

    def terminate(self) -> None:
        """Send SIGTERM, as at a scale-in: the host stops the worker, and ends when the worker has ended."""
        os.kill(self.pid, signal.SIGTERM)

    async def wait(self, limit_s: float | None = STOP_LIMIT_S) -> int:
        """Return the exit code, within the time limit if there is one. Raises TimeoutError."""
        async with asyncio.timeout(limit_s):
            return await self._process.wait()

    def stderr(self) -> str:
        """Return the end of the log of the host, the runtime and the app."""
        end = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, end - STDERR_TAIL_BYTES))
        return self._stderr.read().decode("utf-8", "replace")

    def log(self) -> str:
        """Return the whole log."""
        return os.pread(self._stderr.fileno(), LOG_BYTES, 0).decode("utf-8", "replace")

    def console(self) -> list[str]:
        """Return the lines that the worker has printed: the platform's console log."""
        lines = self.log().splitlines()
        return [line.removeprefix(CONSOLE) for line in lines if line.startswith(CONSOLE)]

    async def _control(self, path: str, body: bytes) -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=self.url, timeout=CALL_LIMIT_S) as client:
            answer: dict[str, Any] = (await client.post(path, content=body)).json()
            return answer

    async def _ready_line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        async with asyncio.timeout(START_LIMIT_S):
            line = await self._process.stdout.readline()
        if not line:
            await self.wait()
            raise HostStartError(self.stderr())
        ready: dict[str, Any] = json.loads(line)
        return ready

    async def _stop(self) -> None:
        """Close stdin, then kill the process if it has not ended within the limit."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await self.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        finally:
            if isinstance(self._process, forked.Forked):
                self._process.close()
            self._stderr.close()
