"""Streams that are due in an index of their buckets, by the time at which somebody should look."""

from __future__ import annotations

import asyncio

from gateway.protocol.errors import StoreUnavailable
from gateway.redis.commands import Commands

BUCKETS = 256


async def due(redis: Commands, index: str, most: int, *, all_of_them: bool = False) -> list[str]:
    """`most` of each bucket, by this index of it. `all_of_them`: also those whose time has not come.

    A node of a cluster that is out of reach does not hide the others' streams. Raises StoreUnavailable where
    all are.
    """
    nodes = await redis.by_node([f"{{{number:02x}}}:{index}" for number in range(BUCKETS)])
    looks = (_due(redis, keys, most, all_of_them) for keys in nodes)
    found = await asyncio.gather(*looks, return_exceptions=True)
    lost = [one for one in found if isinstance(one, BaseException)]
    if len(lost) == len(found) or not all(isinstance(one, StoreUnavailable) for one in lost):
        raise lost[0]
    return [stream_id for one in found if isinstance(one, list) for stream_id in one]


async def _due(redis: Commands, keys: list[str], most: int, all_of_them: bool) -> list[str]:
    """Of one node, by its own clock."""
    until = "+inf"
    if not all_of_them:
        until = str(await clock_ms(redis, keys[0]))
    commands = [("ZRANGEBYSCORE", key, "-inf", until, "LIMIT", 0, most) for key in keys]
    return [item.decode() for found in await redis.call_all(commands) for item in found]


async def clock_ms(redis: Commands, near: str) -> int:
    """The clock of the node that has this key. Raises StoreUnavailable."""
    (seconds, micros), _ = await redis.call_all([("TIME",), ("EXISTS", near)])
    return int(seconds) * 1000 + int(micros) // 1000
