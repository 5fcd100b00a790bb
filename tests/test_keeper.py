"""A chain that blocks the event loop keeps its lease for a limited time (row 111 of docs/faults.md)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from threading import Event, Thread
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

from gateway.protocol import new_token
from gateway.settings import Settings
from gateway.store.own_connection import opened
from tests.support.jobs import Jobs, body
from workers.chains.registry import chain

LEASE_SECONDS = 2.0
blocking: dict[str, Any] = {}


@chain("blocks")
def blocks(_: Any) -> Any:
    async def run(given: Any) -> str:
        """Block the event loop until the thread of `others` has tried to claim the job often enough."""
        blocking["begun"].set()
        blocking["enough"].wait(30)
        return "done"

    return RunnableLambda(run)


def others(settings: Settings, stream_id: str, words: Counter[str], until: Any) -> None:
    """Try to claim the job again and again, as another worker does, in a thread with its own event loop."""

    async def claims() -> None:
        blocking["begun"].wait(30)
        end = time.monotonic() + 1.6 * LEASE_SECONDS
        async with opened(settings) as log:
            while time.monotonic() < end and not until(words):
                answer = await log.claim(stream_id, new_token(), round(LEASE_SECONDS * 1000))
                words[answer.word] += 1
                await asyncio.sleep(0.02)
        blocking["enough"].set()

    asyncio.run(claims())


@pytest.mark.slow
@pytest.mark.parametrize(("bound", "word"), [(60.0, "held"), (0.7, "claimed")])
async def test_fault_111_the_lease_of_a_chain_that_blocks_is_kept_within_a_bound(
    redis_url: str, caplog: pytest.LogCaptureFixture, bound: float, word: str
) -> None:
    blocking.update(begun=Event(), enough=Event())
    words: Counter[str] = Counter()
    async with Jobs(redis_url, lease=LEASE_SECONDS, blocked=bound) as jobs:
        stream_id = await jobs.stream("q", chain="blocks")
        thread = Thread(target=others, args=(jobs.settings, stream_id, words, lambda seen: "claimed" in seen))
        thread.start()
        try:
            await jobs.runner.run(body(stream_id))
        finally:
            thread.join()
        told = [record for record in caplog.records if record.name == "holdfast.keeper"]
        assert told[-1].levelno == (logging.WARNING if word == "held" else logging.ERROR)
        assert "chain blocks has kept the event loop" in told[0].getMessage()
        assert len(told) == 1 if word == "held" else len(told) <= 2
        if word == "held":
            assert set(words) == {"held"}
            assert ((await jobs.fold(stream_id)).text, (await jobs.record(stream_id)).attempt) == ("done", 1)
        else:
            assert words["claimed"] == 1
            assert (await jobs.record(stream_id)).attempt == 2
