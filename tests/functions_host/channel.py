"""The channel between host and worker: two pipes with pickled tuples, each after its length. In Azure it is
gRPC.

Invariant: a message that was sent before a process ended always arrives.
"""

import asyncio
import os
import pickle
import struct
import threading
from typing import Any

_LENGTH = struct.Struct("!I")


def packed(message: tuple[Any, ...]) -> bytes:
    """Return the message in the form that `receive` on the other side reads."""
    body = pickle.dumps(message)
    return _LENGTH.pack(len(body)) + body


class Sender:
    """The worker's end of the pipe. Any thread may send; a send waits while the pipe is full."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, *message: Any) -> None:
        """Send a message. Raises BrokenPipeError if the host has ended."""
        left = memoryview(packed(message))
        with self._lock:
            while left:
                left = left[os.write(self._descriptor, left) :]


async def opened(descriptor: int) -> asyncio.StreamReader:
    """Open the reading end of a pipe."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    return reader


async def receive(reader: asyncio.StreamReader) -> tuple[Any, ...] | None:
    """Return the next message, or None if the other side has ended."""
    try:
        [length] = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        message: tuple[Any, ...] = pickle.loads(await reader.readexactly(length))
    except asyncio.IncompleteReadError:
        return None
    return message
