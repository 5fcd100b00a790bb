"""Rows 95 to 99 of docs/faults.md in the store: how long unfinished streams are kept, and what ends them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway import protocol
from gateway.protocol.errors import QueueUnavailable, StoreUnavailable
from gateway.queue.overdue import ENDINGS, TIME_LIMIT, WAIT_LIMIT, end
from gateway.queue.redeliver import revive
from gateway.store.log import Log
from gateway.store.record import Head
from gateway.streams import token_giving
from tests.model.streams import (
    CANCEL_TAG,
    DONE,
    GRACE_MS,
    KEEP_MS,
    LEASE_MS,
    OPEN_MS,
    RUN_MS,
    TOMBSTONE_MS,
    WAIT_MS,
    Stream,
    frames_of,
    open_log,
    said,
    start_frame,
    text_of,
    token,
)
from tests.support.clock import ClockServer
from tests.support.jobs import Jobs, body
from workers.delivery.runner import DONE as SETTLED
from workers.delivery.sweeper import Sweeper

SLACK_MS = 60_000  # Tolerance for a busy machine, in ms. The compared times are much longer.
DAY_SECONDS = 86_400.0
WORKERS = ("wait_limit", "time_limit")  # For producers' streams, see tests/test_producer_scripts.py.
ENDS = pytest.mark.parametrize("code", WORKERS)


@pytest.fixture
async def log(redis_url: str) -> AsyncIterator[Log]:
    async with open_log(redis_url) as log:
        yield log


class NoQueue:
    """A queue that must get no message and stores no places. `forgotten` has the ids given to `forget`."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.forgotten: list[str] = []
        self._refuses = refuses

    async def enqueue(self, message: object) -> None:
        raise AssertionError("a stream whose time is over is run no more")

    async def forget(self, stream_id: str) -> None:
        self.forgotten.append(stream_id)
        if self._refuses:
            raise QueueUnavailable


async def unbegun(log: Log) -> Stream:
    return await Stream.create(log)


async def begun(log: Log, *, run_ms: int = RUN_MS) -> Stream:
    """Create a stream that a worker has claimed and then released without an event."""
    stream = await Stream.create(log)
    answer = await log.claim(stream.id, token(1), LEASE_MS, run_ms=run_ms)
    assert answer.claim is not None
    assert (
        await log.append(answer.claim, answer.claim.log_end, b"", "", LEASE_MS, status="queued")
    ).word == "ok"
    return stream


MADE = {"wait_limit": unbegun, "time_limit": begun}
LONGEST_MS = {"wait_limit": WAIT_MS, "time_limit": RUN_MS}


async def ages(redis: Redis, stream: Stream, ms: int) -> None:
    """Let `ms` milliseconds of the stream's time pass."""
    await redis.hincrby(stream.keys[0], "since_ms", -ms)


async def expiries(redis: Redis, stream: Stream) -> list[int]:
    return [await redis.pttl(key) for key in stream.keys]


# How long an unfinished stream is kept


async def test_fault_98_every_key_expires_at_every_step_and_late_until_the_end(
    log: Log, redis: Redis
) -> None:
    """A key lives 60 s until the queue has the job, then long, and after the end as long as the retention."""
    key = protocol.idempotency_hash("anonymous", "key")
    stream = Stream(log, protocol.new_stream_id(key))
    idem = f"{{{key[:2]}}}:idem:{key}"

    async def kept(log_ms: int) -> None:
        index, text, job = [await redis.pttl(one) for one in reversed(stream.keys)]
        assert log_ms - SLACK_MS < text <= log_ms
        assert log_ms - SLACK_MS < await redis.pttl(idem) <= log_ms
        assert log_ms + TOMBSTONE_MS - SLACK_MS < job <= log_ms + TOMBSTONE_MS
        assert index == -2 or index >= job  # The index is gone, or it outlives its member.
        assert all([await redis.pttl(one) > 0 async for one in redis.scan_iter("*")])

    await stream.create_again(key=key, body="b")
    assert all([0 < await redis.pttl(one) <= 60_000 async for one in redis.scan_iter("*")])
    await log.confirm(stream.id, GRACE_MS)
    await kept(OPEN_MS)
    pen = await stream.pen()
    await kept(OPEN_MS)
    for step in (pen.write(said("a")), pen.put(0, b""), pen.release(), log.ask(stream.id, 1)):
        await step
        await kept(OPEN_MS)
    again = await stream.pen(2)
    await again.write(DONE, status="done")
    await kept(KEEP_MS)


@pytest.mark.parametrize("how", ["cancel", *WORKERS])
async def test_fault_98_whoever_ends_it_leaves_the_retention(log: Log, redis: Redis, how: str) -> None:
    stream = await MADE.get(how, unbegun)(log)
    if how == "cancel":
        await log.cancel(stream.id, CANCEL_TAG)
    else:
        await ages(redis, stream, LONGEST_MS[how])
        assert await end(log, stream.id, how)
    job, text, index = await expiries(redis, stream)
    assert KEEP_MS - SLACK_MS < text <= KEEP_MS
    assert KEEP_MS + TOMBSTONE_MS - SLACK_MS < job <= KEEP_MS + TOMBSTONE_MS
    assert index == -2
    record, _ = await log.record(stream.id)
    assert record is not None
    assert record.input is None  # The input can contain a user's prompt.


async def test_fault_98_a_record_of_the_release_before_lives_as_it_did_there(log: Log, redis: Redis) -> None:
    """Two releases run at once. The old one's record has no time limits, so no process ends it by them."""
    stream = await Stream.create(log, confirmed=False)
    await redis.hdel(stream.keys[0], "open_ms", "wait_ms", "since_ms")
    await log.confirm(stream.id, GRACE_MS)
    for step in (log.ask(stream.id, 1), log.claim(stream.id, token(1), LEASE_MS)):
        assert (await step).word in ("yes", "claimed")
        job, text, index = await expiries(redis, stream)
        assert KEEP_MS - SLACK_MS < text <= KEEP_MS
        assert job <= KEEP_MS + TOMBSTONE_MS <= index + SLACK_MS
    assert (await log.look(stream.id, protocol.ANONYMOUS)).over == ""
    assert (await log.give_up(stream.id, CANCEL_TAG, WAIT_LIMIT)).word == "wait"


async def test_fault_98_the_queue_and_the_quota_last_as_long(redis_url: str, redis: Redis) -> None:
    async with Jobs(redis_url, retention=1.0, tombstone=1.0) as jobs:
        assert jobs.settings.open_seconds == 7 * DAY_SECONDS + jobs.settings.max_run + DAY_SECONDS
        stream_id = await jobs.stream("q", chain="chat")
        assert jobs.log.projector is not None
        await jobs.log.projector.close()
        longest = round(jobs.settings.open_seconds * 1000)
        keys = [key async for key in redis.scan_iter("*")]
        told = [key for key in keys if key.endswith((b":mine", b":feeding", b":running")) or b":seen:" in key]
        assert len(told) == 4
        for key in told:  # Lists for the owner outlive the streams, at most until the last record expires.
            assert longest < await redis.pttl(key) <= round(jobs.settings.record_seconds * 1000), key
        [feed] = [key for key in keys if key.endswith(b":feed")]
        assert 0 < await redis.pttl(feed) <= 1000  # The feed's own time equals the retention here.
        keys = [key for key in keys if key not in (*told, feed)]
        assert stream_id.encode() in b" ".join(keys)
        for key in keys:
            assert longest - SLACK_MS < await redis.pttl(key) <= longest + 1000, key


# What ends a stream when its time is over


@ENDS
async def test_fault_96_the_sweeper_ends_it_and_sends_no_message(log: Log, redis: Redis, code: str) -> None:
    stream = await MADE[code](log)
    await ages(redis, stream, LONGEST_MS[code] - SLACK_MS)
    before = await text_of(redis, stream)
    assert (await log.ask(stream.id, GRACE_MS)).word == "yes"
    looked_at = await redis.zscore(stream.keys[2], stream.id)
    await redis.hdel(stream.keys[0], "asked_ms", "asks")
    await ages(redis, stream, SLACK_MS)
    assert looked_at is not None
    await redis.zadd(stream.keys[2], {stream.id: 1})
    queue = NoQueue()
    assert await Sweeper(log, queue, backoff=60).sweep() == 0
    assert queue.forgotten == [stream.id]
    after = await text_of(redis, stream)
    tag = after.removeprefix(before).split(b"\n")[0].decode().partition("-")[2]
    assert after == before + frames_of(len(before), tag, ENDINGS[code])
    record, _ = await log.record(stream.id)
    assert record is not None
    assert (record.status, record.error) == (protocol.Status.FAILED, ENDINGS[code].data)
    assert record.ended_ms is not None
    assert await redis.zscore(stream.keys[2], stream.id) is None


async def test_fault_96_the_sweeper_looks_when_the_wait_ends_and_not_only_after_its_back_off(
    log: Log, redis: Redis
) -> None:
    stream = await unbegun(log)
    await ages(redis, stream, WAIT_MS - GRACE_MS)
    assert (await log.ask(stream.id, 10 * GRACE_MS)).word == "yes"
    looked_at = await redis.zscore(stream.keys[2], stream.id)
    assert looked_at is not None
    assert looked_at <= await log.now_ms() + GRACE_MS


@ENDS
async def test_fault_96_many_who_find_it_write_one_end(log: Log, redis: Redis, code: str) -> None:
    stream = await MADE[code](log)
    await ages(redis, stream, LONGEST_MS[code])
    queue = NoQueue(refuses=True)  # So the stream's place is freed later.
    await asyncio.gather(*(revive(log, queue, stream.id, backoff=60) for _ in range(100)))
    assert (await text_of(redis, stream)).count(b"event: failed\n") == 1
    assert queue.forgotten == [stream.id]
    assert not await end(log, stream.id, code)


@ENDS
async def test_fault_97_what_a_worker_holds_is_not_ended_by_others(log: Log, redis: Redis, code: str) -> None:
    stream = await MADE[code](log)
    answer = await log.claim(stream.id, token(2), LEASE_MS, run_ms=RUN_MS)
    assert answer.claim is not None
    await ages(redis, stream, 10 * (WAIT_MS + RUN_MS))
    assert (await log.ask(stream.id, 1)).word == "held"
    assert (await log.look(stream.id, protocol.ANONYMOUS)).over == ""
    assert (await log.give_up(stream.id, CANCEL_TAG, TIME_LIMIT)).word == "wait"
    looked_at = await redis.zscore(stream.keys[2], stream.id)
    assert looked_at is not None
    assert looked_at > await log.now_ms() + LEASE_MS - SLACK_MS  # It is not read again before.


async def test_fault_97_a_claim_by_a_worker_of_the_release_before_is_bounded_by_workers_alone(
    log: Log, redis: Redis
) -> None:
    stream = await begun(log, run_ms=0)
    await ages(redis, stream, 10 * (WAIT_MS + RUN_MS))
    assert (await log.ask(stream.id, 1)).word == "yes"
    assert (await log.claim(stream.id, token(2), LEASE_MS)).word == "claimed"


async def test_fault_97_a_run_that_the_release_before_began_is_bounded_from_the_first_claim_of_this_one(
    log: Log, redis: Redis
) -> None:
    stream = await unbegun(log)
    assert (await log.claim(stream.id, token(1), LEASE_MS)).word == "claimed"
    # The release before does not write `run_ms`. The creation has set the start of the time, and that release
    # does not change it.
    await redis.hdel(stream.keys[0], "run_ms")
    await ages(redis, stream, RUN_MS + 1)
    await redis.hset(stream.keys[0], "lease_end_ms", 1)
    answer = await log.claim(stream.id, token(2), LEASE_MS, run_ms=RUN_MS)
    assert answer.claim is not None
    await redis.hset(stream.keys[0], "lease_end_ms", 1)
    assert (await log.ask(stream.id, 1)).word == "yes"
    await ages(redis, stream, RUN_MS)
    assert (await log.ask(stream.id, 1)).word == "over"


async def test_fault_96_an_end_with_another_code_than_is_due_is_refused(log: Log, redis: Redis) -> None:
    stream = await unbegun(log)
    await ages(redis, stream, WAIT_MS)
    assert (await log.give_up(stream.id, CANCEL_TAG, TIME_LIMIT)).word == "wait"
    assert (await log.give_up(stream.id, CANCEL_TAG, WAIT_LIMIT)).word == "over"
    assert (await log.give_up(stream.id, CANCEL_TAG, WAIT_LIMIT)).word == "ended"
    assert (await log.give_up(protocol.new_stream_id(), CANCEL_TAG, WAIT_LIMIT)).word == "unknown"


async def test_fault_96_a_stream_never_confirmed_expires_by_itself(log: Log, redis: Redis) -> None:
    stream = await Stream.create(log, confirmed=False)
    await ages(redis, stream, WAIT_MS)
    assert (await log.ask(stream.id, 1)).word == "wait"
    assert (await log.give_up(stream.id, CANCEL_TAG, WAIT_LIMIT)).word == "wait"


@ENDS
async def test_fault_96_where_the_log_is_gone_the_end_stands_in_a_log_of_its_own(
    log: Log, redis: Redis, code: str
) -> None:
    stream = await MADE[code](log)
    await ages(redis, stream, LONGEST_MS[code])
    await redis.delete(stream.keys[1])
    assert await end(log, stream.id, code)
    found = await text_of(redis, stream)
    tag = found.split(b"\n")[0].decode().partition("-")[2]
    start = json.loads(start_frame(stream.id).split(b"data: ")[1])
    start["created_at"] = "1970-01-01T00:00:00.001Z"  # The record has this time.
    first = protocol.Event(protocol.EventType.START, start)
    assert found == frames_of(0, tag, first, ENDINGS[code])


async def test_fault_96_a_worker_that_gets_the_message_late_ends_it_and_asks_no_model(
    redis_url: str, redis: Redis
) -> None:
    asked: list[Any] = []

    async def counted(given: Any) -> AsyncIterator[str]:
        asked.append(given)
        yield "a"

    async with Jobs(redis_url, counted) as jobs:
        for handle in (jobs.runner.run, jobs.runner.give_up):
            stream_id = await jobs.stream("q")
            await redis.hset(jobs.log.keys(stream_id)[0], "since_ms", 1)
            assert await handle(body(stream_id)) == SETTLED
            record = await jobs.record(stream_id)
            assert (record.status, record.attempt) == (protocol.Status.FAILED, 0)
            assert await jobs.kinds(stream_id) == ["start", "failed"]
    assert asked == []


async def test_fault_96_who_asks_for_its_status_or_by_a_token_is_told(redis_url: str, redis: Redis) -> None:
    """No process has ended the streams yet. The first request that reads a stream ends it."""
    async with Jobs(redis_url, token_keys="k" * 32) as jobs:
        asked, by_token = [await jobs.stream("q", chain="chat") for _ in range(2)]
        given = await token_giving.give(jobs.gateway, by_token, protocol.ANONYMOUS)
        for stream_id in (asked, by_token):
            await redis.hset(jobs.log.keys(stream_id)[0], "since_ms", 1)
        document = await jobs.gateway.status(asked, protocol.ANONYMOUS)
        assert (document["status"], document["started_at"]) == ("failed", None)
        assert document["error"]["code"] == "wait_limit"
        found = await jobs.gateway.find_by_token(by_token, given["token"])
        assert found.status is protocol.Status.FAILED
        others = jobs.log.keys(await jobs.stream("q", chain="chat"))
        assert await redis.hget(others[0], "status") == b"queued"


async def test_fault_96_a_store_that_takes_no_writes_can_still_be_read(
    redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream("q", chain="chat")
        await redis.hset(jobs.log.keys(stream_id)[0], "since_ms", 1)

        async def refuses(*_: object) -> None:
            raise StoreUnavailable

        monkeypatch.setattr(jobs.log, "give_up", refuses)
        assert (await jobs.gateway.status(stream_id, protocol.ANONYMOUS))["status"] == "queued"


async def test_fault_96_a_process_with_readers_knows_when_to_look(log: Log, redis: Redis) -> None:
    waits, held_over, held, ended = [await unbegun(log) for _ in range(4)]
    await log.claim(held_over.id, token(1), LEASE_MS, run_ms=RUN_MS)
    claim = (await log.claim(held_over.id, token(1), LEASE_MS, run_ms=RUN_MS)).claim
    assert claim is not None
    await log.append(claim, claim.log_end, b"", "", LEASE_MS, status="queued")
    await held.pen()
    await log.cancel(ended.id, CANCEL_TAG)
    heads = await log.heads([waits.id, held_over.id, held.id, ended.id])
    for head, longest in zip(heads, (WAIT_MS, RUN_MS, LEASE_MS, None), strict=True):
        if longest is None:
            assert head.look_in_ms is None
            continue
        assert head.look_in_ms is not None
        assert longest - SLACK_MS < head.look_in_ms <= longest
    await ages(redis, waits, WAIT_MS)
    [over] = await log.heads([waits.id])
    assert over == Head(over.last_id, wait_left_ms=0)


# The store's clock goes back


@pytest.mark.slow
async def test_fault_99_after_the_clock_went_back_the_wait_begins_anew(tmp_path: Path) -> None:
    """Otherwise, a stream that was created while the clock was two weeks ahead would wait for three weeks."""
    async with (
        ClockServer(tmp_path) as server,
        open_log(server.url) as log,
        Redis.from_url(server.url) as redis,
    ):
        await server.move(14 * 86_400)
        stream = await unbegun(log)
        await server.move(0)
        queue = NoQueue()
        assert (await log.ask(stream.id, 1)).word == "yes"  # The sweeper asks this after the change.
        job, text, _ = await expiries(redis, stream)
        assert text <= OPEN_MS
        assert job <= OPEN_MS + TOMBSTONE_MS
        await server.move(WAIT_MS // 1000 + 1)
        assert not await revive(log, queue, stream.id, backoff=60)
        assert b"wait_limit" in await text_of(redis, stream)
