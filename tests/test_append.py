"""The append script on a real Redis.

Checked: the fence, the log position, and each answer when the same call is repeated.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from gateway.protocol import sse
from gateway.store.log import Log
from tests.model.streams import (
    CANCEL_TAG,
    DONE,
    LEASE_MS,
    START_TAG,
    Pen,
    Stream,
    ids_of,
    open_log,
    said,
    text_of,
    token,
)


@pytest.fixture
async def log(redis_url: str) -> AsyncIterator[Log]:
    async with open_log(redis_url) as log:
        yield log


async def end_lease(redis: Redis, stream: Stream) -> None:
    await redis.hset(stream.keys[0], "lease_end_ms", 1)


async def test_ok_then_duplicate(log: Log, redis: Redis) -> None:
    stream = await Stream.create(log)
    pen = await stream.pen()
    position = pen.end
    assert (await pen.write(said("a"), said("b"), **{"ckpt:answer": "1"})).word == "ok"
    before = await text_of(redis, stream), await redis.hgetall(stream.keys[0])
    assert (await pen.put(position, pen.wrote, **{"ckpt:answer": "2"})).word == "duplicate"
    assert (await text_of(redis, stream), await redis.hgetall(stream.keys[0])) == before


async def test_a_retry_may_not_have_grown(log: Log, redis: Redis) -> None:
    stream = await Stream.create(log)
    pen = await stream.pen()
    position = pen.end
    await pen.write(said("a"))
    before = await text_of(redis, stream)
    assert (await pen.put(position, pen.wrote * 2)).word == "fenced"
    assert (await pen.put(position, pen.wrote.replace(b"a", b"b"))).word == "fenced"
    assert await text_of(redis, stream) == before


async def test_fault_3_a_zombie_is_fenced_checkpoints_included(log: Log, redis: Redis) -> None:
    stream = await Stream.create(log)
    zombie = await stream.pen(1)
    await end_lease(redis, stream)
    await stream.pen(2)
    before = await text_of(redis, stream), await redis.hgetall(stream.keys[0])
    for status in ("", "done", "queued"):
        assert (await zombie.write(said("late"), status=status, **{"ckpt:answer": "x"})).word == "fenced"
    assert (await zombie.put(zombie.end, b"", **{"ckpt:answer": "x"})).word == "fenced"
    assert (await zombie.release()).word == "fenced"
    assert (await text_of(redis, stream), await redis.hgetall(stream.keys[0])) == before


async def test_fault_8_lost_says_where_the_log_ends(log: Log, redis: Redis) -> None:
    stream = await Stream.create(log)
    pen = await stream.pen()
    begin = pen.end
    await pen.write(said("a"))
    await redis.set(stream.keys[1], (await text_of(redis, stream))[:begin], keepttl=True)
    answer = await pen.write(said("b"))
    assert (answer.word, answer.number) == ("lost", begin)
    assert (await pen.put(pen.end, b"")).word == "lost"  # A renewal of the lease also learns this.
    assert len(await text_of(redis, stream)) == begin
    assert (await pen.put(begin, pen.wrote)).word == "ok"  # The same frames again, from the writer's memory.
    assert (await pen.write(said("b"))).word == "ok"


async def test_a_lease_that_is_over_and_not_claimed_is_renewed(log: Log, redis: Redis) -> None:
    stream = await Stream.create(log)
    pen = await stream.pen()
    for frames in (b"", None):
        await end_lease(redis, stream)
        assert (await (pen.write(said("a")) if frames is None else pen.put(pen.end, frames))).word == "ok"
        assert (await log.claim(stream.id, token(2), LEASE_MS)).word == "held"


async def test_the_last_append_ends_the_stream(log: Log, redis: Redis) -> None:
    stream = await Stream.create(log)
    pen = await stream.pen()
    await pen.write(said("a"), **{"ckpt:answer": "a secret"})
    before = pen.end
    assert (await pen.write(said("b"), DONE, status="done", usage='{"total_tokens":3}')).word == "ok"
    record, _ = await log.record(stream.id)
    assert record is not None
    assert (record.status, record.ended, record.usage) == ("done", True, {"total_tokens": 3})
    assert record.started_ms is not None
    assert record.ended_ms is not None
    assert record.started_ms <= record.ended_ms
    assert (await pen.put(before, pen.wrote[-(pen.end - before) :], status="done")).word == "duplicate"
    assert (await pen.write(said("late"))).word == "ended"
    assert await redis.zscore(stream.keys[2], stream.id) is None


async def test_fault_27_input_and_checkpoints_are_gone_after_the_end(log: Log, redis: Redis) -> None:
    for ends in ("done", "cancel"):
        stream = await Stream.create(log, metadata='{"a":1}')
        pen = await stream.pen()
        await pen.write(said("a"), **{"ckpt:answer": "a secret"})
        await (pen.write(DONE, status="done") if ends == "done" else log.cancel(stream.id, CANCEL_TAG))
        fields = await redis.hkeys(stream.keys[0])
        assert not {b"input", b"params", b"ckpt:answer"} & set(fields)
        assert {b"owner", b"chain", b"metadata", b"status"} <= set(fields)


@pytest.mark.parametrize("frames", [False, True])
async def test_a_hand_over_whose_answer_was_lost_is_made_again(log: Log, redis: Redis, frames: bool) -> None:
    stream = await Stream.create(log)
    pen = await stream.pen(1)
    release = pen.end, _frames(pen) if frames else b""
    assert (await pen.put(*release, status="queued")).word == "ok"
    before = await redis.hgetall(stream.keys[0])
    assert (await pen.put(*release, status="queued")).word == ("duplicate" if frames else "ok")
    assert await redis.hgetall(stream.keys[0]) == before
    assert (await pen.write(said("late"))).word == "fenced"
    assert (await stream.pen(2)).claim.record.attempt == 2
    assert (await pen.release()).word == "fenced"


async def test_unknown(log: Log, redis: Redis) -> None:
    stream = await Stream.create(log)
    pen = await stream.pen()
    await redis.delete(*stream.keys)
    assert (await pen.write(said("a"))).word == "unknown"
    assert not await redis.exists(*stream.keys)


async def test_publishes_the_very_frames_with_the_event_before(log: Log, redis: Redis) -> None:
    stream = await Stream.create(log)
    pen = await stream.pen()
    before = await log.now_ms()
    async with redis.pubsub() as ear:
        await ear.subscribe(f"live:{stream.id}")
        await pen.write(said("a"), said("b"))
        await pen.put(pen.end, b"")  # A renewal is not published.
        await pen.write(DONE, status="done")
        heard: list[bytes] = []
        while len(heard) < 2:
            if (message := await ear.get_message(ignore_subscribe_messages=True, timeout=5)) is not None:
                heard.append(message["data"])
    _, two, three = ids_of(pen.wrote)
    first, second = pen.wrote.split(b"id: " + three.encode())
    times = [int(block.split(b"\n")[0].rpartition(b" ")[2]) for block in heard]
    assert before <= times[0] <= times[1] <= await log.now_ms()
    assert heard[0] == f"0-{START_TAG} {two}  {times[0]}\n".encode() + first
    assert heard[1] == f"{two} {three} done {times[1]}\nid: {three}".encode() + second


def _frames(pen: Pen) -> bytes:
    return sse.encode(said("a"), pen.end, pen.claim.tag)


async def test_frames_renew_a_lease_that_has_worn_and_leave_a_fresh_one(log: Log, redis: Redis) -> None:
    """A fresh lease is not renewed.

    A lease that is at most one second (or one tenth of its length) old counts as fresh, so the renewal work
    is not done for every token.
    """
    stream = await Stream.create(log)
    pen = await stream.pen()

    async def left_after(worn_ms: int) -> int:
        await redis.hset(stream.keys[0], "lease_end_ms", await log.now_ms() + LEASE_MS - worn_ms)
        assert (await pen.write(said("a"))).word == "ok"
        [head] = await log.heads([stream.id])
        assert head.lease_left_ms is not None
        return head.lease_left_ms

    assert LEASE_MS - 1000 < await left_after(200) <= LEASE_MS - 200
    assert await left_after(1500) > LEASE_MS - 1000
    # A clock that has since gone back had set this lease end.
    assert await left_after(-5000) > LEASE_MS - 1000
    await redis.hset(stream.keys[0], "lease_end_ms", await log.now_ms() + LEASE_MS - 200)
    # A call without frames asks only for a renewal, so even a fresh lease is renewed.
    assert (await pen.put(pen.end, b"")).word == "ok"
    [head] = await log.heads([stream.id])
    assert head.lease_left_ms is not None
    assert head.lease_left_ms > LEASE_MS - 150


async def test_a_log_that_an_append_begins_expires_like_any_other(log: Log, redis: Redis) -> None:
    """The lease is fresh, so no renewal would set an expiry on the new key."""
    stream = await Stream.create(log)
    pen = await stream.pen()
    await redis.delete(stream.keys[1])
    assert (await pen.put(0, b"id: 0-aaaa\ndata: {}\n\n")).word == "ok"
    assert await redis.pttl(stream.keys[1]) > 0
