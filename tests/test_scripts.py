"""Each script on a real Redis: every answer that the architecture names, and what it leaves behind."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from gateway import protocol
from gateway.store.log import CREATED_EXPIRY_MS, Log
from tests.model.streams import (
    CANCEL_TAG,
    DONE,
    GRACE_MS,
    LEASE_MS,
    OPEN_MS,
    TOMBSTONE_MS,
    Stream,
    frames_of,
    open_log,
    said,
    start_frame,
    text_of,
    token,
)

WHOLE_MS = OPEN_MS + TOMBSTONE_MS
SLACK_MS = 60_000  # a busy machine; far less than what it is compared with


@pytest.fixture
async def log(redis_url: str) -> AsyncIterator[Log]:
    async with open_log(redis_url) as log:
        yield log


async def image(redis: Redis, stream: Stream) -> tuple[object, ...]:
    """Everything of a stream but the times that a repeated call may renew."""
    job, log, index = stream.keys
    record = await redis.hgetall(job)
    for moving in (b"lease_end_ms", b"asked_ms"):
        record.pop(moving, None)
    return record, await redis.get(log), await redis.zscore(index, stream.id) is not None


async def end_lease(redis: Redis, stream: Stream, from_now_ms: int = -1000) -> None:
    seconds, _ = await redis.time()
    await redis.hset(stream.keys[0], "lease_end_ms", seconds * 1000 + from_now_ms)


class TestCreate:
    async def test_is_for_a_minute_only(self, log: Log, redis: Redis) -> None:
        stream = await Stream.create(log, confirmed=False)
        job, text, index = stream.keys
        for key in (job, text):
            assert CREATED_EXPIRY_MS - SLACK_MS < await redis.pttl(key) <= CREATED_EXPIRY_MS == 60_000
        assert not await redis.exists(index)
        assert await redis.get(text) == start_frame(stream.id)

    async def test_again_changes_nothing(self, log: Log, redis: Redis) -> None:
        stream = await Stream.create(log)
        await (await stream.pen()).write(said("a"))
        before = await image(redis, stream)
        assert await stream.create_again() == ("created", stream.id)
        assert await image(redis, stream) == before

    async def test_fault_25_a_known_key_answers_with_its_stream(self, log: Log, redis: Redis) -> None:
        key = protocol.idempotency_hash("anonymous", "key")
        first, second = (Stream(log, protocol.new_stream_id(key)) for _ in range(2))
        assert await first.create_again(key=key, body="b") == ("created", first.id)
        assert await first.create_again(key=key, body="b") == ("created", first.id)
        assert await second.create_again(key=key, body="b") == ("exists", first.id)
        assert await second.create_again(key=key, body="other") == ("conflict", second.id)
        assert not await redis.exists(*second.keys)
        assert await redis.pttl(f"{{{key[:2]}}}:idem:{key}") <= CREATED_EXPIRY_MS

    async def test_a_key_whose_stream_is_gone_is_free(self, log: Log, redis: Redis) -> None:
        key = protocol.idempotency_hash("anonymous", "key")
        first, second = (Stream(log, protocol.new_stream_id(key)) for _ in range(2))
        await first.create_again(key=key, body="b")
        await redis.delete(*first.keys)
        assert await second.create_again(key=key, body="other") == ("created", second.id)

    async def test_confirm_raises_the_keys_expiry_too(self, log: Log, redis: Redis) -> None:
        key = protocol.idempotency_hash("anonymous", "key")
        stream = Stream(log, protocol.new_stream_id(key))
        await stream.create_again(key=key, body="b")
        await log.confirm(stream.id, GRACE_MS)
        assert OPEN_MS - SLACK_MS < await redis.pttl(f"{{{key[:2]}}}:idem:{key}") <= OPEN_MS


class TestConfirm:
    @pytest.mark.parametrize("by", ["confirm", "claim"])
    async def test_raises_the_expiry_to_that_of_what_has_not_ended(
        self, log: Log, redis: Redis, by: str
    ) -> None:
        stream = await Stream.create(log, confirmed=False)
        if by == "confirm":
            assert await log.confirm(stream.id, GRACE_MS)
        else:
            await stream.pen()
        job, text, index = stream.keys
        assert OPEN_MS - SLACK_MS < await redis.pttl(text) <= OPEN_MS
        assert WHOLE_MS - SLACK_MS < await redis.pttl(job) <= WHOLE_MS
        assert await redis.pttl(index) > OPEN_MS
        now = await log.now_ms()
        looked_at = await redis.zscore(index, stream.id)
        due = GRACE_MS if by == "confirm" else LEASE_MS
        assert looked_at is not None
        assert now < looked_at <= now + due

    async def test_an_expired_record_is_said_to_be(self, log: Log) -> None:
        assert not await log.confirm(protocol.new_stream_id(), GRACE_MS)

    async def test_of_a_stream_that_ended_first_brings_nothing_back(self, log: Log, redis: Redis) -> None:
        stream = await Stream.create(log, confirmed=False)
        await (await stream.pen()).write(DONE, status="done")
        assert await log.confirm(stream.id, GRACE_MS)
        assert await redis.zscore(stream.keys[2], stream.id) is None

    async def test_of_a_running_stream_does_not_move_the_time_to_look(self, log: Log, redis: Redis) -> None:
        stream = await Stream.create(log, confirmed=False)
        await stream.pen()
        before = await redis.zscore(stream.keys[2], stream.id)
        assert await log.confirm(stream.id, 1)
        assert await redis.zscore(stream.keys[2], stream.id) == before


class TestClaim:
    async def test_one_claim_holds(self, log: Log) -> None:
        stream = await Stream.create(log)
        pen = await stream.pen(1)
        assert pen.claim.record.attempt == 1
        assert pen.claim.log_end == len(start_frame(stream.id))
        assert pen.claim.record.input == {"messages": "a prompt"}
        held = await log.claim(stream.id, token(2), LEASE_MS)
        assert (held.word, held.claim) == ("held", None)
        assert LEASE_MS - SLACK_MS < held.number <= LEASE_MS

    async def test_the_same_token_gets_the_same_answer_again(self, log: Log, redis: Redis) -> None:
        stream = await Stream.create(log)
        first = await stream.pen(1)
        before = await image(redis, stream)
        again = await stream.pen(1)
        assert await image(redis, stream) == before
        assert again.claim.record == first.claim.record
        assert again.end == first.end

    async def test_ended_and_unknown(self, log: Log) -> None:
        stream = await Stream.create(log)
        await (await stream.pen()).write(DONE, status="done")
        assert (await log.claim(stream.id, token(2), LEASE_MS)).word == "ended"
        assert (await log.claim(protocol.new_stream_id(), token(2), LEASE_MS)).word == "unknown"

    @pytest.mark.parametrize(("wrote", "failures"), [(False, 1), (True, 0)])
    async def test_only_a_lease_that_ran_out_without_progress_is_a_failure(
        self, log: Log, redis: Redis, wrote: bool, failures: int
    ) -> None:
        stream = await Stream.create(log)
        first = await stream.pen(1)
        await first.write(*([said("a")] if wrote else []))
        await end_lease(redis, stream)
        second = await stream.pen(2)
        assert (second.claim.record.attempt, second.claim.record.failures) == (2, failures)

    async def test_a_hand_over_is_no_failure(self, log: Log) -> None:
        stream = await Stream.create(log)
        await (await stream.pen(1)).release()
        second = await stream.pen(2)
        assert (second.claim.record.attempt, second.claim.record.failures) == (2, 0)

    async def test_fault_31_a_lease_further_away_than_itself_is_over(self, log: Log, redis: Redis) -> None:
        stream = await Stream.create(log)
        await stream.pen(1)
        await end_lease(redis, stream, from_now_ms=LEASE_MS + 600_000)
        assert (await stream.pen(2)).claim.record.attempt == 2

    async def test_gives_the_checkpoints_and_the_log_end(self, log: Log, redis: Redis) -> None:
        stream = await Stream.create(log)
        first = await stream.pen(1)
        await first.write(said("a"), **{"ckpt:answer": "kept"})
        await first.release()
        assert (await stream.pen(2)).end == first.end
        assert await redis.hget(stream.keys[0], "ckpt:answer") == b"kept"


class TestCancel:
    async def test_writes_the_terminal_frame_itself(self, log: Log, redis: Redis) -> None:
        stream = await Stream.create(log)
        before = len(start_frame(stream.id))
        assert (await log.cancel(stream.id, CANCEL_TAG)).word == "cancelled"
        frame = frames_of(before, CANCEL_TAG, protocol.Event(protocol.EventType.CANCELLED, {}))
        assert (await text_of(redis, stream))[before:] == frame

    async def test_fault_18_twice_or_after_the_end_changes_nothing(self, log: Log, redis: Redis) -> None:
        stream = await Stream.create(log)
        pen = await stream.pen()
        await log.cancel(stream.id, CANCEL_TAG)
        before = await image(redis, stream)
        assert (await log.cancel(stream.id, "beef")).word == "ended"
        assert (await pen.write(said("late"))).word == "ended"
        assert (await log.claim(stream.id, token(2), LEASE_MS)).word == "ended"
        assert await image(redis, stream) == before

    async def test_unknown(self, log: Log) -> None:
        assert (await log.cancel(protocol.new_stream_id(), CANCEL_TAG)).word == "unknown"


class TestAsk:
    async def test_fault_34_yes_once_in_a_back_off(self, log: Log, redis: Redis) -> None:
        stream = await Stream.create(log)
        answers = [await log.ask(stream.id, 5000) for _ in range(50)]
        assert [answer.word for answer in answers] == ["yes"] + ["wait"] * 49
        assert all(0 < answer.number <= 5000 for answer in answers[1:])
        await redis.hset(stream.keys[0], "asked_ms", await log.now_ms() - 5001)
        assert (await log.ask(stream.id, 5000)).word == "yes"

    async def test_the_back_off_doubles_while_nobody_claims(self, log: Log, redis: Redis) -> None:
        stream = await Stream.create(log)
        for doubled in range(9):
            assert (await log.ask(stream.id, 1000)).word == "yes"
            wait = (await log.ask(stream.id, 1000)).number
            assert 1000 * 2 ** min(doubled, 6) - SLACK_MS < wait <= 1000 * 2 ** min(doubled, 6)
            whole = 1000 * 2 ** min(doubled, 6)
            await redis.hset(stream.keys[0], "asked_ms", await log.now_ms() - whole)
        await stream.pen()
        await end_lease(redis, stream)
        assert (await log.ask(stream.id, 1000)).word == "yes"
        assert (await log.ask(stream.id, 1000)).number <= 1000

    async def test_yes_brings_the_trace_context(self, log: Log, redis: Redis) -> None:
        stream = await Stream.create(log)
        await redis.hset(stream.keys[0], "trace", "00-ab-cd-01")
        assert (await log.ask(stream.id, 5000)).trace == "00-ab-cd-01"

    async def test_fault_31_a_question_from_the_future_does_not_silence(self, log: Log, redis: Redis) -> None:
        stream = await Stream.create(log)
        await redis.hset(stream.keys[0], "asked_ms", await log.now_ms() + 600_000)
        assert (await log.ask(stream.id, 5000)).word == "yes"

    async def test_fault_6_a_record_never_confirmed_is_left_alone(self, log: Log, redis: Redis) -> None:
        stream = await Stream.create(log, confirmed=False)
        assert (await log.ask(stream.id, 5000)).word == "wait"
        assert await redis.pttl(stream.keys[0]) <= CREATED_EXPIRY_MS

    async def test_held_until_the_lease_is_over(self, log: Log, redis: Redis) -> None:
        stream = await Stream.create(log)
        await stream.pen()
        held = await log.ask(stream.id, 5000)
        assert held.word == "held"
        assert LEASE_MS - SLACK_MS < held.number <= LEASE_MS
        await end_lease(redis, stream)
        assert (await log.ask(stream.id, 5000)).word == "yes"

    @pytest.mark.parametrize("state", ["queued", "running", "waiting"])
    async def test_fault_30_raises_the_expiries_of_what_is_still_somebodys(
        self, log: Log, redis: Redis, state: str
    ) -> None:
        stream = await Stream.create(log)
        if state == "running":
            await stream.pen()
        if state == "waiting":
            assert (await log.ask(stream.id, LEASE_MS)).word == "yes"
        job, text, index = stream.keys
        for key in (job, text):
            await redis.pexpire(key, 1000)
        await log.ask(stream.id, LEASE_MS)
        assert OPEN_MS - SLACK_MS < await redis.pttl(text) <= OPEN_MS
        assert WHOLE_MS - SLACK_MS < await redis.pttl(job) <= WHOLE_MS
        assert await redis.pttl(index) > OPEN_MS

    async def test_takes_what_is_over_out_of_the_index(self, log: Log, redis: Redis) -> None:
        stream = await Stream.create(log)
        await log.cancel(stream.id, CANCEL_TAG)
        for word in ("ended", "unknown"):
            await redis.zadd(stream.keys[2], {stream.id: 1})
            await redis.pexpire(stream.keys[2], 1000)
            assert (await log.ask(stream.id, 5000)).word == word
            assert await redis.zscore(stream.keys[2], stream.id) is None
            await redis.delete(*stream.keys[:2])
