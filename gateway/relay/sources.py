"""What readers of this process follow by one hub and one relay: logs of streams, and feeds of owners."""

from __future__ import annotations

from typing import Protocol

from gateway.protocol import Cursor
from gateway.store.feeds import Feeds
from gateway.store.log import Log
from gateway.store.record import Head, Piece


class Source(Protocol):
    """What is followed, by ids. Raises StoreUnavailable."""

    async def read(self, stream_id: str, after: Cursor | None) -> Piece:
        """The frames behind a cursor. Raises CursorLost where it does not stand there."""

    async def heads(self, stream_ids: list[str]) -> list[Head]:
        """The last event of each; all are on one node."""

    async def by_node(self, stream_ids: list[str]) -> list[list[str]]:
        """These ids, apart by the node that has them."""


class Sources:
    """Streams and feeds side by side; their ids are of different lengths."""

    def __init__(self, log: Log, feeds: Feeds) -> None:
        self._log = log
        self._feeds = feeds

    async def read(self, stream_id: str, after: Cursor | None) -> Piece:
        """As `Source.read`."""
        if Feeds.is_feed(stream_id):
            return await self._feeds.read(stream_id, after)
        return await self._log.read(stream_id, after)

    async def heads(self, stream_ids: list[str]) -> list[Head]:
        """As `Source.heads`; those of streams and of feeds are asked for apart."""
        if Feeds.is_feed(stream_ids[0]):
            return await self._feeds.heads(stream_ids)
        return await self._log.heads(stream_ids)

    async def by_node(self, stream_ids: list[str]) -> list[list[str]]:
        """As `Source.by_node`; streams and feeds are never together."""
        feeds = [one for one in stream_ids if Feeds.is_feed(one)]
        streams = [one for one in stream_ids if not Feeds.is_feed(one)]
        return [
            *(await self._log.by_node(streams) if streams else []),
            *(await self._feeds.by_node(feeds) if feeds else []),
        ]
