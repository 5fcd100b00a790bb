"""What one hub and one relay follow for readers of this process: logs of streams, and feeds of owners."""

from __future__ import annotations

from typing import Protocol

from gateway.protocol import Cursor
from gateway.store.feeds import Feeds
from gateway.store.log import Log
from gateway.store.record import Head, Piece


class Source(Protocol):
    """A store of logs that can be followed by id. All methods raise StoreUnavailable."""

    async def read(self, stream_id: str, after: Cursor | None) -> Piece:
        """Return the frames after a cursor. Raises CursorLost if the log has no event at this cursor."""

    async def heads(self, stream_ids: list[str]) -> list[Head]:
        """Return the last event of each stream. All these streams must be on one node."""

    async def by_node(self, stream_ids: list[str]) -> list[list[str]]:
        """Return these ids in groups, one group for each node of the store."""


class Sources:
    """Streams and feeds as one source. The length of an id tells whether it is a stream or a feed."""

    def __init__(self, log: Log, feeds: Feeds) -> None:
        self._log = log
        self._feeds = feeds

    async def read(self, stream_id: str, after: Cursor | None) -> Piece:
        """Do what `Source.read` says."""
        if Feeds.is_feed(stream_id):
            return await self._feeds.read(stream_id, after)
        return await self._log.read(stream_id, after)

    async def heads(self, stream_ids: list[str]) -> list[Head]:
        """Do what `Source.heads` says. The ids must be all of streams or all of feeds."""
        if Feeds.is_feed(stream_ids[0]):
            return await self._feeds.heads(stream_ids)
        return await self._log.heads(stream_ids)

    async def by_node(self, stream_ids: list[str]) -> list[list[str]]:
        """Do what `Source.by_node` says. A group has only streams or only feeds."""
        feeds = [one for one in stream_ids if Feeds.is_feed(one)]
        streams = [one for one in stream_ids if not Feeds.is_feed(one)]
        return [
            *(await self._log.by_node(streams) if streams else []),
            *(await self._feeds.by_node(feeds) if feeds else []),
        ]
