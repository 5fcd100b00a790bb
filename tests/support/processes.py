"""A separate gateway process for a test: `python -m gateway MODE`. It is started, awaited, and stopped by its
pid."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from gateway.redis.embedded_keeper import KEEPER, SERVER, taken
from tests.support import forked

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 60
STOP_SECONDS = 30
LOG_BYTES = 4 * 1024 * 1024
SERVES = "Holdfast serves "
AUTHORITY = Path(__file__).with_name("authority.pem")  # it has signed no certificate; its key was not kept
INHERITED = ("HOME", "PATH", "LANG", "TMPDIR", "SSL_CERT_FILE")


IN_PRODUCTION = {"GATEWAY_DEVELOPMENT": "no"}  # without it, `all` on loopback shows exception texts of chains


async def store_ended(folder: Path) -> None:
    """Wait until the server of an embedded store and its keeper have ended. Raises TimeoutError."""
    for name in (KEEPER, SERVER):  # each process locks its own file while it runs
        if not (folder / name).exists():
            continue
        lock = os.open(folder / name, os.O_RDWR)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                while not taken(lock, fcntl.LOCK_EX):  # noqa: ASYNC110 - a wait in a thread could not be ended
                    await asyncio.sleep(0.01)
        finally:
            os.close(lock)


class GatewayProcess:
    """`async with GatewayProcess("web", {"REDIS_URL": …}) as web`; then `web.url`, `web.pid`, `web.log()`.

    The process inherits only HOME, PATH and similar variables, so no key or setting of the machine reaches
    it. Without a store in the environment it has its own store, in a folder that is removed with it. `anew`:
    start the command itself, not a fork of a process that has the imports already. `module`: the module to
    run in place of `gateway`; its first line of output must be the same.
    """

    url = ""

    def __init__(
        self, mode: str, environment: Mapping[str, str], *, anew: bool = False, module: str = "gateway"
    ) -> None:
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        self._mode = mode
        self._module = module
        self._anew = anew
        self._folder: Path | None = None
        if mode == "all" and not environment.keys() & {"REDIS_URL", "GATEWAY_STORE_DIR"}:
            self._folder = Path(tempfile.mkdtemp(prefix="holdfast-store-"))
            environment = {**environment, "GATEWAY_STORE_DIR": str(self._folder)}
        self._environment = {**inherited, "HOST": "127.0.0.1", "PORT": "0", **IN_PRODUCTION, **environment}
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop
        self.lines: list[str] = []

    async def __aenter__(self) -> Self:
        self._process = await forked.start(
            *(self._module, self._mode),
            environment=self._environment,
            cwd=REPOSITORY,
            stderr=self._stderr,
            anew=self._anew,
        )
        if self._mode != "worker":
            try:
                async with asyncio.timeout(START_SECONDS):
                    self.url = (await self.line(SERVES)).removeprefix(SERVES)
            except BaseException:
                await self.stop()
                raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def line(self, beginning: str) -> str:
        """Return the next line of stdout that begins with this text. Raises AssertionError if the process
        ends before."""
        assert self._process.stdout is not None
        while raw := await self._process.stdout.readline():
            self.lines.append(raw.decode().rstrip("\n"))
            if self.lines[-1].startswith(beginning):
                return self.lines[-1]
        raise AssertionError(f"the process ended without a line {beginning!r}:\n{self.log()}")

    def signal(self, number: int) -> None:
        """Send a signal to this process only."""
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait until the process ends by itself; return its exit code."""
        await asyncio.gather(self._process.wait(), self._rest())
        return self._process.returncode or 0

    async def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        self.signal(signal.SIGKILL)
        await self._process.wait()

    async def stop(self) -> int:
        """Send SIGTERM and return the exit code. After 30 s, send SIGKILL and raise TimeoutError."""
        if self._process.returncode is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.gather(self._process.wait(), self._rest())
        except TimeoutError:
            await self.kill()
            raise
        finally:
            if isinstance(self._process, forked.Forked):
                self._process.close()
            if not self._stderr.closed:
                self._last_log = self.log()
                self._stderr.close()
            if self._folder is not None:
                await store_ended(self._folder)
                shutil.rmtree(self._folder)
                self._folder = None
        return self._process.returncode or 0

    async def _rest(self) -> None:
        """Read the rest of its output, so that a full pipe does not block it."""
        assert self._process.stdout is not None
        while raw := await self._process.stdout.readline():
            self.lines.append(raw.decode().rstrip("\n"))

    def log(self) -> str:
        """Return all that it has written to stderr."""
        if self._stderr.closed:
            return self._last_log
        return os.pread(self._stderr.fileno(), LOG_BYTES, 0).decode(errors="replace")
