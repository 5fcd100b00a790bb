"""The producer without `await`: from this thread and from others, by the same store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.client.events import Refused, StreamCancelled
from gateway.settings import Settings
from gateway.streams.service import Gateway
from holdfast_gateway import StreamTaken, SyncProducer
from tests.support.producing import raising, told


async def apart(work: Callable[[], Any]) -> Any:
    """What a thread of its own answers: there no event loop runs."""
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, work)


async def test_it_is_the_same_without_await_from_several_threads(redis_url: str, redis: Redis) -> None:
    def work() -> str:
        with SyncProducer(Settings(redis_url=redis_url)) as producer:
            stream = producer.open(chain="report", stages=("outline", "text"), key="k")
            with stream.write("outline") as out, ThreadPoolExecutor(4) as pool:
                list(pool.map(out.text, ["x"] * 20))
            with stream.write("text") as out:
                out.tool("search", "c1", input={})
                out.custom("note", 1)
                out.text("said")
                out.result = ["r"]
            again = producer.open(chain="report", stages=("outline", "text"), key="k")
            with again.write("outline") as out:
                assert (out.finished, out.result) == (True, "x" * 20)
            with again.write("text") as out:
                assert (out.finished, out.result) == (True, ["r"])
            again.done()
            again.done()
            assert (again.status, again.id) == ("done", stream.id)
            return stream.id

    stream_id = await apart(work)
    outline = ["start", "+outline", *["x"] * 20, "-outline"]
    rest = ["+text", "c1:started", "custom", "said", "-text", "done"]
    assert await told(redis, stream_id) == outline + rest
    assert not [thread for thread in threading.enumerate() if thread.name == "producer"]


async def test_an_exception_leaves_the_stage_open_a_take_over_is_told(redis_url: str, redis: Redis) -> None:
    def work() -> str:
        with SyncProducer(Settings(redis_url=redis_url)) as producer:
            first, second = (producer.open(chain="c", key="k") for _ in range(2))
            with raising(ZeroDivisionError), first.write() as out:
                out.text("a")
                raise ZeroDivisionError
            with raising(StreamTaken), first.write() as old, second.write() as new:
                new.text("a")
                old.text("a")
                old.text("b")
            with second.write() as new:
                new.text("a")
            second.failed("enough")
            with pytest.raises(Refused):
                producer.open(chain="")
            return first.id

    assert await told(redis, await apart(work)) == ["start", "+c", "a", "-c", "failed"]


async def test_a_cancel_is_told_at_the_next_call(redis_url: str, redis: Redis) -> None:
    gateway = Gateway(Settings(redis_url=redis_url), {})
    opened, ended = threading.Event(), threading.Event()
    ids: list[str] = []

    def work() -> None:
        with SyncProducer(Settings(redis_url=redis_url)) as producer:
            stream = producer.open(chain="c")
            ids.append(stream.id)
            with raising(StreamCancelled), stream.write() as out:
                opened.set()
                assert ended.wait(30)
                out.text("")

    async def cancel() -> None:
        assert await apart(lambda: opened.wait(30))
        await gateway.end(ids[0], "anonymous")
        ended.set()

    await asyncio.gather(apart(work), cancel())
    await gateway.close()
    assert await told(redis, ids[0]) == ["start", "+c", "cancelled"]


def test_it_works_within_its_own_with() -> None:
    producer = SyncProducer(Settings(redis_url="redis://127.0.0.1:1"))
    with pytest.raises(RuntimeError, match="own `with`"):
        producer.open(chain="c")
