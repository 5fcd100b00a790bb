"""Streams that this process writes itself: by a real store, with deaths, take-overs, cancels and silence."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.client.events import GatewayError, Refused, StreamCancelled, Unreachable
from gateway.protocol import Status
from gateway.settings import Settings
from gateway.store.log import Log
from gateway.streams.service import Gateway
from holdfast_gateway import Producer, StreamEnded, StreamTaken
from tests.support.jobs import eventually
from tests.support.producing import Mortal, fold, messages, producer, raising, told
from workers.delivery.sweeper import Sweeper

STAGES = ("outline", "text")


async def test_what_is_said_stands_in_the_log_when_the_call_returns(redis_url: str, redis: Redis) -> None:
    async with producer(redis_url) as made:
        stream = await made.open(chain="report", stages=STAGES)
        assert stream.status == "queued"
        async with stream.write("outline") as out:
            assert stream.status == "running"
            for number in range(5):
                await out.text(f"{number} ")
                assert (await told(redis, stream.id))[-1] == f"{number} "
        async with stream.write("text") as out:
            await out.tool("search", "c1", input={"q": 1})
            await out.tool("search", "c1", output=["a"])
            await out.tool("search", "c2", input={})
            await out.tool("search", "c2", failed=True)
            await out.custom("note", {"a": [1]})
            await out.text("said")
        await stream.done(usage={"input_tokens": 3}, finish_reason="length")
        assert stream.status == "done"
        assert await told(redis, stream.id) == [
            *("start", "+outline", "0 ", "1 ", "2 ", "3 ", "4 ", "-outline", "+text"),
            *("c1:started", "c1:finished", "c2:started", "c2:failed", "custom", "said", "-text", "done"),
        ]
        whole = await messages(redis, stream.id)
    assert json.loads(whole[0].data) == {
        "id": stream.id,
        "chain": "report",
        "stages": ["outline", "text"],
        "created_at": json.loads(whole[0].data)["created_at"],
    }
    assert json.loads(whole[8].data) == {"name": "text", "run": 1, "index": 1, "count": 2, "state": "started"}
    end = json.loads(whole[-1].data)
    assert (end["finish_reason"], end["usage"], end["attempts"]) == ("length", {"input_tokens": 3}, 1)
    assert 0 <= end["duration_ms"] < 60_000


async def test_a_call_from_another_threads_loop_is_made_in_the_blocks_own(
    redis_url: str, redis: Redis
) -> None:
    """LangChain calls an asynchronous handler so where a tool is a plain function."""
    async with producer(redis_url) as made:
        stream = await made.open(chain="report")
        async with stream.write() as out:
            elsewhere = (asyncio.to_thread(asyncio.run, out.text(f"{number} ")) for number in range(20))
            await asyncio.gather(*elsewhere, *(out.text(f"{number} ") for number in range(20, 40)))
            await asyncio.to_thread(asyncio.run, out.text(""))
            said = (await told(redis, stream.id))[2:]
            assert sorted(said, key=int) == [f"{number} " for number in range(40)]
            with pytest.raises(Refused):
                await asyncio.to_thread(asyncio.run, out.text("x" * 2_000_000))
        await stream.done()


async def test_a_call_from_another_thread_for_which_the_block_waits_is_told(redis_url: str) -> None:
    """A chain's `invoke` within the block's loop: LangChain waits there for the handler's thread."""
    async with producer(redis_url, store_patience=0.2) as made:
        stream = await made.open(chain="report")
        async with stream.write() as out:
            with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="is blocked"):
                pool.submit(asyncio.run, out.text("never")).result()
            await out.text("said")
        await stream.done()


async def test_the_status_document_and_readers_know_it_as_any_other(redis_url: str) -> None:
    gateway = Gateway(Settings(redis_url=redis_url), {"chat": ["chat"]})
    async with producer(redis_url) as made:
        stream = await made.open(chain="mine", metadata={"ticket": 7})
        async with stream.write() as out:
            await out.text("Hello")
        document = dict(await gateway.status(stream.id, "anonymous"))
        await stream.failed("no_paper", "There is no paper.", retryable=True)
        ended = dict(await gateway.status(stream.id, "anonymous"))
    await gateway.close()
    assert (document["status"], document["chain"], document["metadata"]) == ("running", "mine", {"ticket": 7})
    assert document["stages"] == [{"name": "mine", "run": 1, "state": "finished", "text": "Hello"}]
    assert ended["error"] == {"code": "no_paper", "message": "There is no paper.", "retryable": True}


WORDS = {"outline": ["a", "b"], "text": ["c", "d"]}


@pytest.mark.parametrize("die_after", range(5))
async def test_a_producer_that_says_the_same_goes_on_after_a_kill_without_a_seam(
    redis_url: str, redis: Redis, die_after: int
) -> None:
    await Mortal(redis_url, "k", WORDS, die_after).died()
    async with producer(redis_url) as made:
        stream = await made.open(chain="told", stages=STAGES, key="k")
        before = await told(redis, stream.id)
        assert [word for word in before if word in "abcd"] == list("abcd")[:die_after]  # nothing told is lost
        for stage, words in WORDS.items():
            async with stream.write(stage) as out:
                assert out.finished is (f"-{stage}" in before)
                assert not out.finished or out.result == "".join(words)
                for word in words:
                    await out.text(word)
        await stream.done()
    whole = ["start", "+outline", "a", "b", "-outline", "+text", "c", "d", "-text", "done"]
    assert await told(redis, stream.id) == whole


async def test_another_answer_costs_one_reset(redis_url: str, redis: Redis) -> None:
    await Mortal(redis_url, "k", {"outline": ["a", "b", "c", "d"], "text": []}, 3).died()
    async with producer(redis_url) as made:
        stream = await made.open(chain="told", stages=STAGES, key="k")
        async with stream.write("outline") as out:
            for word in ("a", "B", "C"):
                await out.text(word)
            assert out.result == "aBC"
        assert await told(redis, stream.id) == ["start", "+outline", *"abc", "reset", *"aBC", "-outline"]
        reset = next(message for message in await messages(redis, stream.id) if message.type == "reset")
        assert json.loads(reset.data)["attempt"] == 2
        assert (await fold(redis, stream.id)).text == "aBC"
        await stream.failed("enough")


async def test_less_said_than_stands_is_a_reset_too(redis_url: str, redis: Redis) -> None:
    async with producer(redis_url) as made:
        stream = await made.open(chain="told", key="k")
        with raising(ZeroDivisionError):
            async with stream.write() as out:
                await out.text("a")
                await out.text("b")
                raise ZeroDivisionError
        async with stream.write() as out:  # the same producer tries again
            await out.text("a")
        assert await told(redis, stream.id) == ["start", "+told", "a", "b", "reset", "a", "-told"]
        reset = next(message for message in await messages(redis, stream.id) if message.type == "reset")
        assert json.loads(reset.data)["reason"] == "retried"
        await stream.done()
    assert (await fold(redis, stream.id)).text == "a"


async def test_a_tools_call_keeps_the_id_that_it_has_in_the_log(redis_url: str, redis: Redis) -> None:
    async with producer(redis_url) as made:
        for call in ("first", "second"):
            stream = await made.open(chain="told", key="k")
            with raising(ZeroDivisionError):
                async with stream.write() as out:
                    await out.tool("search", call, input={"q": 1})
                    if call == "second":
                        await out.tool("search", call, output="found")
                    raise ZeroDivisionError
        assert await told(redis, stream.id) == ["start", "+told", "first:started", "first:finished"]
        await stream.failed("enough")


async def test_a_take_over_fences_the_older_holder_at_its_next_call(redis_url: str, redis: Redis) -> None:
    async with producer(redis_url) as one, producer(redis_url) as other:
        first = await one.open(chain="told", key="k")
        second = await other.open(chain="told", key="k")
        assert first.id == second.id
        with raising(StreamTaken):
            async with first.write() as old:
                await old.text("a")
                async with second.write() as new:
                    with pytest.raises(StreamTaken):
                        await old.text("b")
                    await new.text("a")
                    await new.text("c")
                with pytest.raises(StreamTaken):
                    await old.text("")
                await old.text("d")
        with raising(StreamTaken):
            async with first.write():
                pass
        with pytest.raises(StreamTaken):
            await first.done()
        await second.done()
    assert await told(redis, second.id) == ["start", "+told", "a", "c", "-told", "done"]


async def test_a_cancel_is_raised_at_the_next_call(redis_url: str, redis: Redis) -> None:
    gateway = Gateway(Settings(redis_url=redis_url), {})
    async with producer(redis_url) as made:
        stream = await made.open(chain="told", key="k")
        with raising(StreamCancelled):
            async with stream.write() as out:
                await out.text("a")
                await gateway.end(stream.id, "anonymous")
                await out.text("b")
                pytest.fail("it was told that this stands")
        for end in (stream.done(), stream.failed("x")):
            with pytest.raises(StreamCancelled):
                await end
        assert stream.status == "cancelled"
        again = await made.open(chain="told", key="k")
        assert again.status == "cancelled"
        with raising(StreamCancelled):
            async with again.write():
                pass
    await gateway.close()
    assert await told(redis, stream.id) == ["start", "+told", "a", "cancelled"]


async def test_a_silent_block_is_interrupted_by_a_cancel(redis_url: str) -> None:
    gateway = Gateway(Settings(redis_url=redis_url), {})
    speaking = asyncio.Queue[str]()

    async def silent(made: Producer) -> None:
        stream = await made.open(chain="told")
        with raising(StreamCancelled):
            async with stream.write() as out:
                await out.text("a")
                speaking.put_nowait(stream.id)
                await asyncio.Event().wait()  # a model that says nothing
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0  # it goes on as if nobody had cancelled it

    async with producer(redis_url) as made:
        block = asyncio.create_task(silent(made))
        await gateway.end(await speaking.get(), "anonymous")
        async with asyncio.timeout(30):
            await block
        block = asyncio.create_task(silent(made))
        await speaking.get()
        block.cancel()  # somebody else's cancellation stays one
        with pytest.raises(asyncio.CancelledError):
            await block
    await gateway.close()


async def test_an_end_is_written_once_and_repeating_it_is_no_error(redis_url: str, redis: Redis) -> None:
    async with producer(redis_url) as made:
        stream = await made.open(chain="told", key="k")
        await stream.done()
        await stream.done()
        again = await made.open(chain="told", key="k")
        await again.done()
        for call in (again.failed("x"), again.write().__aenter__()):
            with pytest.raises(StreamEnded) as caught:
                await call
            assert caught.value.status == "done"
        broken = await made.open(chain="told")
        await broken.failed("x")
        await broken.failed("x")
        with pytest.raises(StreamEnded):
            await broken.done()
    assert await told(redis, stream.id) == ["start", "done"]


async def test_stages_come_in_their_order_each_once(redis_url: str) -> None:
    async with producer(redis_url) as made:
        stream = await made.open(chain="told", stages=STAGES)
        with pytest.raises(ValueError, match="several stages"):
            stream.write()
        for wrong in ("text", "other"):
            with pytest.raises(Refused) as caught:
                await stream.write(wrong).__aenter__()
            assert (caught.value.status, caught.value.code) == (422, "invalid")
        with raising(ZeroDivisionError):
            async with stream.write("outline"):
                with pytest.raises(RuntimeError, match="is being written"):
                    await stream.write("text").__aenter__()
                raise ZeroDivisionError
        with pytest.raises(Refused, match="must be finished"):
            await stream.done()
        async with stream.write("outline") as out:
            out.result = {"n": 1}
        with pytest.raises(RuntimeError, match="is over"):
            await out.text("late")
        async with stream.write("outline") as out:
            assert (out.finished, out.result) == (True, {"n": 1})
            await out.text("dropped")
            out.result = "dropped"
        async with stream.write("text") as out:
            pass
        await stream.done()


async def test_a_key_is_one_stream_and_one_request(redis_url: str) -> None:
    gateway = Gateway(Settings(redis_url=redis_url), {})
    given: dict[str, Any] = {"chain": "c", "stages": ("a", "b"), "metadata": {"m": 1}, "key": "k"}
    async with producer(redis_url) as made:
        ids = {stream.id for stream in await asyncio.gather(*(made.open(**given) for _ in range(8)))}
        assert len(ids) == 1
        assert (await made.open(**given, owner="key:bob")).id not in ids
        for other in ({"chain": "d"}, {"stages": ("a",)}, {"metadata": {"m": 2}}, {"metadata": None}):
            with pytest.raises(Refused) as caught:
                await made.open(**{**given, **other})
            assert (caught.value.status, caught.value.code) == (422, "idempotency_key_reused")
    await gateway.close()


WRONG: list[dict[str, Any]] = [
    {"chain": ""},
    {"chain": "a\nb"},
    {"chain": 7},
    {"chain": "c", "stages": ("a", "a")},
    {"chain": "c", "stages": ("",)},
    {"chain": "c", "stages": tuple(map(str, range(101)))},
    {"chain": "c", "metadata": {"m": "x" * 5000}},
    {"chain": "c", "metadata": {"m": object()}},
    {"chain": "c", "owner": "x" * 129},
    {"chain": "c", "key": "x" * 256},
]


@pytest.mark.parametrize("given", WRONG, ids=lambda given: str(given)[:40])
async def test_what_breaks_a_rule_is_refused_and_nothing_is_stored(
    redis_url: str, redis: Redis, given: dict[str, Any]
) -> None:
    async with producer(redis_url) as made:
        with pytest.raises(Refused) as caught:
            await made.open(**given)
        assert caught.value.status == 422
    assert await redis.keys("*:job:*") == []


async def test_the_callers_quota_holds(redis_url: str) -> None:
    async with producer(redis_url, max_owner_streams=2) as made:
        first = await made.open(chain="c", owner="key:alice", key="k")
        await made.open(chain="c", owner="key:alice")
        with pytest.raises(Refused) as caught:
            await made.open(chain="c", owner="key:alice")
        assert (caught.value.status, caught.value.code) == (429, "over_quota")
        assert caught.value.retry_after is not None
        assert (await made.open(chain="c", owner="key:alice", key="k")).id == first.id
        await made.open(chain="c", owner="key:bob")
        await first.done()
        await made.open(chain="c", owner="key:alice")


async def test_what_is_too_long_is_refused_and_the_stream_goes_on(redis_url: str, redis: Redis) -> None:
    async with producer(redis_url, max_event=1000, max_checkpoints=2000, max_log=9000) as made:
        stream = await made.open(chain="c")
        async with stream.write() as out:
            with pytest.raises(Refused) as caught:
                await out.text("x" * 1000)
            assert (caught.value.status, caught.value.code) == (413, "too_large")
            with pytest.raises(Refused):
                await out.custom("n", object())
            with pytest.raises(ValueError, match="its input"):
                await out.tool("n", "c", input=1, output=2)
            await out.text("fits")
            out.result = None
        stream = await made.open(chain="c")
        with raising(Refused):  # the default result
            async with stream.write() as out:
                for _ in range(3):
                    await out.text("x" * 700)
        with raising(StreamEnded):
            async with stream.write() as out:
                for _ in range(20):
                    await out.text("y" * 700)
        assert (await fold(redis, stream.id)).ended is Status.FAILED
        assert json.loads((await messages(redis, stream.id))[-1].data)["code"] == "too_long"


@pytest.mark.parametrize("when", ["opened", "within a block", "between blocks"])
async def test_a_lost_producer_is_told_once_its_grace_is_over(
    redis_url: str, redis: Redis, when: str
) -> None:
    settings = Settings(redis_url=redis_url, producer_grace=1.0)
    gateway = Gateway(settings, {})
    sweeper = Sweeper(gateway.parts.log, gateway.parts.queue, backoff=0.1)
    async with producer(redis_url, producer_grace=1.0) as made:
        stream = await made.open(chain="told", stages=STAGES, key="k")
        if when == "between blocks":
            async with stream.write("outline") as out:
                await out.text("a")
        elif when == "within a block":
            await Mortal(redis_url, "k", {"outline": ["a", "b"], "text": []}, 1, grace="1").died()

        async def lost() -> bool:
            await sweeper.sweep()
            return (await told(redis, stream.id))[-1] == "failed"

        await eventually(lost)
        [*_, end] = await messages(redis, stream.id)
        assert json.loads(end.data)["code"] == "producer_lost"
        assert json.loads(end.data)["retryable"] is True
        again = await made.open(chain="told", stages=STAGES, key="k")
        assert again.status == "failed"
        with pytest.raises(StreamEnded):
            await again.done()
    assert await redis.zcard("{" + stream.id[:2] + "}:open") == 0
    assert await gateway.parts.queue.depth() == 0
    await gateway.close()


async def test_a_silent_block_keeps_its_stream_for_longer_than_the_grace(
    redis_url: str, redis: Redis
) -> None:
    gateway = Gateway(Settings(redis_url=redis_url), {})
    sweeper = Sweeper(gateway.parts.log, gateway.parts.queue, backoff=0.1)
    ends: set[Any] = set()

    async def renewed() -> bool:
        await sweeper.sweep()
        ends.add(await redis.hget(Log.keys(stream.id)[0], "lease_end_ms"))
        return len(ends) > 4  # each a third of the grace after the one before

    async with producer(redis_url, producer_grace=3.0) as made:
        stream = await made.open(chain="c")
        async with stream.write():
            await eventually(renewed)
        await stream.done()
    await gateway.close()


async def test_no_worker_takes_a_producers_stream_and_no_producer_a_workers(redis_url: str) -> None:
    gateway = Gateway(Settings(redis_url=redis_url), {})
    log = gateway.parts.log
    async with producer(redis_url) as made:
        stream = await made.open(chain="c")
        assert (await log.claim(stream.id, "a" * 32, 1000)).word == "unknown"
        assert (await log.ask(stream.id, 1000)).word == "wait"
        await stream.done()
    await gateway.close()


async def test_a_store_out_of_reach_is_unreachable() -> None:
    async with Producer(Settings(redis_url="redis://127.0.0.1:1", store_patience=0.1)) as made:
        with pytest.raises(Unreachable):
            await made.open(chain="c")
    with pytest.raises(ValueError, match="REDIS_URL"):
        Producer(Settings())
    with pytest.raises(RuntimeError):
        await made.open(chain="c")
    assert issubclass(StreamTaken, GatewayError)
    assert issubclass(StreamEnded, GatewayError)
