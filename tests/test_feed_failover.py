"""A store that has lost the last events of a feed, and the answer to its reader, on a real Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.protocol.errors import CursorLost
from gateway.store.feeds import Feeds
from tests.test_projector import OWNER, USAGE, store_at

FEED = Feeds.id_of(OWNER)
Kept = dict[bytes, tuple[int, bytes]]


async def taken(redis: Redis, wanted: Callable[[bytes], bool]) -> Kept:
    """Return the present values of these keys."""
    held: Any = redis
    return {key: (await held.pttl(key), await held.dump(key)) for key in await held.keys("*") if wanted(key)}


async def gone_back(redis: Redis, kept: Kept, wanted: Callable[[bytes], bool]) -> None:
    """Restore the old values, as if a replica without the newer writes became the primary."""
    held: Any = redis
    for key in await held.keys("*"):
        if wanted(key):
            await held.delete(key)
    for key, (left, value) in kept.items():
        await held.restore(key, left, value)


def of_anybody(_: bytes) -> bool:
    return True


def of_the_owner(key: bytes) -> bool:
    return key.startswith(b"{%b}" % FEED.encode())


@pytest.mark.parametrize("more", [0, 1])
async def test_fault_120_events_that_one_server_has_lost_are_told_again_behind_a_reset(
    redis_url: str, redis: Redis, more: int
) -> None:
    async with store_at(redis_url) as store:
        stream_id = await store.started()
        await store.projector.settle(stream_id)
        await store.ended(stream_id, **USAGE)
        kept = await taken(redis, of_anybody)
        await store.projector.settle(stream_id)
        had = (await store.projector.feeds.read(FEED, None)).last
        await gone_back(redis, kept, of_anybody)
        for _ in range(more * 3):  # Events of other streams get the numbers of the lost events.
            await store.projector.settle(await store.started())
        with pytest.raises(CursorLost):  # The reader gets `reset` and then the feed from its beginning.
            await store.projector.feeds.read(FEED, had)
        await store.projector.settle(stream_id)
        assert await store.told(stream_id) == ["started", "stage", "ended"]
        piece = await store.projector.feeds.read(FEED, None)
        [ended] = [one for one in piece.frames.split(b"\n\n") if stream_id.encode() in one]
        assert b"event: ended" in ended
        assert await store.spent() == (7, 3)
        with pytest.raises(CursorLost):
            await store.projector.feeds.read(FEED, had)


async def test_fault_120_in_a_cluster_an_end_may_be_missing_and_the_stream_tells_it(
    redis_url: str, redis: Redis
) -> None:
    async with store_at(redis_url) as store:
        stream_id = await store.started()
        await store.projector.settle(stream_id)
        kept = await taken(redis, of_the_owner)
        await store.ended(stream_id, **USAGE)
        await store.projector.settle(stream_id)
        had = (await store.projector.feeds.read(FEED, None)).last
        await gone_back(redis, kept, of_the_owner)
        with pytest.raises(CursorLost):
            await store.projector.feeds.read(FEED, had)
        piece = await store.projector.feeds.read(FEED, None)
        assert piece.frames.count(b"event: ") == 1
        assert b"event: started" in piece.frames
        assert await store.spent() == (0, 0)
        record, _ = await store.log.record(stream_id)
        assert record is not None
        assert record.status == "done"
