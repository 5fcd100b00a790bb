"""Host and worker talk over two pipes: pickled tuples, each behind its length. In Azure it is gRPC.

Invariant: what was sent before a process ended arrives, whichever way it has ended.
"""

import asyncio
import os
import pickle
import struct
import threading
from typing import Any

_LENGTH = struct.Struct("!I")


def packed(message: tuple[Any, ...]) -> bytes:
    """The message as the other side's `receive` takes it."""
    body = pickle.dumps(message)
    return _LENGTH.pack(len(body)) + body


class Sender:
    """The worker's end: any thread may send, and waits while the pipe is full."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, *message: Any) -> None:
        """Raises BrokenPipeError when the host has gone."""
        left = memoryview(packed(message))
        with self._lock:
            while left:
                left = left[os.write(self._descriptor, left) :]


async def opened(descriptor: int) -> asyncio.StreamReader:
    """The reading end of a pipe."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    return reader


async def receive(reader: asyncio.StreamReader) -> tuple[Any, ...] | None:
    """The next message, None when the other side has gone."""
    try:
        [length] = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        message: tuple[Any, ...] = pickle.loads(await reader.readexactly(length))
    except asyncio.IncompleteReadError:
        return None
    return message
