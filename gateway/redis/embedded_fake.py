"""fakeredis on a TCP port of this process: a store for machines on which no server can run.

Only public names of fakeredis are used. fakeredis answers a blocking read wrongly. So this front end reads
without BLOCK, and reads again after each command of any client, until there is data or the time is over.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import hiredis
from fakeredis import FakeAsyncRedisConnection, FakeServer
from redis.exceptions import RedisError, ResponseError

MOST_UNREAD_BYTES = 64 * 1024 * 1024  # limit of answers for one client that does not read
# Limit of the commands of one client that wait to be run.
MOST_AHEAD = 1000
_READS = (b"XREAD", b"XREADGROUP")
_SUBSCRIBES = (b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE")


class FakeStore:
    """fakeredis in a thread with its own event loop, so that any event loop may use it."""

    def __init__(self) -> None:
        self.data = FakeServer(version=(7,))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._changed = asyncio.Event()
        self._own = FakeAsyncRedisConnection(server=self.data, protocol=2)
        self._asking = asyncio.Lock()

    async def start(self) -> str:
        """Start to listen on loopback, and return the URL."""
        self._thread.start()
        opening = asyncio.start_server(self._accept, "127.0.0.1", 0)
        opened = asyncio.run_coroutine_threadsafe(opening, self._loop)
        self._listening: asyncio.Server = await asyncio.wrap_future(opened)
        return f"redis://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}/0"

    async def stop(self) -> None:
        """Close the connections of all clients, and delete all data."""
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._close(), self._loop))
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)
        self._loop.close()

    def changed(self) -> None:
        """Wake all clients that wait: there may be new data."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self) -> None:
        """Wait for the next command of any client."""
        await self._changed.wait()

    async def forget(self, client: int) -> None:
        """Remove a client that has disconnected.

        Otherwise fakeredis would keep the client and everything that is published to it.
        """
        async with self._asking:
            await self._own.send_command("CLIENT", "KILL", "ID", str(client))
            await self._own.read_response()

    async def _close(self) -> None:
        self._listening.close()
        for writer in self._clients.values():
            writer.transport.abort()  # each client then ends by itself
        await asyncio.gather(*self._clients, return_exceptions=True)
        await self._listening.wait_closed()
        await self._own.disconnect()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._client(reader, writer))
        self._clients[task] = writer
        task.add_done_callback(self._clients.pop)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _Client(self, writer)
        await client.come()
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(client.feed(reader))
                both.create_task(client.answer())
        except* (ConnectionError, hiredis.ProtocolError):
            # The client has disconnected, or does not speak RESP. There is nobody to send an error to.
            pass
        finally:
            writer.close()
            await client.leave()


class _Client:
    """The server's side of one client: its commands in order, and the messages of its subscriptions."""

    def __init__(self, store: FakeStore, writer: asyncio.StreamWriter) -> None:
        self._store = store
        self._writer = writer
        self._fake = FakeAsyncRedisConnection(server=store.data, protocol=2)
        self._commands: asyncio.Queue[list[bytes]] = asyncio.Queue(MOST_AHEAD)
        self._protocol = 2
        self._id = 0

    async def come(self) -> None:
        """Register as a client of fakeredis."""
        self._id = await self._asked([b"CLIENT", b"ID"])

    async def feed(self, reader: asyncio.StreamReader) -> None:
        """Read commands, until the client disconnects. Then raise ConnectionResetError."""
        parser = hiredis.Reader()
        while piece := await reader.read(65536):
            parser.feed(piece)
            while (command := parser.gets()) is not False:
                await self._commands.put(command)
        raise ConnectionResetError("the client left")

    async def answer(self) -> None:
        """Answer each command. After its first subscription the client also gets published messages."""
        is_subscribed = False
        async with asyncio.TaskGroup() as tasks:
            while True:
                command = await self._commands.get()
                name = command[0].upper()
                if name == b"HELLO" and len(command) > 1:
                    self._protocol = int(command[1])
                if name in _SUBSCRIBES and not is_subscribed:
                    is_subscribed = True
                    tasks.create_task(self._pass_on())
                if is_subscribed:
                    await self._fake.send_command(*command)
                elif name in _READS:
                    self._write(await self._read(command))
                else:
                    self._write(await self._asked(command))
                self._store.changed()

    async def leave(self) -> None:
        """Disconnect from fakeredis."""
        await self._fake.disconnect()
        await self._store.forget(self._id)

    async def _asked(self, command: Sequence[bytes]) -> Any:
        await self._fake.send_command(*command)
        return await self._heard()

    async def _heard(self) -> Any:
        try:
            return await self._fake.read_response(disable_decoding=True, timeout=None)
        except ResponseError as error:
            return error

    async def _pass_on(self) -> None:
        while True:
            self._write(await self._heard())

    async def _read(self, command: list[bytes]) -> Any:
        """Run XREAD or XREADGROUP. If the call is cancelled while it waits, no message was taken."""
        names = [part.upper() for part in command]
        until = None
        if b"BLOCK" in names[: names.index(b"STREAMS")]:
            at = names.index(b"BLOCK")
            seconds = int(command[at + 1]) / 1000
            command = command[:at] + command[at + 2 :]
            until = asyncio.get_running_loop().time() + seconds if seconds else float("inf")
        while not (answer := await self._asked(command)) and until is not None:
            left = until - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self._store.change(), left if left != float("inf") else None)
            except TimeoutError:
                break
        return answer or None

    def _write(self, answer: Any) -> None:
        self._writer.write(_encoded(answer, self._protocol))
        if self._writer.transport.get_write_buffer_size() > MOST_UNREAD_BYTES:
            self._writer.transport.abort()


def _encoded(value: Any, protocol: int) -> bytes:
    match value:
        case None:
            return b"_\r\n" if protocol == 3 else b"$-1\r\n"
        case RedisError():
            code = getattr(value, "status_code", None)
            text = f"{code} {value}" if code else str(value)
            return b"-%s\r\n" % " ".join(text.splitlines()).encode()
        case int():
            return b":%d\r\n" % value
        case float():
            return f",{value:.17g}\r\n".encode()
        case str() | bytes():
            blob = value.encode() if isinstance(value, str) else value
            return b"$%d\r\n%s\r\n" % (len(blob), blob)
        case dict():
            flat = (_encoded(item, protocol) for pair in value.items() for item in pair)
            return b"%%%d\r\n" % len(value) + b"".join(flat)
        case list() | tuple():
            return b"*%d\r\n" % len(value) + b"".join(_encoded(item, protocol) for item in value)
    raise TypeError(f"no wire form for a reply of type {type(value).__name__}")
