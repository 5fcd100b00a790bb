"""Memory for documents that are made of whole logs in one process.

A share of this memory is taken before a log is read, according to the log's length. It is made smaller when
the size of the result is known. A caller that finds no room waits in turn, for a bounded time. A share ends
when nothing refers to it: it ends with the document, regardless of how the request ends.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from gateway.protocol.errors import TooManyReaders
from gateway.runtime.json_pieces import size_of

PATIENCE_SECONDS = 10.0
# Bytes of memory for each byte of the log. A text takes up to four, because one wide character makes all
# characters wide.
BYTES_OF_A_BYTE = 4


class Share:
    """A number of bytes of a room. They stay reserved as long as this object is referred to."""

    def __init__(self, room: Room, size: int) -> None:
        self._room = room
        self._size = size

    def keep(self, size: int) -> None:
        """Reduce the share to `size` bytes. A share never grows."""
        size = min(size, self._size)
        self._room.free(self._size - size)
        self._size = size

    def __del__(self) -> None:
        self.keep(0)


class Document(dict[str, Any]):
    """A JSON object, the number of bytes of memory that it takes, and the share for these bytes."""

    size = 0
    share: Share | None = None

    @classmethod
    def of(cls, value: dict[str, Any], share: Share | None, size: int | None = None) -> Document:
        """Return the object as a document. Its share is reduced to the size of the object.

        `size` is the size in bytes, if the caller already knows it.
        """
        made = cls(value)
        made.share = share
        made.size = size_of(value) if size is None else size
        if share is not None:
            share.keep(made.size)
        return made


class HeldList(list[Any]):
    """A JSON array, and the share of memory for it."""

    share: Share | None = None


class Room:
    """`most` bytes of memory, for one event loop.

    A share that would be larger than the room gets the whole room alone.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def held(self) -> int:
        """Bytes that are reserved by shares."""
        return self._held

    async def take(self, size: int) -> Share:
        """Return a share. Shares are given in the order of the calls.

        Raises TooManyReaders when there is no room within `PATIENCE_SECONDS`.
        """
        size = min(size, self._most)
        if self._waiting or self._held + size > self._most:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((size, turn))
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await turn
            except BaseException as error:
                if turn.done() and not turn.cancelled():
                    self.free(size)
                turn.cancel()
                self._admit()
                if isinstance(error, TimeoutError):
                    raise TooManyReaders("too many long documents are being read") from None
                raise
        else:
            self._held += size
        return Share(self, size)

    def free(self, size: int) -> None:
        """Give back `size` bytes."""
        self._held -= size
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if not turn.done():
                if self._held + size > self._most:
                    return
                self._held += size
                turn.set_result(None)
            self._waiting.popleft()
