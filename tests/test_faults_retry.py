"""A stage is retried while the store loses the end of the log: each word is in the log once (docs/faults)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.callbacks import adispatch_custom_event
from langchain_core.runnables import RunnableConfig, RunnableLambda

from gateway.protocol import Cursor, sse
from gateway.store.log import Log
from gateway.store.record import Piece
from gateway.writing.standing import MOST_READS
from tests.support.jobs import Jobs, body
from workers.attempt import retry
from workers.chains.registry import chain
from workers.delivery.runner import DONE

WORDS = [f"w{number} " for number in range(40)]
MOST_DELIVERIES = 40


class CutError(Exception):
    is_retryable = True


class Cut:
    """A chain that sends all its words. The first `times` tries then fail with CutError."""

    def __init__(self, times: int) -> None:
        self.left = times

    async def answer(self, given: Any) -> AsyncIterator[str]:
        for word in WORDS:
            yield word
        if self.left:
            self.left -= 1
            raise CutError


async def lose(jobs: Jobs, stream_id: str, frames: int) -> None:
    """Restore the log and its last id to their state before the last `frames` frames."""
    job, log, _ = Log.keys(stream_id)
    standing = sse.split_frames(await jobs.connection.call("GET", log))
    kept = standing[: max(len(standing) - frames, 1)]
    last = kept[-1].split(b"\n")[0].removeprefix(b"id: ")
    await jobs.connection.call_all([("SET", log, b"".join(kept), "KEEPTTL"), ("HSET", job, "last_id", last)])


@pytest.mark.parametrize("when", ["before the read", "between its pieces", "after it", "again and again"])
async def test_fault_35_no_word_stands_twice(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(retry, "FIRST_SECONDS", 0.0)
    chain = Cut(1)
    async with Jobs(redis_url, chain.answer) as jobs:
        stream_id = await jobs.stream()
        read, reads, losses = jobs.log.read, 0, 0

        async def losing(stream: str, after: Cursor | None, limit: int = 1000) -> Piece:
            nonlocal reads, losses
            reads += 1
            if when == "before the read" and reads == 1:
                await lose(jobs, stream, 20)
            if when == "between its pieces" and reads == 2:
                await lose(jobs, stream, 35)
            if when == "again and again" and after is None and losses < MOST_READS - 2:
                losses += 1
                await lose(jobs, stream, 1)
            piece = await read(stream, after, limit)
            if when == "after it" and piece.at_end and reads < 30:
                await lose(jobs, stream, 20)
            return piece

        monkeypatch.setattr(jobs.log, "read", losing)
        # A log end that the worker no longer has in memory is rebuilt by the next delivery.
        for _ in range(MOST_DELIVERIES):
            if await jobs.runner.run(body(stream_id)) == DONE:
                break
        assert reads > 1
        assert (await jobs.fold(stream_id)).text == "".join(WORDS)
        assert "reset" not in await jobs.kinds(stream_id)


async def test_fault_35_what_a_try_that_has_failed_goes_on_to_say_is_not_heard(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A branch of `asyncio.gather` still runs after another branch has failed.

    Its try is already over then.
    """
    monkeypatch.setattr(retry, "FIRST_SECONDS", 0.0)
    again, late, runs = asyncio.Event(), asyncio.Event(), 0
    ends: list[BaseException | None] = []

    async def fails() -> None:
        raise CutError

    async def lags(config: RunnableConfig) -> None:
        await again.wait()
        try:
            await adispatch_custom_event("late", {}, config=config)
            ends.append(None)
        except RuntimeError as error:
            ends.append(error)
        finally:
            late.set()

    async def run(given: Any, config: RunnableConfig) -> str:
        nonlocal runs
        runs += 1
        await adispatch_custom_event("run", {"of": "both"}, config=config)
        if runs == 1:
            await asyncio.gather(fails(), lags(config))
        again.set()
        await late.wait()
        return "said"

    chain("goes-on")(lambda _: RunnableLambda(run))
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream(chain="goes-on")
        assert await jobs.runner.run(body(stream_id)) == DONE
        events = [message.event() for message in await jobs.messages(stream_id)]
        assert [event.data["name"] for event in events if event.type == "custom"] == ["run"]
        assert (await jobs.fold(stream_id)).text == "said"
        assert [str(end) for end in ends] == ["the stage is over"]
