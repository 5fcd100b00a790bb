"""A store whose data is in a folder, and whose server all processes share that use the folder.

Who comes first starts a keeper (embedded_keeper.py), which starts the server; who comes later uses the same
server. It ends with its last user, however that one ends, SIGKILL included. Each write is in the append-only
file before it is answered, and on the disk within a second.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from gateway.redis.embedded_keeper import KEEPER, POLL_SECONDS, READY, USERS, asked, opened, taken

START_SECONDS = 150.0  # more than a keeper needs for a server that has much to read
LONGEST_SOCKET = 100  # bytes of its path; the system's own bound is 103 or 107
_STARTING = "start.lock"  # held while one process looks for the server, and starts it
_WHERE = "socket"  # a file with the path of the server's socket
_PROGRAM = str(Path(__file__).with_name("embedded_keeper.py"))


class FolderStore:
    """One process's use of the store in `folder`; `program` is the server that is started where none runs."""

    def __init__(self, folder: Path, program: str) -> None:
        self._folder = folder.resolve()
        self._program = program
        self._users = -1
        self._socket = ""
        self.is_joined = False  # whether another process had started the server

    @property
    def url(self) -> str:
        """As REDIS_URL has it."""
        return f"unix://{quote(self._socket)}"

    async def start(self) -> None:
        """Return when the server answers. Raises RuntimeError that says why there is none, and OSError."""
        self._make_folder()
        self._users = opened(str(self._folder / USERS))
        try:
            async with asyncio.timeout(START_SECONDS):
                await _locked(self._users, fcntl.LOCK_SH)  # waits for a server that is being ended
                starting = opened(str(self._folder / _STARTING))
                try:
                    await _locked(starting, fcntl.LOCK_EX)
                    await self._find()
                finally:
                    os.close(starting)
        except TimeoutError:
            self.stop()
            raise RuntimeError(f"the store in {self._folder} did not start in {START_SECONDS:g} s") from None
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Use it no longer; the last one's stop ends the server. A second call does nothing."""
        users, self._users = self._users, -1
        if users >= 0:
            os.close(users)

    def _make_folder(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        ignored = self._folder / ".gitignore"
        if not ignored.exists():
            ignored.write_text("# what people have asked and were answered\n*\n")

    async def _find(self) -> None:
        where = self._folder / _WHERE
        self._socket = where.read_text() if where.exists() else ""
        if await asyncio.to_thread(_answers, self._socket):
            self.is_joined = True
            if not self._is_kept():
                await self._keep()
            return
        self._socket = self._place()
        await self._keep(self._program, *_options(self._folder, self._socket))
        where.write_text(self._socket)

    def _is_kept(self) -> bool:
        lock = opened(str(self._folder / KEEPER))
        try:
            return not taken(lock, fcntl.LOCK_EX)
        finally:
            os.close(lock)

    def _place(self) -> str:
        """The path of the server's socket: in the folder, or in one of its own where that is too long."""
        inside = str(self._folder / "store.sock")
        if len(os.fsencode(inside)) <= LONGEST_SOCKET:
            return inside
        room = len(os.fsencode(tempfile.gettempdir())) < LONGEST_SOCKET - 30
        # Made with a name that nobody can guess, and mode 700.
        own = tempfile.mkdtemp(prefix="holdfast-", dir=None if room else "/tmp")  # noqa: S108
        return os.path.join(own, "store.sock")

    async def _keep(self, *command: str) -> None:
        """Start a keeper, and wait for its word."""
        keeper = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", _PROGRAM, self._socket, *command),
            cwd=self._folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert keeper.stdout is not None
        said = await keeper.stdout.read()
        await keeper.wait()
        if not said.endswith(READY):
            why = " | ".join(said.decode(errors="replace").split("\n")).strip(" |")
            raise RuntimeError(f"the store in {self._folder} does not start: {why}")


def _options(folder: Path, socket: str) -> Sequence[str]:
    """A server's: no port, a socket for this user alone, an append-only file whose torn end is cut off."""
    return (
        *("--port", "0", "--unixsocket", socket, "--unixsocketperm", "600", "--daemonize", "no"),
        *("--dir", str(folder), "--save", "", "--appendonly", "yes", "--appendfsync", "everysec"),
        *("--aof-load-truncated", "yes"),
    )


def _answers(socket: str) -> bool:
    return bool(socket) and asked(socket, b"PING\r\n").startswith((b"+PONG", b"-LOADING", b"-BUSY"))


async def _locked(descriptor: int, kind: int) -> None:
    while not taken(descriptor, kind):  # noqa: ASYNC110 - the system tells nobody of a lock that has become free
        await asyncio.sleep(POLL_SECONDS)
