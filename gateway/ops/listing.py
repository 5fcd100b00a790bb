"""List the streams in the store, those that have not ended first. The work is bounded, also on a cluster.

Streams that have not ended are in the indexes of their buckets. Ended streams are in no index, only in their
own keys. They are searched by SCAN, up to a bound. So if there are very many streams, only some are listed,
and the result says that it is incomplete.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from gateway.protocol import ENDED, Status, is_stream_id
from gateway.protocol.errors import StoreUnavailable
from gateway.redis.commands import Commands
from gateway.store.log import Log
from gateway.store.record import Record

MOST_OPEN = 10_000  # most open streams that are read
MOST_SCANNED = 100_000  # most keys that are scanned, on all nodes together
SCAN_COUNT = 1000  # keys that one scan step covers
AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Row:
    """A stream, and the length of its log in bytes (0 after the retention)."""

    record: Record
    log_bytes: int


@dataclass(frozen=True, slots=True)
class Listing:
    """The result of `listing`. `complete` is False if more streams may match."""

    rows: list[Row]
    complete: bool


async def listing(redis: Commands, log: Log, *, owner: str, status: str, limit: int) -> Listing:
    """Return up to `limit` streams, open ones before ended ones, each newest first. Raises StoreUnavailable.

    An empty `owner` or `status` matches all streams. A stream that waits for an answer has the status
    `waiting`. Of the ended streams, those that the scan finds first are returned.
    """

    def fits(record: Record) -> bool:
        return owner in ("", record.owner) and status in ("", record.state)

    rows: list[Row] = []
    complete = True
    if status not in ENDED:
        ids = await log.due(MOST_OPEN + 1, all_of_them=True)
        found = await _rows(log, ids[:MOST_OPEN], fits)
        rows, complete = found[:limit], len(found) <= limit and len(ids) <= MOST_OPEN
    if status not in {Status.QUEUED, Status.RUNNING}:
        scan, ended = _Scan(redis), dict[str, Row]()
        async with aclosing(scan.ids()) as steps:
            async for ids in steps:
                found = await _rows(log, ids, lambda record: record.ended and fits(record))
                ended |= {row.record.id: row for row in found}  # a scan may return a key twice
                if len(rows) + len(ended) > limit:
                    break
        complete = complete and scan.at_end
        rows += sorted(ended.values(), key=_age)[: limit - len(rows)]
    return Listing(rows, complete)


class _Scan:
    """Scans the ids of all streams in steps, up to the bound."""

    def __init__(self, redis: Commands) -> None:
        self._redis = redis
        self._cut = False
        self.at_end = False

    async def ids(self) -> AsyncGenerator[list[str], None]:
        """Yield the ids that each step finds."""
        nodes = await self._redis.nodes()
        lost = 0
        for node in nodes:
            try:
                async with aclosing(self._keys(node, MOST_SCANNED // len(nodes))) as steps:
                    async for keys in steps:
                        ids = [key.decode().rpartition(":")[2] for key in keys]
                        yield [stream_id for stream_id in dict.fromkeys(ids) if is_stream_id(stream_id)]
            except StoreUnavailable:  # the other nodes are still scanned
                lost += 1
        if lost == len(nodes):
            raise StoreUnavailable
        self.at_end = not lost and not self._cut

    async def _keys(self, node: Commands, most: int) -> AsyncGenerator[list[bytes], None]:
        cursor: bytes | int = 0
        for _ in range(0, most, SCAN_COUNT):
            cursor, keys = await node.call("SCAN", cursor, "MATCH", "{??}:job:*", "COUNT", SCAN_COUNT)
            yield keys
            if int(cursor) == 0:
                return
        self._cut = True


async def _rows(log: Log, ids: list[str], fits: Callable[[Record], bool]) -> list[Row]:
    """Return the matching streams, the newest first."""
    rows: list[Row] = []
    for first in range(0, len(ids), AT_ONCE):
        some = ids[first : first + AT_ONCE]
        looks = await asyncio.gather(*(log.look(stream_id, "", any_owner=True) for stream_id in some))
        rows += [Row(look.record, look.log_end) for look in looks if look.record and fits(look.record)]
    return sorted(rows, key=_age)


def _age(row: Row) -> int:
    return -row.record.created_ms
