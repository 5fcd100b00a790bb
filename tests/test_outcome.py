"""The worker logs one line for each attempt, whatever ended it. These tests use a runner and a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from gateway import protocol
from gateway.observe.loglines import Told
from gateway.protocol.errors import StoreUnavailable
from gateway.writing.writer import Writer
from tests.support.jobs import Jobs, body
from tests.support.redis_server import RedisServer
from workers.delivery.report import Outcome


async def fine(_: Any) -> AsyncIterator[str]:
    yield "a"
    yield "b"


async def failing(_: Any) -> AsyncIterator[str]:
    yield "a"
    raise ValueError("".join(["can", "ary"]))  # The stack quotes this line, so the word is split.


async def waiting(_: Any) -> AsyncIterator[str]:
    yield "a"
    await asyncio.Event().wait()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("INFO", "holdfast.attempt")
    return caplog


def told(log: pytest.LogCaptureFixture) -> dict[str, Any]:
    """Return the values of the one line that was logged since the last call."""
    [values] = [dict(record.msg.values) for record in log.records if isinstance(record.msg, Told)]
    assert isinstance(values.pop("ms"), int)
    log.clear()
    return values


async def test_an_end_is_told_with_events_bytes_and_status(
    redis_url: str, log: pytest.LogCaptureFixture
) -> None:
    async with Jobs(redis_url, fine) as jobs:
        stream = await jobs.stream()
        before = (await jobs.log.record(stream))[1]
        await jobs.runner.run(body(stream))
        record, after = await jobs.log.record(stream)
        assert record is not None
        assert told(log) == {
            "stream": stream,
            "owner": "anonymous",
            "chain": "under-test",
            "attempt": 1,
            "word": "ok",
            "status": "done",
            "events": 5,
            "bytes": after - before,
        }


async def test_a_failure_is_told_by_its_code_and_without_its_text(
    redis_url: str, log: pytest.LogCaptureFixture
) -> None:
    async with Jobs(redis_url, failing) as jobs:
        await jobs.runner.run(body(await jobs.stream()))
        assert "canary" not in log.text
        values = told(log)
        assert (values["word"], values["status"], values["code"]) == ("ok", "failed", "chain_error")


async def test_a_hand_over_is_told_as_one(redis_url: str, log: pytest.LogCaptureFixture) -> None:
    async with Jobs(redis_url, waiting) as jobs:
        stream = await jobs.stream()
        running = asyncio.create_task(jobs.runner.run(body(stream)))
        await jobs.shows(stream, "a")
        running.cancel()
        await running
        values = told(log)
        assert (values["word"], values["attempt"]) == ("handed over", 1)
        assert "status" not in values


@pytest.mark.parametrize("word", ["fenced", "ended"])
async def test_a_claim_that_is_over_is_told_by_the_stores_word(
    redis_url: str, log: pytest.LogCaptureFixture, word: str
) -> None:
    async with Jobs(redis_url, waiting) as jobs:
        stream = await jobs.stream()
        running = asyncio.create_task(jobs.runner.run(body(stream)))
        await jobs.shows(stream, "a")
        if word == "ended":
            await jobs.gateway.cancel(stream, protocol.ANONYMOUS)
        else:
            await jobs.connection.call("HSET", jobs.log.keys(stream)[0], "token", "0" * 32)
        await running
        values = told(log)
        assert values["word"] == word
        assert "status" not in values


async def test_a_store_out_of_reach_is_told(log: pytest.LogCaptureFixture) -> None:
    async with RedisServer() as server, Jobs(server.url, waiting, store_patience=0.1) as jobs:
        stream = await jobs.stream()
        running = asyncio.create_task(jobs.runner.run(body(stream)))
        await jobs.shows(stream, "a")
        await server.kill()
        with pytest.raises(StoreUnavailable):
            await running
        [line] = [record for record in log.records if isinstance(record.msg, Told)]
        assert line.levelname == "WARNING"
        assert told(log)["word"] == "store"


async def test_a_trace_is_told_by_its_id(redis_url: str, log: pytest.LogCaptureFixture) -> None:
    async with Jobs(redis_url, fine) as jobs:
        stream = await jobs.stream()
        claim = await jobs.claim(stream)
        trace = f"00-{'a' * 32}-{'b' * 16}-01"
        traced = replace(claim, record=replace(claim.record, trace=trace))
        await jobs.runner._attempt(traced, known=True)
        assert told(log)["trace"] == "a" * 32


async def test_an_end_that_the_store_did_not_take_is_not_told_as_one(
    redis_url: str, log: pytest.LogCaptureFixture
) -> None:
    async with Jobs(redis_url, fine) as jobs:
        stream = await jobs.stream()
        claim = await jobs.claim(stream)
        writer = Writer(jobs.log, claim, lease=2.0, patience=1.0, max_event=1000, max_log=10_000)
        await writer.put(protocol.failed("chain_error", "", retryable=False))
        await jobs.gateway.cancel(stream, protocol.ANONYMOUS)
        Outcome(claim, writer).tell(await writer.run())
        values = told(log)
        assert values["word"] == "ended"
        assert not {"status", "code"} & values.keys()
