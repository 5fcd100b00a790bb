"""Memory for documents: what is made of whole logs in one process, from when a log is read until it was sent.

A share is taken before a log is read, by the log's length, and made smaller when it is known what is kept of
it. Whoever finds no room waits in turn, for a bounded time. A share ends with its last reference: with the
document, whoever has it, and however its request ends.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from gateway.protocol.errors import TooManyReaders
from gateway.runtime.json_pieces import size_of

PATIENCE_SECONDS = 10.0
# A text takes up to four bytes of memory for each of the log's: one wide character makes all of them wide.
BYTES_OF_A_BYTE = 4


class Share:
    """So many bytes of a room, as long as this object is referred to."""

    def __init__(self, room: Room, size: int) -> None:
        self._room = room
        self._size = size

    def keep(self, size: int) -> None:
        """Give back all but so many bytes; a share does not grow."""
        size = min(size, self._size)
        self._room.free(self._size - size)
        self._size = size

    def __del__(self) -> None:
        self.keep(0)


class Document(dict[str, Any]):
    """A JSON object, the bytes of memory that it takes, and the share for them."""

    size = 0
    share: Share | None = None

    @classmethod
    def of(cls, value: dict[str, Any], share: Share | None, size: int | None = None) -> Document:
        """The object; its share becomes as large as the object is. `size`: where that is known already."""
        made = cls(value)
        made.share = share
        made.size = size_of(value) if size is None else size
        if share is not None:
            share.keep(made.size)
        return made


class HeldList(list[Any]):
    """A JSON array, and the share of memory that it takes."""

    share: Share | None = None


class Room:
    """`most` bytes, of one event loop. A share that is larger than all of it is given alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def held(self) -> int:
        """Bytes that are given away."""
        return self._held

    async def take(self, size: int) -> Share:
        """A share, in the order in which they are asked for.

        Raises TooManyReaders when none is free within `PATIENCE_SECONDS`.
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
        """So many bytes are given back."""
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
