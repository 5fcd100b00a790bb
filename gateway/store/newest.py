"""Read pages of an index by time: a sorted set whose scores are milliseconds, the newest member first."""

from __future__ import annotations

from gateway.redis.commands import Commands

Entry = tuple[int, str]  # time in milliseconds, and the member


async def newest(redis: Commands, key: str, before: Entry | None, most: int) -> list[Entry]:
    """Return up to `most` members, the newest first.

    `before` is the last entry of the page before: only members after it in this order are returned, also
    those of the same millisecond.
    """
    found: list[Entry] = []
    last, at = "+inf" if before is None else str(before[0]), 0
    while len(found) < most:
        page = await redis.call(
            *("ZREVRANGEBYSCORE", key, last, "-inf", "WITHSCORES", "LIMIT", at, most),
        )
        pairs = zip(page[::2], page[1::2], strict=True)
        items = [(int(float(score)), member.decode()) for member, score in pairs]
        found += [item for item in items if before is None or item < before]
        at += most
        if len(items) < most:
            break
    return found[:most]
