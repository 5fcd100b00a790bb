"""A private Redis for a first run, when no address of a real one is given.

Prefers the `redis-server` on PATH, on a UNIX socket in a directory only we can enter; otherwise
fakeredis behind a small TCP front of our own. The front exists because `fakeredis.TcpFakeServer`
drops the connection on every error reply and on large replies, sends blobs as status lines, and
answers `XREADGROUP ... BLOCK` at once.

Invariant: what `start` created is gone after `stop`, and also when this process is killed: the
guard waits on a pipe from us, then ends the server and removes the directory.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import threading
from asyncio.subprocess import PIPE
from collections import deque
from typing import Any, Literal
from urllib.parse import quote

from fakeredis import FakeServer
from fakeredis._helpers import SimpleError, SimpleString
from fakeredis._socket import AsyncFakeSocket
from redis.asyncio import Redis

OLDEST_SERVER = (6, 2)  # XAUTOCLAIM, which the queue needs, is new in it
START_SECONDS, STOP_SECONDS = 15.0, 5.0
_FLEETING = "in memory only: all streams are gone when this process stops"
_NOT_FOR_LOAD = "One process only; for trying out, not for load."
MOST_UNREAD = 100_000  # replies held for one client that does not read

# Nothing is worth saving, so KILL: a script that runs cannot delay it. Only the server keeps our
# stdout, so that its end of file means that the server ended.
_GUARD = (
    'dir=$1; shift; "$@" 2>&1 & child=$!; exec >/dev/null 2>&1; '
    'cat >/dev/null; kill -KILL "$child"; wait "$child"; rm -rf "$dir"'
)


class EmbeddedRedis:
    """One Redis that lives exactly as long as this process needs it."""

    url: str = ""
    kind: Literal["redis-server", "fakeredis"] = "redis-server"  # until it turns out otherwise
    notice: str = ""
    _running: _PrivateServer | _FakeFront | None = None

    async def start(self) -> None:
        """Return when it answers; raise, with nothing left behind, when it does not."""
        why = "no redis-server is on PATH"
        if program := shutil.which("redis-server"):
            major, minor = await self._start_server(program)
            if (major, minor) >= OLDEST_SERVER:
                return
            why = f"the redis-server on PATH is {major}.{minor}, too old"
            await self.stop()
        self._running = front = _FakeFront()
        self.url = f"redis://127.0.0.1:{await front.start()}/0"
        self.kind = "fakeredis"
        self.notice = f"Embedded Redis: fakeredis ({why}), {_FLEETING}. {_NOT_FOR_LOAD}"

    async def stop(self) -> None:
        """End it and remove what it left; a second call does nothing."""
        running, self._running = self._running, None
        if running is not None:
            await running.stop()

    async def _start_server(self, program: str) -> tuple[int, int]:
        self._running = server = _PrivateServer()
        try:
            async with asyncio.timeout(START_SECONDS):
                self.url = await server.start(program)
                version = await _version(self.url)
        except BaseException:
            await self.stop()
            raise
        self.notice = f"Embedded Redis: a private redis-server, {_FLEETING}."
        return version


async def _version(url: str) -> tuple[int, int]:
    async with Redis.from_url(url) as client:
        await client.ping()
        major, minor, *_ = str((await client.info("server"))["redis_version"]).split(".")
    return int(major), int(minor)


class _PrivateServer:
    """`redis-server` under the guard."""

    def __init__(self) -> None:
        roomy = len(os.fsencode(tempfile.gettempdir())) < 70  # a socket's path may have 103 bytes
        self._dir = tempfile.mkdtemp(prefix="holdfast-", dir=None if roomy else "/tmp")  # noqa: S108
        self._guard: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._last_lines: deque[str] = deque(maxlen=20)

    async def start(self, program: str) -> str:
        path = os.path.join(self._dir, "redis.sock")
        options = ["--port", "0", "--unixsocket", path, "--unixsocketperm", "600", "--save", ""]
        options += ["--appendonly", "no", "--daemonize", "no", "--dir", self._dir]
        command = ("sh", "-c", _GUARD, "sh", self._dir, program, *options)
        # Its own session: Ctrl-C reaches us first, and we still need Redis to drain.
        self._guard = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, start_new_session=True
        )
        ready = asyncio.Event()
        self._reading = asyncio.create_task(self._read(self._guard, ready))
        await ready.wait()
        if self._reading.done():
            raise RuntimeError("redis-server ended at start: " + " | ".join(self._last_lines))
        return f"unix://{quote(path)}"

    async def _read(self, guard: asyncio.subprocess.Process, ready: asyncio.Event) -> None:
        """Read to the end, so that the server never blocks on a full pipe."""
        if guard.stdout:
            async for line in guard.stdout:
                self._last_lines.append(line.decode(errors="replace").strip())
                if b"ready to accept connections" in line.lower():
                    ready.set()
        asyncio.get_running_loop().call_soon(ready.set)  # when this task counts as done

    async def stop(self) -> None:
        if (guard := self._guard) and guard.stdin:
            guard.stdin.close()
            try:
                await asyncio.wait_for(guard.wait(), STOP_SECONDS)
            except TimeoutError:
                os.killpg(guard.pid, signal.SIGKILL)
                await guard.wait()
        if self._reading:
            await self._reading
        # The guard has usually done it; where it was killed or never started, we do.
        await asyncio.to_thread(shutil.rmtree, self._dir, ignore_errors=True)


class _FakeFront:
    """fakeredis on a TCP port, in a thread with its own loop, so that any loop may use it."""

    def __init__(self) -> None:
        self._data = FakeServer(version=(7,))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def start(self) -> int:
        self._thread.start()
        opening = asyncio.start_server(self._accept, "127.0.0.1", 0)
        opened = asyncio.run_coroutine_threadsafe(opening, self._loop)
        self._listening: asyncio.Server = await asyncio.wrap_future(opened)
        return int(self._listening.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._close(), self._loop))
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)
        self._loop.close()

    async def _close(self) -> None:
        self._listening.close()
        for writer in self._clients.values():
            writer.transport.abort()  # each client then takes its own way out
        await asyncio.gather(*self._clients, return_exceptions=True)
        await self._listening.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._client(reader, writer))
        self._clients[task] = writer
        task.add_done_callback(self._clients.pop)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _FakeClient(self._data, writer)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(client.feed(reader))
                both.create_task(client.answer())
        except* ConnectionError:
            pass  # the client left: there is nobody to tell
        finally:
            writer.close()
            await client.leave()


class _FakeClient(AsyncFakeSocket):
    """One client's end inside fakeredis, with what 2.40 gets wrong put right."""

    def __init__(self, data: FakeServer, writer: asyncio.StreamWriter) -> None:
        super().__init__(data, 0, client_class=Redis)
        self._writer = writer

    def _xreadgroup(self, consumer: Any, groups: Any, *rest: Any) -> dict[bytes, Any] | None:
        # Nothing new must be None, which keeps a blocking read waiting; and a read that is not
        # told that it is the first (the last argument) does not drop what it has just taken.
        rest = (*rest[:-1], False)
        return super()._xreadgroup(consumer, groups, *rest) or None

    def _decode_result(self, result: Any) -> Any:
        return result  # status and error replies keep their type, for `_encode`

    def put_response(self, msg: Any) -> None:
        super().put_response(msg)
        if self.responses and self.responses.qsize() > MOST_UNREAD:
            self._writer.transport.abort()

    async def feed(self, reader: asyncio.StreamReader) -> None:
        while piece := await reader.read(65536):
            self.sendall(piece)
        raise ConnectionResetError("the client left")

    async def answer(self) -> None:
        while True:
            reply = await self.responses.get()
            self._writer.write(_encode(reply, self._client_info.protocol_version))
            await self._writer.drain()

    async def leave(self) -> None:
        """End a blocking read first: it must take nothing for a client that has left."""
        while self._blocked:
            with self._server.lock:
                self._unblock_reason = b"timeout"
                self._db.wake_all()
            await self.responses.get()
        self.close()


def _encode(value: Any, protocol: int) -> bytes:
    match value:
        case None:
            return b"_\r\n" if protocol == 3 else b"$-1\r\n"
        case SimpleString():
            return b"+%s\r\n" % value.value
        case SimpleError():
            return b"-%s\r\n" % " ".join(value.value.splitlines()).encode()
        case int():
            return b":%d\r\n" % value
        case float():
            return f",{value:.17g}\r\n".encode()
        case str() | bytes():
            blob = value.encode() if isinstance(value, str) else value
            return b"$%d\r\n%s\r\n" % (len(blob), blob)
        case dict():
            flat = (_encode(item, protocol) for pair in value.items() for item in pair)
            return b"%%%d\r\n" % len(value) + b"".join(flat)
        case list():
            return b"*%d\r\n" % len(value) + b"".join(_encode(item, protocol) for item in value)
    raise TypeError(f"no wire form for a reply of type {type(value).__name__}")
