"""Azurite's queue service on a free port. Azurite is Microsoft's own emulator of Storage. This module starts
it, waits until it is ready, and stops it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

MAIN = Path(__file__).resolve().parents[1] / "node/node_modules/azurite/dist/src/queue/main.js"
ACCOUNT = "devstoreaccount1"
# This key is public and the same in every Azurite (learn.microsoft.com, "Use the Azurite emulator").
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
LISTENS = b"successfully listens on "
START_SECONDS, STOP_SECONDS = 60, 20


def connection_string(url: str) -> str:
    """Return the connection string of the queue service at this URL."""
    return f"AccountName={ACCOUNT};AccountKey={KEY};QueueEndpoint={url}/{ACCOUNT}"


class Azurite:
    """`async with Azurite() as azurite`; then `azurite.connection`. Messages survive `stop` and `start`."""

    url = ""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._folder = tempfile.mkdtemp(prefix="azurite-")
        self._port = 0
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        shutil.rmtree(self._folder)

    @property
    def connection(self) -> str:
        """Return the connection string."""
        return connection_string(self.url)

    @property
    def endpoint(self) -> str:
        """Return the URL of the queue service, including the account."""
        return f"{self.url}/{ACCOUNT}"

    async def start(self) -> None:
        """Start Azurite. A second start uses the same port as the first."""
        self._process = await asyncio.create_subprocess_exec(
            "node",
            *(str(MAIN), "--queuePort", str(self._port), "--location", self._folder),
            *("--skipApiVersionCheck", "--disableTelemetry", "--silent", *self._arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C must not stop Azurite: what still runs needs the queue
        )
        assert self._process.stdout is not None
        said = b""
        async with asyncio.timeout(START_SECONDS):
            while LISTENS not in said:
                line = await self._process.stdout.readline()
                if not line:
                    raise AssertionError(f"Azurite did not start: {said.decode()}")
                said += line
        self.url = said.partition(LISTENS)[2].split()[0].decode()
        self._port = urlsplit(self.url).port or 0
        self._reading = asyncio.create_task(_read(self._process.stdout))

    async def stop(self) -> None:
        """Send SIGTERM to the process and wait for its end. Send SIGKILL after 20 s."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        if self._reading is not None:
            await self._reading


async def _read(stdout: asyncio.StreamReader) -> None:
    while await stdout.readline():
        continue
