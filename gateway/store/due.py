"""Find the members of a per-bucket index (streams or webhooks) whose due time has come."""

from __future__ import annotations

import asyncio

from gateway.protocol.errors import StoreUnavailable
from gateway.redis.commands import Commands

BUCKETS = 256


async def due(redis: Commands, index: str, most: int, *, all_of_them: bool = False) -> list[str]:
    """Return up to `most` members from the named index of each bucket.

    Only members whose time has come are returned; `all_of_them` returns also the later ones. If a node of a
    cluster cannot be reached, the members of the other nodes are still returned. Raises StoreUnavailable if
    no node can be reached.
    """
    nodes = await redis.by_node([f"{{{number:02x}}}:{index}" for number in range(BUCKETS)])
    looks = (_due(redis, keys, most, all_of_them) for keys in nodes)
    found = await asyncio.gather(*looks, return_exceptions=True)
    lost = [one for one in found if isinstance(one, BaseException)]
    if len(lost) == len(found) or not all(isinstance(one, StoreUnavailable) for one in lost):
        raise lost[0]
    return [stream_id for one in found if isinstance(one, list) for stream_id in one]


async def _due(redis: Commands, keys: list[str], most: int, all_of_them: bool) -> list[str]:
    """Return the due members of one node. The clock of that node decides what is due."""
    until = "+inf"
    if not all_of_them:
        until = str(await clock_ms(redis, keys[0]))
    commands = [("ZRANGEBYSCORE", key, "-inf", until, "LIMIT", 0, most) for key in keys]
    return [item.decode() for found in await redis.call_all(commands) for item in found]


async def clock_ms(redis: Commands, near: str) -> int:
    """Return the clock, in milliseconds, of the node that has this key. Raises StoreUnavailable."""
    (seconds, micros), _ = await redis.call_all([("TIME",), ("EXISTS", near)])
    return int(seconds) * 1000 + int(micros) // 1000
