"""Threads on a real Redis: one stream at a time, the strategies, and what heals when a process dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from gateway.protocol import Status
from gateway.protocol.errors import OverQuota, ThreadBusy, ThreadMoved
from gateway.queue.turns import Turns
from gateway.settings import Settings
from gateway.store.quota import Quota
from gateway.store.record import Record
from gateway.store.threads import MOST_WAITING, State, Threads, keys_of, named_keys, named_of, thread_id
from gateway.streams.placing import Placing
from gateway.streams.service import Gateway
from gateway.streams.start import Start
from tests.support.jobs import Jobs, body, eventually
from workers.delivery.runner import DONE
from workers.delivery.sweeper import Sweeper

OWNER = "alice"


async def says(given: Any) -> AsyncIterator[str]:
    yield f"heard {given}"


@pytest_asyncio.fixture
async def jobs(redis_url: str) -> AsyncIterator[Jobs]:
    async with Jobs(redis_url, says, max_owner_streams=1000, max_owner_starts=1000) as made:
        yield made


async def start(
    jobs: Jobs, strategy: str = "reject", *, owner: str = OWNER, key: str = "", **more: Any
) -> str:
    asked = Start("under-test", {"input": "q"}, {}, thread="trip", strategy=strategy, **more)
    return (await jobs.gateway.create(asked, owner=owner, key=key)).id


async def queued(jobs: Jobs) -> set[str]:
    """The streams whose jobs the queue has."""
    return {one.decode() for one in await jobs.connection.call("ZRANGE", "{holdfast-jobs}:jobs", 0, -1)}


async def state(jobs: Jobs, owner: str = OWNER) -> State:
    return await jobs.gateway.parts.threads.look(owner, "trip")


async def status(jobs: Jobs, stream_id: str) -> Status:
    return (await jobs.record(stream_id)).status


def test_checkpoints_belong_to_the_named_thread_else_to_the_first_stream() -> None:
    fields = {"owner": "alice", "chain": "c"}
    assert thread_id(Record.made("id", fields)) == "stream:id"
    assert thread_id(Record.made("id", {**fields, "first": "one"})) == "stream:one"
    assert thread_id(Record.made("id", {**fields, "first": "one", "thread": "trip"})) == "trip"


async def test_a_second_stream_is_refused_until_the_first_is_over(jobs: Jobs) -> None:
    first = await start(jobs)
    with pytest.raises(ThreadBusy) as refused:
        await start(jobs)
    assert (refused.value.code, refused.value.problem()["stream"]) == ("thread_busy", first)
    assert await jobs.runner.run(body(first)) == DONE
    second = await start(jobs)
    assert (await state(jobs)).holder == second


async def test_two_owners_of_one_name_never_meet(jobs: Jobs) -> None:
    first = await start(jobs)
    other = await start(jobs, owner="bob")
    assert [(await state(jobs, owner)).holder for owner in (OWNER, "bob")] == [first, other]
    assert not set(named_keys(OWNER, "trip")) & set(named_keys("bob", "trip"))
    assert named_keys('a","b', "c") != named_keys("a", 'b","c')


async def test_of_forty_starts_at_once_one_runs(jobs: Jobs) -> None:
    results = await asyncio.gather(*(start(jobs) for _ in range(40)), return_exceptions=True)
    [one] = [result for result in results if isinstance(result, str)]
    assert sum(isinstance(result, ThreadBusy) for result in results) == 39
    assert await queued(jobs) == {one}
    others = await start(jobs, owner="bob")
    assert await queued(jobs) == {one, others}


async def test_the_places_of_those_who_were_refused_are_free(redis_url: str) -> None:
    async with Jobs(redis_url, says, max_owner_streams=3) as jobs:
        await start(jobs)
        await asyncio.gather(*(start(jobs) for _ in range(10)), return_exceptions=True)
        for _ in range(2):
            await start(jobs, "enqueue")
        with pytest.raises(OverQuota):  # what waits is one of the caller's streams
            await start(jobs, "enqueue")


async def test_the_key_of_a_start_that_its_thread_refused_asks_as_if_for_the_first_time(
    jobs: Jobs, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await start(jobs)
    assert jobs.log.projector is not None
    await jobs.log.projector.close()  # what is told of the stream stands
    before = set(await redis.keys())
    places = await redis.zcard(Quota.keys(OWNER)[0])

    async def passes(*_: Any) -> None:
        """Another start has come between this look and the turn."""

    monkeypatch.setattr(Placing, "check", passes)
    for _ in range(2):
        with pytest.raises(ThreadBusy) as refused:
            await start(jobs, key="k")
        assert refused.value.problem()["stream"] == first
        assert await redis.zcard(Quota.keys(OWNER)[0]) == places
    assert set(await redis.keys()) == before
    await jobs.runner.run(body(first))
    second = await start(jobs, key="k")
    assert await jobs.runner.run(body(second)) == DONE
    assert await start(jobs, key="k") == second


async def test_those_that_wait_run_one_after_the_other(jobs: Jobs) -> None:
    ids = [await start(jobs, "enqueue") for _ in range(4)]
    assert await queued(jobs) == {ids[0]}
    assert (await state(jobs)).waiting == tuple(ids[1:])
    assert [await status(jobs, one) for one in ids] == [Status.QUEUED] * 4
    with pytest.raises(ThreadBusy):
        await start(jobs)
    for _ in ids:
        delivery = await jobs.delivery()
        assert await jobs.runner.run(delivery.body) == DONE
        await jobs.queue.done(delivery)
    assert [await status(jobs, one) for one in ids] == [Status.DONE] * 4
    ended = [(await jobs.record(one)).ended_ms or 0 for one in ids]
    began = [(await jobs.record(one)).started_ms or 0 for one in ids]
    assert all(a <= b for a, b in zip(ended, began[1:], strict=False))


async def test_a_delete_takes_one_out_of_the_line(jobs: Jobs) -> None:
    ids = [await start(jobs, "enqueue") for _ in range(3)]
    await jobs.gateway.end(ids[1], OWNER)
    assert (await state(jobs)).waiting == (ids[2],)
    assert await queued(jobs) == {ids[0]}
    await jobs.gateway.end(ids[0], OWNER)
    assert (await state(jobs)).holder == ids[2]
    assert ids[2] in await queued(jobs)


async def test_so_many_may_wait(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_WAITING == 100
    monkeypatch.setattr("gateway.store.threads.MOST_WAITING", 2)
    for _ in range(3):
        await start(jobs, "enqueue")
    with pytest.raises(ThreadBusy, match="wait"):
        await start(jobs, "enqueue")


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
async def test_a_stream_may_displace_all_that_are_there(jobs: Jobs, strategy: str) -> None:
    first, second = [await start(jobs, "enqueue") for _ in range(2)]
    claim = await jobs.claim(first)
    last = await start(jobs, strategy)
    assert [await status(jobs, one) for one in (first, second)] == [Status.CANCELLED] * 2
    assert await state(jobs) == replace(await state(jobs), holder=last, waiting=(), leaving={})
    assert last in await queued(jobs)
    assert (await jobs.log.append(claim, claim.log_end, b"", claim.record.last_id, 1000)).word == "ended"
    assert await jobs.runner.run(body(last)) == DONE


async def test_the_same_key_is_the_same_stream(jobs: Jobs) -> None:
    first = await start(jobs, key="k")
    assert await start(jobs, key="k") == first
    second = await start(jobs, "enqueue", key="k2")
    assert await start(jobs, "enqueue", key="k2") == second
    assert (await state(jobs)).waiting == (second,)


async def test_a_stream_goes_on_from_the_one_that_it_has_seen(jobs: Jobs) -> None:
    first = await start(jobs, after="")
    await jobs.runner.run(body(first))
    with pytest.raises(ThreadMoved):
        await start(jobs, after="")
    assert await start(jobs, after=first)


async def test_a_caller_may_have_so_many_threads(redis_url: str) -> None:
    async with Jobs(redis_url, says, max_owner_threads=1) as jobs:
        await start(jobs)
        asked = Start("under-test", {"input": "q"}, {}, thread="other")
        with pytest.raises(OverQuota):
            await jobs.gateway.create(asked, owner=OWNER)
        assert await jobs.gateway.create(asked, owner="bob")


# Deaths: each step of a hand-over is left undone, and somebody finds the thread later.


async def die_at(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    async def dies(*_: Any, **__: Any) -> Any:
        raise asyncio.CancelledError

    monkeypatch.setattr(owner, name, dies)


async def heals(jobs: Jobs, stream_id: str) -> None:
    """The sweeper gives it the turn, and its job is in the queue."""

    async def sent() -> bool:
        await Sweeper(jobs.log, jobs.queue, backoff=0.05).sweep(all_of_them=True)
        return stream_id in await queued(jobs)

    await eventually(sent)
    assert (await state(jobs)).holder == stream_id
    assert await jobs.runner.run(body(stream_id)) == DONE
    assert await status(jobs, stream_id) is Status.DONE


@pytest.mark.parametrize("step", ["leave", "enqueue"])
async def test_a_worker_that_dies_as_it_hands_on(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    first, second = [await start(jobs, "enqueue") for _ in range(2)]
    with monkeypatch.context() as dying:
        await die_at(dying, Threads if step == "leave" else type(jobs.queue), step)
        with pytest.raises(asyncio.CancelledError):
            await jobs.runner.run(body(first))
    assert await status(jobs, first) is Status.DONE
    assert second not in await queued(jobs)
    await heals(jobs, second)


@pytest.mark.parametrize("step", ["_displace", "_cancel", "_leave"])
async def test_a_web_process_that_dies_as_it_displaces(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    first = await start(jobs)
    with monkeypatch.context() as dying:
        await die_at(dying, Turns, step)
        with pytest.raises(asyncio.CancelledError):
            await start(jobs, "rollback")
    second = (await state(jobs)).newest
    await heals(jobs, second)
    assert await status(jobs, first) is Status.CANCELLED


async def test_a_web_process_that_dies_before_its_stream_is_confirmed(
    jobs: Jobs, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as dying:
        await die_at(dying, type(jobs.queue), "enqueue")
        with pytest.raises(asyncio.CancelledError):
            await start(jobs)
    lost = (await state(jobs)).holder
    assert 0 < await redis.pttl(jobs.log.keys(lost)[0]) <= 60_000
    with pytest.raises(ThreadBusy):
        await start(jobs)
    await redis.delete(jobs.log.keys(lost)[0])  # as it expires
    assert (await state(jobs)).holder == lost
    assert (await state(jobs)).holder != await start(jobs) != lost


async def test_the_sweeper_sends_nobody_who_has_to_wait(jobs: Jobs) -> None:
    first, second = [await start(jobs, "enqueue") for _ in range(2)]
    await jobs.claim(first)
    for _ in range(3):
        await Sweeper(jobs.log, jobs.queue, backoff=0.01).sweep(all_of_them=True)
    assert await queued(jobs) == {first}
    assert await jobs.runner.run(body(second)) == DONE  # a message from somebody who knows no threads
    assert await status(jobs, second) is Status.QUEUED
    assert (await jobs.record(second)).attempt == 0


async def test_a_thread_that_the_store_has_lost_begins_anew(jobs: Jobs, redis: Redis) -> None:
    first = await start(jobs)
    await redis.delete(named_keys(OWNER, "trip")[0])
    assert await jobs.runner.run(body(first)) == DONE
    assert await status(jobs, first) is Status.DONE
    assert (await state(jobs)).newest == first


# Deletion


async def test_a_stream_that_was_ended_while_a_worker_claimed_it_does_not_come_back(jobs: Jobs) -> None:
    first = await start(jobs)
    read = await jobs.record(first)  # as the worker has read it, before the next start ends it
    last = await start(jobs, "interrupt")
    turns = Turns(jobs.log, jobs.queue)
    for _ in range(2):  # while the last runs, and when it is over
        assert not await turns.has_turn(read, 60_000, 60_000)
        assert ((await state(jobs)).newest, (await state(jobs)).waiting) == (last, ())
        await jobs.runner.run(body(last))
    assert await status(jobs, last) is Status.DONE


async def test_a_stream_that_the_store_has_begun_anew_runs_in_its_thread_again(
    jobs: Jobs, redis: Redis
) -> None:
    first = await start(jobs)
    read = await jobs.record(first)
    assert await jobs.gateway.parts.threads.leave(OWNER, "trip", first) == ""  # its end was lost
    assert await Turns(jobs.log, jobs.queue).has_turn(read, 60_000, 60_000)
    assert (await state(jobs)).holder == first


async def test_a_deletion_ends_what_runs_and_leaves_no_key(jobs: Jobs, redis: Redis) -> None:
    before = set(await redis.keys("*"))
    ids = [await start(jobs, "enqueue") for _ in range(3)]
    await jobs.claim(ids[0])
    gateway: Gateway = jobs.gateway
    assert sorted(await gateway.parts.turns.end(OWNER, "trip")) == sorted(ids)
    left = {str(key) for key in set(await redis.keys("*")) - before}
    assert not [key for key in left if any(stream_id in key for stream_id in ids)]
    assert not await redis.exists(*named_keys(OWNER, "trip"), *keys_of(OWNER, "trip"), named_of(OWNER))
    assert await start(jobs)


async def test_a_deletion_does_not_end_a_stream_that_it_has_not_seen(jobs: Jobs) -> None:
    threads = jobs.gateway.parts.threads
    seen = await state(jobs)
    stream_id = await start(jobs)
    assert not await threads.end(OWNER, "trip", seen)
    assert (await state(jobs)).holder == stream_id


async def test_every_key_of_a_thread_expires(jobs: Jobs, redis: Redis) -> None:
    for _ in range(2):
        await start(jobs, "enqueue")
    record = await jobs.record((await state(jobs)).holder)
    threads = jobs.gateway.parts.threads
    assert await threads.remember(record, [{"role": "user"}], thread_ms=60_000, most_bytes=1000)
    for key in [*named_keys(OWNER, "trip"), named_of(OWNER)]:
        assert await redis.pttl(key) > 0, key
    longest_ms = (
        jobs.gateway.settings.record_seconds * 1000
    )  # whoever deletes the thread finds each record by it
    assert longest_ms - 60_000 < await redis.pttl(named_keys(OWNER, "trip")[1]) <= longest_ms


# Memory


async def test_what_was_said_is_kept_in_order_and_bounded(jobs: Jobs) -> None:
    threads = jobs.gateway.parts.threads
    for text in ("one", "two", "three"):
        stream_id = await start(jobs)
        record = await jobs.record(stream_id)
        for _ in range(2):  # the same again is the same
            kept = await threads.remember(record, [{"say": text}], thread_ms=60_000, most_bytes=150)
            assert kept
        await jobs.gateway.end(stream_id, OWNER)
    assert await threads.memory(OWNER, "trip") == [{"say": "two"}, {"say": "three"}]
    assert await threads.memory(OWNER, "trip", stream_id) == [{"say": "two"}]
    await threads.drop_run(OWNER, "trip", stream_id)
    assert await threads.memory(OWNER, "trip") == [{"say": "two"}]


async def test_who_has_not_the_turn_remembers_nothing(jobs: Jobs) -> None:
    threads = jobs.gateway.parts.threads
    _, second = [await start(jobs, "enqueue") for _ in range(2)]
    record = await jobs.record(second)
    assert not await threads.remember(record, [], thread_ms=60_000, most_bytes=1000)


def test_settings_bound_the_threads() -> None:
    with pytest.raises(ValueError, match="GATEWAY_MAX_OWNER_THREADS"):
        Settings(max_owner_threads=0)
