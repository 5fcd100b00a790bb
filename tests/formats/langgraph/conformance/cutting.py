"""A proxy that breaks connections in the middle of an answer, as networks do."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from urllib.parse import urlsplit


class Cutter:
    """Cuts the first `times` answers to paths that match `path`, each after `after` bytes of its body: `rst` or `fin`."""

    def __init__(self, url: str, path: re.Pattern, after: int, how: str, times: int) -> None:
        at = urlsplit(url)
        self._to = at.hostname, at.port
        self._path, self._after, self._how, self.left = path, after, how, times
        self.cuts = 0

    async def __aenter__(self) -> Cutter:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            to_reader, to_writer = await asyncio.open_connection(*self._to)
        except OSError:
            writer.close()
            return
        state = {"cut": False, "path": ""}

        async def up() -> None:
            with contextlib.suppress(OSError):
                while data := await reader.read(65536):
                    if found := re.match(rb"[A-Z]+ (\S+) HTTP", data):
                        path = found[1].decode()
                        state["cut"] = self.left > 0 and bool(self._path.search(path))
                        state["seen"] = None
                    to_writer.write(data)
                    await to_writer.drain()
                to_writer.write_eof()

        async def down() -> None:
            head = b""
            with contextlib.suppress(OSError):
                while data := await to_reader.read(2048):
                    if state["cut"] and self.left > 0:
                        if state["seen"] is None:
                            head += data
                            at = head.find(b"\r\n\r\n")
                            if at >= 0:
                                state["seen"], head = len(head) - at - 4, b""
                        else:
                            state["seen"] += len(data)
                        if state["seen"] is not None and state["seen"] > self._after:
                            self.left -= 1
                            self.cuts += 1
                            over = state["seen"] - self._after
                            writer.write(data[: max(0, len(data) - over)])
                            await writer.drain()
                            await asyncio.sleep(0.05)
                            if self._how == "rst":
                                linger = struct.pack("ii", 1, 0)
                                writer.get_extra_info("socket").setsockopt(
                                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                                )
                                writer.transport.abort()
                            else:
                                writer.close()
                            return
                    writer.write(data)
                    await writer.drain()

        tasks = [asyncio.create_task(up()), asyncio.create_task(down())]
        try:
            await asyncio.wait({tasks[1]})
        finally:
            for task in tasks:
                task.cancel()
            for one in (writer, to_writer):
                with contextlib.suppress(Exception):
                    one.close()
