"""A claim's writer against a real store: batches, lost answers, silence, bounds, and every way to end."""

from __future__ import annotations

import asyncio
import itertools
from time import monotonic

import pytest
from redis.asyncio import Redis

from gateway import protocol
from gateway.protocol import sse
from gateway.protocol.errors import StoreUnavailable
from gateway.writing.writer import BUFFER_BYTES, TooLong
from tests.support.jobs import eventually
from tests.support.pen import Deaf, Pen, paused, pen, text
from tests.support.redis_server import RedisServer

NOTICE_SECONDS = 2.0  # a cancelled or fenced worker learns of it within this time
DONE = protocol.done(finish_reason="stop", usage={"total_tokens": 3}, attempts=1, duration_ms=5)


async def test_the_first_event_goes_out_at_once_and_what_gathers_meanwhile_in_one_append(
    redis_url: str, redis: Redis
) -> None:
    async with pen(redis_url) as one:
        async with paused(redis):
            await one.put("first")
            await one.tried(1)
            await one.put(*"abcdef")
            assert len(one.log.tried) == 1
        await one.writer.put(DONE)
        assert await one.task == "ok"
        first, rest, *_ = (sse.Decoder().feed(frames) for frames in one.log.tried)
        assert [m.event().data["delta_content"] for m in first] == ["first"]
        assert [m.event().data.get("delta_content") for m in rest[:6]] == list("abcdef")
        assert await one.text() == "firstabcdef"


async def test_an_event_of_a_live_stream_waits_for_no_timer(redis_url: str) -> None:
    async with pen(redis_url) as one:
        waits = []
        for number in range(20):
            began = monotonic()
            await one.put("x")
            await one.jobs.shows(one.id, "x" * (number + 1))
            waits.append(monotonic() - began)
        assert min(waits) < 0.5  # silence is broken by an append after 1.5 s


async def test_appends_that_go_well_take_no_task(redis_url: str, redis: Redis) -> None:
    async with pen(redis_url) as one:
        await one.put("known ")  # perhaps not by a server that has never seen the script
        await one.writer.flush()
        asked = one.log.asked
        for number in range(20):
            await one.put(f"{number} ")
            await one.writer.flush()
        assert one.log.asked == asked
        assert one.log.posted >= 20
        await redis.script_flush()  # and this is for the task
        await one.put("flushed ")
        await one.writer.flush()
        assert one.log.asked == asked + 1
        await one.put("again")
        await one.writer.flush()
        assert one.log.asked == asked + 1
        await one.writer.put(DONE)
        assert await one.task == "ok"
        assert await one.text() == "known " + "".join(f"{n} " for n in range(20)) + "flushed again"


async def test_events_of_one_turn_go_together(redis_url: str) -> None:
    async with pen(redis_url) as one:
        await one.put("known")
        await one.writer.flush()
        tried = len(one.log.tried)
        await one.put(*"abc")
        await one.writer.flush()
        assert [frames.count(sse.FRAME_END) for frames in one.log.tried[tried:]] == [3]


async def test_a_writer_that_was_stopped_appends_no_more(redis_url: str, redis: Redis) -> None:
    async with pen(redis_url) as one:
        await one.put("a")
        await one.writer.flush()
        async with paused(redis):
            await one.put("b")  # is in flight
            await one.tried(len(one.log.tried) + 1)
            await one.put("c")
            one.task.cancel()
            await asyncio.wait({one.task})
            await one.writer.flush()  # whoever waited is let go
        await one.jobs.shows(one.id, "ab")  # its answer comes, and sends nothing
        await one.put("d")
        await one.connection.call("PING")  # all that was sent before is answered
        assert await one.text() == "ab"


async def test_what_was_put_in_the_turn_in_which_the_writer_is_stopped_is_not_sent(redis_url: str) -> None:
    async with pen(redis_url) as one:
        await one.put("a")
        await one.writer.flush()
        tried = len(one.log.tried)
        one.task.cancel()
        await one.put("late")  # the writer has not ended yet, and takes it
        await asyncio.wait({one.task})
        assert one.writer.events == 1
        assert len(one.log.tried) == tried
        await one.connection.call("PING")
        assert await one.text() == "a"


async def test_after_the_end_nobody_waits(redis_url: str) -> None:
    async with pen(redis_url) as one:
        await one.put("a")
        await one.writer.flush()
        one.task.cancel()
        await asyncio.wait({one.task})
        async with asyncio.timeout(10):
            for _ in range(3):
                await one.put("x" * BUFFER_BYTES)
                await one.writer.flush()
        assert await one.text() == "a"


async def test_fields_alone_and_a_release_follow_the_append_that_is_in_flight(
    redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.writing.writer.LONGEST_SILENCE_SECONDS", 3600.0)
    async with pen(redis_url, lease=3 * 3600.0) as one:
        async with paused(redis):
            await one.put("a")
            await one.tried(len(one.log.tried) + 1)
            await one.writer.put(fields={"mark": "made"})
        async with asyncio.timeout(10):
            await one.writer.flush()
        assert await redis.hget(one.log.keys(one.id)[0], "mark") == b"made"
        async with paused(redis):
            await one.put("b")
            await one.tried(len(one.log.tried) + 1)
            one.writer.release()
        async with asyncio.timeout(10):
            assert await one.task == "ok"
        assert (await one.jobs.record(one.id)).status == "queued"
        assert await one.text() == "ab"


async def test_what_fails_after_an_append_ends_its_own_writer_alone(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pen(redis_url) as one:
        other = await one.another()
        monkeypatch.setattr(one.writer._tail, "add", _broken)
        await one.put("a")
        await other.put("b")
        async with asyncio.timeout(10):
            with pytest.raises(ZeroDivisionError):
                await one.task
        await other.writer.put(DONE)
        assert await other.task == "ok"
        assert await other.text() == "b"


def _broken(_: object) -> None:
    raise ZeroDivisionError


async def test_a_field_that_cannot_be_sent_ends_the_task_and_not_the_connection(redis_url: str) -> None:
    async with pen(redis_url) as one:
        await one.put("a")
        await one.writer.flush()
        await one.writer.put(text("b"), fields={"bad": object()})
        with pytest.raises(TypeError):
            await one.task
        await one.writer.flush()
        assert await one.connection.call("ECHO", "x") == b"x"
        assert await one.text() == "a"


async def test_an_append_whose_answer_was_lost_is_made_again_with_the_same_bytes(redis_url: str) -> None:
    async with pen(redis_url, Deaf) as one:
        assert isinstance(one.connection, Deaf)
        one.connection.lose = 3
        await one.put("a")
        await one.tried(4)
        await one.put("b")
        await one.writer.put(DONE)
        assert await one.task == "ok"
        assert len(set(one.log.tried[:4])) == 1
        assert one.log.failed == 2  # and once by callback
        assert await one.text() == "ab"


@pytest.mark.slow
async def test_a_connection_cut_again_and_again_loses_and_doubles_nothing(
    redis_url: str, redis: Redis
) -> None:
    async with pen(redis_url) as one:
        words = [f"{number} " for number in range(600)]
        putting = asyncio.create_task(_put_slowly(one, words))
        kills = 0
        while not putting.done():
            for client in await redis.client_list():
                if client["name"] == "pen":
                    kills += await redis.client_kill_filter(_id=client["id"])
            await asyncio.sleep(0)
        await one.writer.put(DONE)
        assert await one.task == "ok"
        assert kills > 3
        assert await one.text() == "".join(words)


async def _put_slowly(one: Pen, words: list[str]) -> None:
    for word in words:
        await one.put(word)
        await asyncio.sleep(0.001)


async def test_silence_renews_the_lease(redis_url: str, redis: Redis) -> None:
    lease_ms = 300
    async with pen(redis_url, lease=lease_ms / 1000) as one:
        seen = {(await one.jobs.record(one.id)).attempt}
        for _ in range(4):
            end = int(await redis.hget(one.log.keys(one.id)[0], "lease_end_ms") or 0)
            while await one.log.now_ms() <= end:  # past the lease's end, as it stood
                seen.add((await one.jobs.record(one.id)).attempt)
                await asyncio.sleep(0.01)  # its number only ever grows: one look would tell
            assert (await one.log.claim(one.id, protocol.new_token(), lease_ms)).word == "held"
        assert seen == {1}


async def test_fault_18_a_silent_worker_learns_of_a_cancel(redis_url: str) -> None:
    async with pen(redis_url) as one:
        await one.put("a")
        await one.jobs.shows(one.id, "a")
        await one.log.cancel(one.id, "abcd")
        async with asyncio.timeout(3 * NOTICE_SECONDS):
            assert await one.task == "ended"
        assert (await one.jobs.kinds(one.id))[-1] == "cancelled"


async def test_fault_03_a_silent_worker_learns_that_another_has_its_job(redis_url: str, redis: Redis) -> None:
    async with pen(redis_url) as one:
        await redis.hset(one.log.keys(one.id)[0], mapping={"lease_end_ms": 1})
        other = await one.jobs.claim(one.id)
        async with asyncio.timeout(3 * NOTICE_SECONDS):
            assert await one.task == "fenced"
        assert other.record.attempt == 2


async def test_fault_03_a_fenced_writer_leaves_no_byte(redis_url: str, redis: Redis) -> None:
    async with pen(redis_url) as one:
        await redis.hset(one.log.keys(one.id)[0], mapping={"lease_end_ms": 1})
        await one.jobs.claim(one.id)
        await one.writer.put(text("late"), DONE)
        assert await one.task == "fenced"
        assert await one.jobs.kinds(one.id) == ["start"]
        assert (await one.jobs.record(one.id)).status == "running"


async def test_a_fast_chain_waits_for_the_store(redis_url: str, redis: Redis) -> None:
    chunk = "x" * 1000
    async with pen(redis_url) as one:
        async with paused(redis):
            await one.put("first")
            await one.tried(1)
            put = itertools.count()
            putting = asyncio.create_task(_put_counted(one, chunk, put))
            for _ in range(100):
                await asyncio.sleep(0)  # as far as it comes by itself
            assert not putting.done()
            assert next(put) <= BUFFER_BYTES // len(chunk) + 1
        await putting
        await one.writer.put(DONE)
        assert await one.task == "ok"
        assert await one.text() == "first" + chunk * 1000


async def _put_counted(one: Pen, chunk: str, put: itertools.count[int]) -> None:
    for _ in range(1000):
        await one.put(chunk)
        next(put)


@pytest.mark.slow
async def test_a_store_that_goes_and_comes_back_is_written_on() -> None:
    async with RedisServer(aof=True) as server:
        async with Redis.from_url(server.url) as client:
            await client.config_set("appendfsync", "always")
        async with pen(server.url) as one:
            await one.put("before ")
            await one.jobs.shows(one.id, "before ")
            await server.kill()
            await one.put("while ")
            await eventually(lambda: _failed(one, 4))
            await server.start()
            await one.put("after")
            await one.writer.put(DONE)
            assert await one.task == "ok"
            assert await one.text() == "before while after"


async def test_patience_with_a_store_out_of_reach_runs_out() -> None:
    async with RedisServer() as server, pen(server.url, patience=0.2) as one:
        await server.kill()
        await one.put("x")
        with pytest.raises(StoreUnavailable):
            await one.task


async def _failed(one: Pen, times: int) -> bool:
    return one.log.failed >= times


async def test_fault_08_a_lost_tail_is_written_again_the_same_bytes(redis_url: str, redis: Redis) -> None:
    async with pen(redis_url) as one:
        key = one.log.keys(one.id)[1]
        for letter in "abcd":
            await one.put(letter)
            await one.jobs.shows(one.id, "abcd"[: "abcd".index(letter) + 1])
        whole = await redis.get(key)
        assert isinstance(whole, bytes)
        await redis.set(key, b"".join(sse.split_frames(whole)[:2]), keepttl=True)
        await one.put("e")
        await one.jobs.shows(one.id, "abcde")
        restored = await redis.get(key)
        assert isinstance(restored, bytes)
        assert restored.startswith(whole)
        await redis.set(key, sse.split_frames(whole)[0], keepttl=True)
        await one.jobs.shows(one.id, "abcde")  # in silence, too: the empty append finds it


async def test_fault_08_a_tail_that_is_nobodys_memory_ends_the_claim_and_lets_the_job_go(
    redis_url: str, redis: Redis
) -> None:
    async with pen(redis_url) as one:
        await one.put("a")
        await one.jobs.shows(one.id, "a")
        key = one.log.keys(one.id)[1]
        await redis.set(key, b"", keepttl=True)
        await one.put("b")
        assert await one.task == "lost"
        assert await redis.get(key) == b""
        assert (await one.jobs.claim(one.id)).record.attempt == 2  # at once: nobody holds it


async def test_too_long_is_refused_and_the_end_is_always_taken(redis_url: str) -> None:
    async with pen(redis_url, max_event=500, max_log=1000) as one:
        with pytest.raises(TooLong):
            await one.put("x" * 500)
        with pytest.raises(TooLong):
            await one.put(*["y" * 100] * 20)
        await one.writer.put(protocol.failed("too_long", "m" * 600, retryable=False))
        assert await one.task == "ok"
        fold = await one.jobs.fold(one.id)
        assert fold.text.strip("y") == ""
        assert fold.error is not None


async def test_the_record_keeps_what_the_end_says(redis_url: str) -> None:
    async with pen(redis_url) as one:
        await one.writer.put(text("a"), DONE)
        assert await one.task == "ok"
        record = await one.jobs.record(one.id)
        assert (record.status, record.usage, record.error) == ("done", {"total_tokens": 3}, None)
    async with pen(redis_url) as one:
        await one.writer.put(protocol.failed("c", "m", retryable=True))
        assert await one.task == "ok"
        record = await one.jobs.record(one.id)
        assert (record.status, record.usage) == ("failed", None)
        assert record.error == {"code": "c", "message": "m", "retryable": True}


async def test_a_release_writes_what_is_gathered_and_lets_another_claim_at_once(redis_url: str) -> None:
    async with pen(redis_url) as one:
        await one.put("a", "b")
        one.writer.release()
        assert await one.task == "ok"
        assert await one.text() == "ab"
        assert (await one.jobs.record(one.id)).status == "queued"
        assert (await one.jobs.claim(one.id)).record.attempt == 2


async def test_a_release_after_the_end_is_the_end(redis_url: str) -> None:
    async with pen(redis_url) as one:
        await one.writer.put(text("a"), DONE)
        one.writer.release()
        assert await one.task == "ok"
        assert (await one.jobs.record(one.id)).status == "done"
