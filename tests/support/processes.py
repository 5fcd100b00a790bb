"""A gateway process of a test's own: `python -m gateway MODE`, awaited, asked, stopped by its pid."""

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
AUTHORITY = Path(__file__).with_name("authority.pem")  # has signed nothing, and its key is nowhere
INHERITED = ("HOME", "PATH", "LANG", "TMPDIR", "SSL_CERT_FILE")


IN_PRODUCTION = {"GATEWAY_DEVELOPMENT": "no"}  # `all` on loopback would show the text of chains' exceptions


async def store_ended(folder: Path) -> None:
    """Wait until the server of an embedded store, and its keeper, have ended. Raises TimeoutError."""
    for name in (KEEPER, SERVER):  # each holds its own as long as it runs
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

    Only HOME, PATH and the like are inherited: no key or setting of the machine reaches the process.
    Without a store in the environment it has one of its own, in a folder that goes with it.
    `anew`: the command itself, not a fork of what has its imports already. `module`: what runs instead of
    `gateway`, which must say the same first line.
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
        """The next line of stdout that begins so. Raises AssertionError when the process ends before."""
        assert self._process.stdout is not None
        while raw := await self._process.stdout.readline():
            self.lines.append(raw.decode().rstrip("\n"))
            if self.lines[-1].startswith(beginning):
                return self.lines[-1]
        raise AssertionError(f"the process ended without a line {beginning!r}:\n{self.log()}")

    def signal(self, number: int) -> None:
        """Send a signal to this very process."""
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait until it ends by itself; its exit code."""
        await asyncio.gather(self._process.wait(), self._rest())
        return self._process.returncode or 0

    async def kill(self) -> None:
        """SIGKILL, and wait."""
        self.signal(signal.SIGKILL)
        await self._process.wait()

    async def stop(self) -> int:
        """SIGTERM, and the exit code. Raises TimeoutError, after a SIGKILL, when it takes over 30 s."""
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
        """What it still prints, so that a full pipe does not keep it."""
        assert self._process.stdout is not None
        while raw := await self._process.stdout.readline():
            self.lines.append(raw.decode().rstrip("\n"))

    def log(self) -> str:
        """All that it has written to stderr."""
        if self._stderr.closed:
            return self._last_log
        return os.pread(self._stderr.fileno(), LOG_BYTES, 0).decode(errors="replace")
