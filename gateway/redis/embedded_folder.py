"""A store with its data in a folder. All processes that use the folder share one server.

The first process starts a keeper (embedded_keeper.py), which starts the server. Later processes use the same
server. The server ends with its last user, however that process ends, SIGKILL included. Each write is in the
append-only file before it is answered, and on the disk within a second.
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

# Longer than a keeper needs for a server that must read much data.
START_SECONDS = 150.0
# Limit of the socket's path in bytes; the system's own limit is 103 or 107.
LONGEST_SOCKET = 100
# Locked while one process looks for the server and starts it.
_STARTING = "start.lock"
_WHERE = "socket"  # a file with the path of the server's socket
_PROGRAM = str(Path(__file__).with_name("embedded_keeper.py"))


class FolderStore:
    """The use of the store in `folder` by one process.

    `program` is the server's program, which is started if no server runs.
    """

    def __init__(self, folder: Path, program: str) -> None:
        self._folder = folder.resolve()
        self._program = program
        self._users = -1
        self._socket = ""
        self.is_joined = False  # whether another process has started the server

    @property
    def url(self) -> str:
        """The URL of the server, in the form of REDIS_URL."""
        return f"unix://{quote(self._socket)}"

    async def start(self) -> None:
        """Return when the server answers.

        Raises RuntimeError with the reason if there is no server, and OSError.
        """
        self._make_folder()
        self._users = opened(str(self._folder / USERS))
        try:
            async with asyncio.timeout(START_SECONDS):
                await _locked(self._users, fcntl.LOCK_SH)  # waits for a server that is being stopped
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
        """Stop using the store. When the last user stops, the server ends. A second call does nothing."""
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
        """Return the path of the server's socket.

        The socket is in the folder, or in a folder of its own if the path would be too long.
        """
        inside = str(self._folder / "store.sock")
        if len(os.fsencode(inside)) <= LONGEST_SOCKET:
            return inside
        room = len(os.fsencode(tempfile.gettempdir())) < LONGEST_SOCKET - 30
        # The name cannot be guessed, and the mode is 700.
        own = tempfile.mkdtemp(prefix="holdfast-", dir=None if room else "/tmp")  # noqa: S108
        return os.path.join(own, "store.sock")

    async def _keep(self, *command: str) -> None:
        """Start a keeper, and wait until it reports success or an error."""
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
    """Return the server's options.

    These are: no port, a socket for this user only, an append-only file whose torn end is cut off.
    """
    return (
        *("--port", "0", "--unixsocket", socket, "--unixsocketperm", "600", "--daemonize", "no"),
        *("--dir", str(folder), "--save", "", "--appendonly", "yes", "--appendfsync", "everysec"),
        *("--aof-load-truncated", "yes"),
    )


def _answers(socket: str) -> bool:
    return bool(socket) and asked(socket, b"PING\r\n").startswith((b"+PONG", b"-LOADING", b"-BUSY"))


async def _locked(descriptor: int, kind: int) -> None:
    # The system sends no notice when a lock becomes free.
    while not taken(descriptor, kind):  # noqa: ASYNC110
        await asyncio.sleep(POLL_SECONDS)
