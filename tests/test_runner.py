"""One delivery: whatever the chain does and whoever interferes, one terminal event and a settled job."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.runnables import RunnableGenerator, RunnableLambda
from redis.asyncio import Redis

from gateway import protocol
from gateway.protocol import TERMINAL_EVENTS
from gateway.protocol.errors import StoreUnavailable
from gateway.writing.writer import Writer
from tests.support.jobs import Answering, Jobs, body, eventually
from tests.support.model_server import ModelServer, script
from workers.chains.registry import Chain, Registry
from workers.delivery import runner as runner_module
from workers.delivery.runner import AGAIN, DONE, FOREIGN_MS, GIVEN_UP_AGAIN_MS, UNKNOWN_AGAIN_MS, Runner
from workers.langchain.inside import Inside

NOTICE_SECONDS = 2.0


class ConnectionTimeoutError(Exception):
    """What a library makes of a cancellation."""

    is_retryable = True


class Odd(BaseException):
    """What no code expects."""


def raising(error: BaseException) -> Answering:
    async def answering(_: Any) -> AsyncIterator[str]:
        yield "kept"
        raise error

    return answering


async def fine(_: Any) -> AsyncIterator[str]:
    yield "a"
    yield "b"


async def silent(_: Any) -> AsyncIterator[str]:
    if _ is None:
        yield "never"


async def endless(_: Any) -> AsyncIterator[str]:
    while True:
        yield "x" * 100


async def cancels_itself_never(_: Any) -> AsyncIterator[str]:
    yield "x"
    await asyncio.Event().wait()


async def cancelled_within(_: Any) -> AsyncIterator[str]:
    yield "kept"
    inner = asyncio.create_task(asyncio.Event().wait())
    inner.cancel()
    await inner


async def cancels_itself(_: Any) -> AsyncIterator[str]:
    yield "kept"
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.Event().wait()


async def waiting(_: Any) -> AsyncIterator[str]:
    yield "before"
    await asyncio.Event().wait()


async def test_a_chain_that_answers_ends_done(redis_url: str) -> None:
    async with Jobs(redis_url, fine) as jobs:
        stream_id = await jobs.stream("q")
        assert await jobs.runner.run(body(stream_id)) == DONE
        kinds = ["start", "stage", "message", "message", "stage", "done"]
        assert await jobs.kinds(stream_id) == kinds
        done = (await jobs.messages(stream_id))[-1].event().data
        assert (done["finish_reason"], done["attempts"]) == ("stop", 1)
        assert done["duration_ms"] >= 0
        assert (await jobs.record(stream_id)).status == "done"


async def test_a_chain_that_says_nothing_ends_done(redis_url: str) -> None:
    async with Jobs(redis_url, silent) as jobs:
        stream_id = await jobs.stream("q")
        assert await jobs.runner.run(body(stream_id)) == DONE
        assert await jobs.kinds(stream_id) == ["start", "stage", "stage", "done"]


@pytest.mark.parametrize(
    "answering",
    [
        raising(ValueError("canary")),
        raising(Odd("canary")),
        raising(BaseExceptionGroup("canary", [Odd()])),
        raising(asyncio.CancelledError("canary")),
        raising(StoreUnavailable("canary")),
        cancelled_within,
        cancels_itself,
    ],
    ids=["error", "odd", "group", "cancelled", "ours", "cancelled-within", "cancels-itself"],
)
async def test_a_chain_that_raises_anything_ends_failed_at_once(
    redis_url: str, caplog: pytest.LogCaptureFixture, answering: Answering
) -> None:
    async with Jobs(redis_url, answering) as jobs:
        stream_id = await jobs.stream("q")
        assert await jobs.runner.run(body(stream_id)) == DONE
        fold = await jobs.fold(stream_id)
        assert fold.error is not None
        assert (fold.ended, fold.error["code"], fold.text) == ("failed", "chain_error", "kept")
        assert "canary" not in str(await jobs.messages(stream_id))
        assert "canary" not in caplog.text
        assert (await jobs.record(stream_id)).attempt == 1


async def test_a_chain_that_is_too_long_ends_failed_and_is_closed(redis_url: str) -> None:
    async with Jobs(redis_url, endless, max_log=5000) as jobs:
        stream_id = await jobs.stream("q")
        assert await jobs.runner.run(body(stream_id)) == DONE
        error = (await jobs.fold(stream_id)).error
        assert error is not None
        assert error["code"] == "too_long"


async def test_fault_110_a_chain_that_this_worker_lacks_waits_for_one_that_has_it(
    redis_url: str, redis: Redis
) -> None:
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream("q", chain="forgotten")
        again = [(await jobs.runner.run(body(stream_id))).again_in_ms for _ in range(5)]
        assert all(ms is not None and UNKNOWN_AGAIN_MS[0] <= ms <= UNKNOWN_AGAIN_MS[1] for ms in again)
        assert len(set(again)) > 1
        assert (await jobs.runner.give_up(body(stream_id))).again_in_ms == GIVEN_UP_AGAIN_MS
        record = await jobs.record(stream_id)
        assert (record.status, record.attempt, record.failures) == ("queued", 0, 0)
        assert await jobs.kinds(stream_id) == ["start"]
        registry = Registry(jobs.settings)
        registry._chains["forgotten"] = Chain(
            "forgotten", ("forgotten",), lambda _: RunnableLambda(str.upper)
        )
        other = Runner(jobs.settings, jobs.log, registry)
        assert await other.run(body(stream_id)) == DONE
        fold = await jobs.fold(stream_id)
        assert (fold.text, (await jobs.record(stream_id)).attempt) == ("Q", 1)


def with_the_chain(jobs: Jobs, answering: Answering) -> Runner:
    """A worker of another release, which has the chain."""

    async def transform(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for given in inputs:
            async for chunk in answering(given):
                yield chunk

    registry = Registry(jobs.settings)
    registry._chains["forgotten"] = Chain("forgotten", ("forgotten",), lambda _: RunnableGenerator(transform))
    return Runner(jobs.settings, jobs.log, registry)


@pytest.mark.parametrize("look", ["run", "give_up"])
async def test_fault_110_waiting_for_a_worker_takes_nothing_of_the_time_to_run(
    redis_url: str, redis: Redis, look: str
) -> None:
    async with Jobs(redis_url, max_run=60) as jobs:
        stream_id = await jobs.stream("q", chain="forgotten")
        job = jobs.log.keys(stream_id)[0]
        made = await redis.hget(job, "since_ms")
        assert (await getattr(jobs.runner, look)(body(stream_id))).again_in_ms is not None
        record = await jobs.record(stream_id)
        assert (record.started_ms, record.attempt) == (None, 0)
        since = await redis.hget(job, "since_ms")
        assert abs(int(since or 0) - int(made or 0)) < 1000  # its time to wait has begun when it was made
        if record.started_ms is not None:
            await redis.hincrby(job, "started_ms", -60_000)
        await redis.hincrby(job, "since_ms", -60_000)
        assert (await jobs.log.ask(stream_id, 1)).word == "yes"
        assert await with_the_chain(jobs, fine).run(body(stream_id)) == DONE
        assert (await jobs.fold(stream_id)).text == "ab"


async def test_fault_110_a_job_that_has_found_its_chain_has_its_ten_minutes_again(
    redis_url: str, redis: Redis
) -> None:
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream("q", chain="forgotten")
        assert (await jobs.runner.run(body(stream_id))).again_in_ms is not None
        await redis.hincrby(jobs.log.keys(stream_id)[0], "unknown_ms", -FOREIGN_MS)
        running = asyncio.create_task(with_the_chain(jobs, waiting).run(body(stream_id)))
        await jobs.shows(stream_id, "before")
        running.cancel()  # that worker stops, and the job comes back to the one that lacks the chain
        assert await running == AGAIN
        assert (await jobs.runner.run(body(stream_id))).again_in_ms is not None
        assert (await jobs.record(stream_id)).status == "queued"
        assert await with_the_chain(jobs, fine).run(body(stream_id)) == DONE
        assert (await jobs.fold(stream_id)).text == "ab"


async def test_fault_110_it_ends_ten_minutes_after_it_was_first_missed(redis_url: str, redis: Redis) -> None:
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream("q", chain="forgotten")
        assert (await jobs.runner.run(body(stream_id))).again_in_ms is not None
        job, *_ = jobs.log.keys(stream_id)
        first = int(await redis.hget(job, "unknown_ms") or 0)
        await redis.hset(job, "unknown_ms", first - FOREIGN_MS)
        assert await jobs.runner.run(body(stream_id)) == DONE
        assert await jobs.kinds(stream_id) == ["start", "failed"]
        assert (await jobs.fold(stream_id)).error == protocol.failed(
            "unknown_chain", "This release has no such chain.", retryable=False
        ).data


@pytest.mark.parametrize("spent", ["failures", "attempt"])
async def test_fault_05_a_job_whose_tries_are_spent_ends_failed(
    redis_url: str, redis: Redis, spent: str
) -> None:
    async with Jobs(redis_url, fine) as jobs:
        stream_id = await jobs.stream("q")
        await redis.hset(jobs.log.keys(stream_id)[0], mapping={spent: 50})
        assert await jobs.runner.run(body(stream_id)) == DONE
        error = (await jobs.fold(stream_id)).error
        assert error is not None
        assert error["code"] == "attempts_exhausted"


@pytest.mark.parametrize("raw", [b"", b"{", b"[" * 100_000, b"\xff", b'{"v":1}', b'{"v":1,"id":"../x"}'])
async def test_fault_05_poison_is_dropped(redis_url: str, raw: bytes) -> None:
    async with Jobs(redis_url) as jobs:
        assert await jobs.runner.run(raw) == DONE
        assert await jobs.runner.run(body(protocol.new_stream_id())) == DONE


async def test_fault_04_a_double_delivery_at_once_runs_once(redis_url: str) -> None:
    calls = []

    async def answering(_: Any) -> AsyncIterator[str]:
        calls.append(1)
        yield "a"
        await go_on.wait()

    go_on = asyncio.Event()
    async with Jobs(redis_url, answering) as jobs:
        stream_id = await jobs.stream("q")
        first = asyncio.create_task(jobs.runner.run(body(stream_id)))
        await jobs.shows(stream_id, "a")
        held = await jobs.runner.run(body(stream_id))
        assert held.again_in_ms is not None
        assert 0 < held.again_in_ms <= 2000  # when the holder's lease ends, and not before
        go_on.set()
        assert await first == DONE
        assert await jobs.runner.run(body(stream_id)) == DONE  # after the end
        assert calls == [1]


async def test_fault_17_nobody_reads_and_the_result_is_kept(redis_url: str, redis: Redis) -> None:
    async with Jobs(redis_url, fine) as jobs:
        stream_id = await jobs.stream("q")
        assert await redis.pubsub_numsub(f"live:{stream_id}") == [(f"live:{stream_id}".encode(), 0)]
        await jobs.runner.run(body(stream_id))
        assert (await jobs.gateway.status(stream_id, "anonymous"))["text"] == "ab"


async def test_fault_18_a_job_cancelled_before_its_start_never_starts(redis_url: str) -> None:
    async with ModelServer() as model:
        environment: dict[str, Any] = {"openai_base_url": f"{model.url}/v1", "openai_api_key": "k"}
        async with Jobs(redis_url, **environment) as jobs:
            stream_id = await jobs.stream([{"role": "user", "content": script(["a"])}], chain="chat")
            await jobs.gateway.cancel(stream_id, "anonymous")
            assert await jobs.runner.run(body(stream_id)) == DONE
            assert await jobs.kinds(stream_id) == ["start", "cancelled"]
        assert model.requests == []


async def test_fault_18_a_cancel_in_silence_stops_the_model_call(redis_url: str) -> None:
    async with ModelServer() as model:
        environment: dict[str, Any] = {"openai_base_url": f"{model.url}/v1", "openai_api_key": "k"}
        async with Jobs(redis_url, lease=15.0, **environment) as jobs:
            asked = script(["a", "b"], gate="never", gate_at=1)
            stream_id = await jobs.stream([{"role": "user", "content": asked}], chain="chat")
            running = asyncio.create_task(jobs.runner.run(body(stream_id)))
            await jobs.shows(stream_id, "a")
            document = await jobs.gateway.cancel(stream_id, "anonymous")
            assert (document["status"], document["text"]) == ("cancelled", "a")
            async with asyncio.timeout(3 * NOTICE_SECONDS):
                await model.until(cut=1)
                assert await running == DONE
            assert (await jobs.kinds(stream_id))[-1] == "cancelled"


async def test_fault_18_a_cancel_that_races_with_the_end_leaves_one_end(redis_url: str) -> None:
    async with Jobs(redis_url, fine) as jobs:
        ends = set()
        for number in range(30):
            stream_id = await jobs.stream("q")
            running = asyncio.create_task(jobs.runner.run(body(stream_id)))
            for _ in range(number * 4):
                await asyncio.sleep(0)
            await jobs.gateway.cancel(stream_id, "anonymous")
            assert await running == DONE
            ends.add((await jobs.fold(stream_id)).ended)  # which asserts that nothing follows the end
        assert ends == {"done", "cancelled"}


async def test_fault_03_a_fenced_attempt_hands_back_the_delivery_that_its_successor_works_from(
    redis_url: str, redis: Redis
) -> None:
    async with Jobs(redis_url, cancels_itself_never) as jobs:
        stream_id = await jobs.stream("q")
        running = asyncio.create_task(jobs.runner.run(body(stream_id)))
        await jobs.shows(stream_id, "x")
        await redis.hset(jobs.log.keys(stream_id)[0], mapping={"lease_end_ms": 1})
        assert (await jobs.claim(stream_id)).record.attempt == 2
        async with asyncio.timeout(3 * NOTICE_SECONDS):
            assert await running == AGAIN


class Stubborn:
    """Swallows its cancellation until it is told to end."""

    def __init__(self) -> None:
        self.told = asyncio.Event()

    async def __call__(self, _: Any) -> AsyncIterator[str]:
        yield "before"
        while not self.told.is_set():
            try:
                await self.told.wait()
            except asyncio.CancelledError:
                continue
        yield "too late"


async def test_a_run_that_takes_too_long_ends_with_what_it_has_said(redis_url: str) -> None:
    async with Jobs(redis_url, waiting, max_run=0.5) as jobs:
        stream_id = await jobs.stream("q")
        assert await jobs.runner.run(body(stream_id)) == DONE
        fold = await jobs.fold(stream_id)
        assert (fold.text, fold.error and fold.error["code"]) == ("before", "time_limit")


async def last_word(_: Any) -> AsyncIterator[str]:
    yield "before"
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        yield "a last word"  # and ends in good order


async def test_a_chain_that_ends_well_when_it_is_stopped_adds_no_second_end(redis_url: str) -> None:
    async with Jobs(redis_url, last_word, max_run=0.3) as jobs:
        stream_id = await jobs.stream("q")
        assert await jobs.runner.run(body(stream_id)) == DONE
        kinds = await jobs.kinds(stream_id)
        assert [kind for kind in kinds if kind in TERMINAL_EVENTS] == ["failed"]
        assert kinds[-1] == "failed"
        assert (await jobs.record(stream_id)).status == "failed"


async def test_a_runs_time_is_that_of_all_its_attempts(redis_url: str, redis: Redis) -> None:
    async with Jobs(redis_url, fine, max_run=60) as jobs:
        stream_id = await jobs.stream("q")
        await jobs.claim(stream_id)
        job = jobs.log.keys(stream_id)[0]
        await redis.hset(job, mapping={"lease_end_ms": 1, "started_ms": await jobs.log.now_ms() - 60_000})
        assert await jobs.runner.run(body(stream_id)) == DONE
        assert (await jobs.kinds(stream_id))[-1] == "failed"
        assert (await jobs.fold(stream_id)).text == ""


async def test_a_chain_that_does_not_let_itself_be_stopped_cannot_outstay_its_time(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "STOP_SECONDS", 0.2)
    chain = Stubborn()
    async with Jobs(redis_url, chain, max_run=0.3) as jobs:
        stream_id = await jobs.stream("q")
        assert await jobs.runner.run(body(stream_id)) == DONE
        fold = await jobs.fold(stream_id)
        assert (fold.text, fold.error and fold.error["code"]) == ("before", "time_limit")
        chain.told.set()
        left_behind = [task for task in asyncio.all_tasks() if task.get_name() == f"chain-{stream_id}"]
        await asyncio.gather(*left_behind, return_exceptions=True)
        assert (await jobs.fold(stream_id)).text == "before"


async def test_fault_112_a_chain_that_is_stopped_is_not_tried_again_whatever_it_raises(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    runs = 0

    async def renames(_: Any) -> AsyncIterator[str]:
        nonlocal runs
        runs += 1
        yield "before"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise TimeoutError from None

    async with Jobs(redis_url, renames) as jobs:
        stream_id = await jobs.stream("q")
        running = asyncio.create_task(jobs.runner.run(body(stream_id)))
        await jobs.shows(stream_id, "before")
        await jobs.gateway.cancel(stream_id, "anonymous")
        assert await running == DONE
        assert runs == 1
        assert "again in" not in caplog.text


async def test_fault_112_a_stage_over_its_limit_is_handed_over_whatever_it_raises(redis_url: str) -> None:
    runs = 0

    async def renames(_: Any) -> AsyncIterator[str]:
        nonlocal runs
        runs += 1
        yield "before"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionTimeoutError from None

    async with Jobs(redis_url, renames, stage_limit=0.2, stage_limit_tries=2, max_run=5) as jobs:
        stream_id = await jobs.stream("q")
        assert await jobs.runner.run(body(stream_id)) == AGAIN
        assert (runs, (await jobs.record(stream_id)).failures) == (1, 1)


async def test_a_chain_that_says_too_much_is_stopped_and_keeps_what_it_said(redis_url: str) -> None:
    async with Jobs(redis_url, endless, max_output_tokens=7) as jobs:
        stream_id = await jobs.stream("q")
        assert await jobs.runner.run(body(stream_id)) == DONE
        fold = await jobs.fold(stream_id)
        assert (fold.text, fold.error and fold.error["code"]) == ("x" * 700, "output_limit")


async def test_what_belongs_to_a_stream_leaves_the_memory_at_its_end(redis_url: str) -> None:
    async with Jobs(redis_url, fine) as jobs:
        assert await jobs.runner.run(body(await jobs.stream())) == DONE  # the server knows no script before
        gc.collect()
        before = _of_streams()  # an earlier test's failure may still hold some
        gc.disable()  # a full collection comes rarely: what waits for one stays for minutes
        try:
            for _ in range(3):
                stream_id = await jobs.stream()
                assert await jobs.runner.run(body(stream_id)) == DONE

            async def nothing_else_is_left() -> bool:
                return {id(one) for one in _of_streams()} <= {id(one) for one in before}

            await eventually(nothing_else_is_left)
        finally:
            gc.enable()


def _of_streams() -> list[Any]:
    return [one for one in gc.get_objects() if type(one) in (Writer, Inside)]
