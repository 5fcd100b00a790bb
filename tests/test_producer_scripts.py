"""What the scripts of a stream do for a producer's: every answer, and what it leaves behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway import protocol
from gateway.protocol import sse
from gateway.queue import overdue
from gateway.store.log import Log
from gateway.store.record import Claim
from tests.model.streams import OPEN_MS, TOMBSTONE_MS, open_log, token

GRACE_MS = 60_000
HOUR_MS = 3_600_000


@pytest.fixture
async def log(redis_url: str) -> AsyncIterator[Log]:
    async with open_log(redis_url) as log:
        yield log


async def made(log: Log, **fields: Any) -> str:
    """A confirmed stream, a producer's unless told otherwise."""
    stream_id = protocol.new_stream_id()
    frame = sse.encode(protocol.start(stream_id, "c", ["c"], "now"), 0, "0000")
    whole = {
        "version": protocol.VERSION,
        "owner": "anonymous",
        "chain": "c",
        "last_id": "0-0000",
        "keep_ms": HOUR_MS,
        "tombstone_ms": TOMBSTONE_MS,
        "open_ms": OPEN_MS,
        "wait_ms": GRACE_MS,
        "producer": 1,
        **fields,
    }
    await log.create(stream_id, {name: value for name, value in whole.items() if value is not None}, frame)
    await log.confirm(stream_id, GRACE_MS)
    return stream_id


async def taken(log: Log, stream_id: str, number: int = 1) -> Claim:
    answer = await log.claim(stream_id, token(number), GRACE_MS, producer="take")
    assert answer.claim is not None, answer
    return answer.claim


async def at(redis: Redis, stream_id: str, **moved_ms: int) -> None:
    """Let these times of the record be so many milliseconds from now."""
    seconds, _ = await redis.time()
    for name, moved in moved_ms.items():
        await redis.hset(Log.keys(stream_id)[0], name, str(seconds * 1000 + moved))


async def test_a_take_needs_no_lease_to_be_over(log: Log) -> None:
    stream_id = await made(log)
    first = await taken(log, stream_id, 1)
    second = await taken(log, stream_id, 2)
    assert (first.record.attempt, second.record.attempt) == (1, 2)
    assert (second.record.lines, second.record.course, second.record.claimed_at) == (0, "", second.log_end)
    assert (await log.append(first, first.log_end, b"", "", GRACE_MS)).word == "fenced"
    assert (await log.append(second, second.log_end, b"", "", GRACE_MS)).word == "ok"


async def test_a_take_again_changes_nothing(log: Log) -> None:
    stream_id = await made(log)
    first = await taken(log, stream_id)
    assert (await log.advance(first, first.log_end, 0, 3, "{}", GRACE_MS)).word == "ok"
    again = await taken(log, stream_id)
    assert (again.record.attempt, again.record.lines, again.record.course) == (1, 3, "{}")


async def test_a_keep_goes_on_and_takes_nothing(log: Log) -> None:
    stream_id = await made(log)
    assert (await log.claim(stream_id, token(1), GRACE_MS, producer="keep")).word == "held"
    first = await taken(log, stream_id, 1)
    kept = await log.claim(stream_id, token(1), GRACE_MS, producer="keep")
    assert kept.claim is not None
    assert kept.claim.record.attempt == first.record.attempt
    await taken(log, stream_id, 2)
    assert (await log.claim(stream_id, token(1), GRACE_MS, producer="keep")).word == "held"


async def test_workers_and_producers_do_not_know_each_others_streams(log: Log) -> None:
    produced, worked = await made(log), await made(log, producer=None)
    assert (await log.claim(produced, token(1), GRACE_MS)).word == "unknown"
    for word in ("take", "keep"):
        assert (await log.claim(worked, token(1), GRACE_MS, producer=word)).word == "unknown"
    assert (await log.claim(worked, token(1), GRACE_MS)).word == "claimed"


async def test_nobody_is_sent_for_a_producers_stream_until_its_time_is_over(log: Log, redis: Redis) -> None:
    stream_id = await made(log)
    assert (await log.ask(stream_id, 10)).word == "wait"
    await at(redis, stream_id, since_ms=-GRACE_MS)
    assert (await log.ask(stream_id, 10)).code == "producer_lost"
    await taken(log, stream_id)  # it comes late, and in time: nobody has ended the stream
    assert (await log.ask(stream_id, 10)).word == "held"
    await at(redis, stream_id, lease_end_ms=-1000, since_ms=-GRACE_MS - 1000)
    assert (await log.look(stream_id, "anonymous")).over == "producer_lost"
    assert await overdue.end(log, stream_id, "producer_lost")
    assert (await log.claim(stream_id, token(2), GRACE_MS, producer="take")).word == "ended"


async def test_a_long_run_is_no_reason_to_end_it(log: Log, redis: Redis) -> None:
    stream_id = await made(log)
    await taken(log, stream_id)
    await at(redis, stream_id, since_ms=-30 * 24 * HOUR_MS, started_ms=-30 * 24 * HOUR_MS)
    assert (await log.ask(stream_id, 10)).word == "held"
    assert (await log.look(stream_id, "anonymous")).over == ""


async def test_a_clock_that_goes_back_ends_no_stream_whose_producer_lives(log: Log, redis: Redis) -> None:
    stream_id = await made(log)
    await taken(log, stream_id)
    await at(redis, stream_id, lease_end_ms=HOUR_MS, since_ms=-HOUR_MS)  # set when the clock was ahead
    assert (await log.look(stream_id, "anonymous")).over == ""
    answer = await log.ask(stream_id, 10)
    assert answer.word == "held"
    assert 0 < answer.number <= GRACE_MS  # the time of its silence begins anew
    assert not await overdue.end(log, stream_id, "producer_lost")


async def test_a_stream_that_is_let_go_waits_for_its_producer_anew(log: Log, redis: Redis) -> None:
    stream_id = await made(log)
    claim = await taken(log, stream_id)
    await at(redis, stream_id, since_ms=-HOUR_MS)
    assert (await log.append(claim, claim.log_end, b"", "", GRACE_MS, status="queued")).word == "ok"
    assert (await log.ask(stream_id, 10)).word == "wait"
    await at(redis, stream_id, since_ms=-GRACE_MS)
    assert (await log.ask(stream_id, 10)).code == "producer_lost"


async def test_lines_that_stand_are_counted_once(log: Log, redis: Redis) -> None:
    stream_id = await made(log)
    claim = await taken(log, stream_id)
    end = claim.log_end
    assert (await log.advance(claim, end, 0, 2, "a", GRACE_MS)).word == "ok"
    assert (await log.advance(claim, end, 0, 2, "a", GRACE_MS)).word == "ok"  # its answer was lost
    assert (await log.advance(claim, end, 0, 3, "b", GRACE_MS)).word == "moved"
    assert (await log.advance(claim, end + 1, 2, 3, "b", GRACE_MS)).word == "moved"
    assert (await log.advance(claim, end, 2, 3, "b", GRACE_MS)).word == "ok"
    record, _ = await log.record(stream_id)
    assert record is not None
    assert (record.lines, record.course) == (3, "b")
    await at(redis, stream_id, lease_end_ms=-1000)
    await log.advance(claim, end, 2, 3, "b", GRACE_MS)
    assert (await log.ask(stream_id, 10)).word == "held"  # the lease is renewed
    looked_at = await redis.zscore(Log.keys(stream_id)[2], stream_id)
    assert looked_at is not None
    assert looked_at > await log.now_ms()


async def test_lines_of_no_holder_are_not_counted(log: Log) -> None:
    stream_id = await made(log)
    first = await taken(log, stream_id, 1)
    assert (await log.advance(first, first.log_end, 0, 1, "", GRACE_MS)).word == "ok"
    await taken(log, stream_id, 2)
    assert (await log.advance(first, first.log_end, 1, 2, "", GRACE_MS)).word == "fenced"
    await log.cancel(stream_id, "ffff")
    answer = await log.advance(first, first.log_end, 1, 2, "", GRACE_MS)
    assert answer.word == "ended"
    gone = Claim(first.record.of(protocol.new_stream_id(), {"status": b"running"}), token(1), 0, 0)
    assert (await log.advance(gone, 0, 0, 1, "", GRACE_MS)).word == "unknown"
