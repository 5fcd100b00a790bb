"""Streams that are not to be stored, on a real Redis: who ends them, tells of them or erases them may die."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway import protocol
from gateway.outbox.deliverer import Deliverer
from gateway.protocol.errors import StreamNotFound
from gateway.settings import Settings
from gateway.store.journal import UNSTORED_MS, Journal
from gateway.store.log import Log
from gateway.store.outbox import Outbox
from gateway.store.threads import keys_of, own_thread_of
from gateway.store.usage import Usage
from gateway.streams.resume import Resume
from gateway.streams.service import Gateway
from gateway.streams.start import Start
from gateway.webhooks.asked import Webhook
from tests.support.everything import keys_with
from tests.support.jobs import eventually
from tests.support.receiver import Receiver, answer

pytestmark = pytest.mark.slow
OWNER = "key:alice"
WORDS = "canary-unstored"
START = Start("c", {"input": WORDS}, {"p": WORDS}, {"about": WORDS}, unstored=True)
LONG_MS = 60_000
ASKS: dict[str, Any] = {
    "questions": json.dumps([{"id": "q", "value": WORDS}]),
    "pending": '["q"]',
    "thread_ms": 3_600_000,
}


@asynccontextmanager
async def gateway_of(redis_url: str, **settings: Any) -> AsyncIterator[Gateway]:
    given = {"webhook_keys": "k" * 32, "webhook_loopback": "yes", "webhook_retry": "0.2 0.2", **settings}
    gateway = Gateway(Settings(redis_url=redis_url, **given), {"c": ("c",)})
    try:
        yield gateway
    finally:
        await gateway.close()


async def finished(gateway: Gateway, stream_id: str, status: str = "done", **fields: Any) -> None:
    """A process runs it to its end, and dies at once: nobody projects what it has told."""
    log = Log(gateway.parts.redis)
    claim = (await log.claim(stream_id, protocol.new_token(), 60_000, run_ms=60_000)).claim
    assert claim is not None
    event = protocol.done(finish_reason="stop", usage={"input_tokens": 7}, attempts=1, duration_ms=1)
    said = protocol.sse.encode(protocol.text(WORDS, deployment="c", stage="c"), claim.log_end, claim.tag)
    end = protocol.sse.encode(event, claim.log_end + len(said), claim.tag)
    last = f"{claim.log_end + len(said)}-{claim.tag}"
    kept = {"usage": '{"input_tokens":7,"output_tokens":3}', **fields}
    answered = await log.append(claim, claim.log_end, said + end, last, 60_000, status=status, fields=kept)
    assert answered.word == "ok"


async def begun(gateway: Gateway, start: Start = START) -> str:
    """Its id; made by another process, which is gone now."""
    async with gateway_of(gateway.settings.redis_url) as other:
        return (await other.create(start, owner=OWNER, key=WORDS)).id


async def gone(redis: Redis, stream_id: str) -> bool:
    named = {key.rpartition(":")[2] for key in await keys_with(redis, stream_id)}
    return not await keys_with(redis, WORDS) and named <= {"starts", "queue", "jobs"}


async def swept(gateway: Gateway, redis: Redis, stream_id: str) -> bool:
    """Another process has the turn, from time to time."""
    assert gateway.parts.log.projector is not None
    await gateway.parts.log.projector.sweep()
    return await gone(redis, stream_id)


async def test_fault_82_what_a_dead_process_has_ended_is_counted_and_erased_by_another(
    redis_url: str, redis: Redis
) -> None:
    async with gateway_of(redis_url) as gateway:
        stream_id = await begun(gateway)
        await finished(gateway, stream_id)
        for key in Log.keys(stream_id)[:2]:
            assert 0 < await redis.pttl(key) <= UNSTORED_MS
        await eventually(lambda: swept(gateway, redis, stream_id), 20)
        assert await redis.exists(Journal.key(stream_id), Journal.due_key(stream_id)) == 0
        assert (await Usage(gateway.parts.redis).of(OWNER)).day == (7, 3)


async def test_where_nobody_lives_what_it_has_said_goes_all_the_same(redis_url: str, redis: Redis) -> None:
    async with gateway_of(redis_url) as gateway:
        stream_id = await begun(gateway)
        await finished(gateway, stream_id)

        async def is_silent() -> bool:
            return not await keys_with(redis, WORDS)

        await eventually(is_silent, 20)
        assert await redis.exists(Journal.key(stream_id))  # so that what it has used is counted
        for one in range(3):  # by several, one after the other and at once
            await asyncio.gather(*(swept(gateway, redis, stream_id) for _ in range(one + 1)))
        assert await gone(redis, stream_id)


async def test_a_projector_that_erases_nothing_leaves_it_to_another(redis_url: str, redis: Redis) -> None:
    async with gateway_of(redis_url) as gateway:
        projector = gateway.parts.log.projector
        assert projector is not None
        stream_id = await begun(gateway)
        await finished(gateway, stream_id)
        erase, projector.erase = projector.erase, None
        await redis.zadd(Journal.due_key(stream_id), {stream_id: 1})
        await projector.sweep()
        await eventually(lambda: nothing_of(redis, Log.keys(stream_id)[0]), 20)
        await projector.settle(stream_id)
        assert await redis.xlen(Journal.key(stream_id)) == 1
        projector.erase = erase
        await eventually(lambda: swept(gateway, redis, stream_id), 20)


async def nothing_of(redis: Redis, key: str) -> bool:
    return not await redis.exists(key)


async def test_one_that_asks_is_kept_until_it_is_answered_and_the_next_is_not_stored_either(
    redis_url: str, redis: Redis
) -> None:
    async with gateway_of(redis_url) as gateway:
        first = await begun(gateway)
        await finished(gateway, first, **ASKS)
        await redis.hset(keys_of(OWNER, own_thread_of(first))[0], "c", WORDS)  # its checkpoints
        assert await redis.pttl(Log.keys(first)[1]) > 3_000_000
        second = (await gateway.resume(first, Resume({"q": WORDS}), owner=OWNER)).id
        assert await redis.pttl(Log.keys(first)[1]) <= UNSTORED_MS

        async def first_is_gone() -> bool:
            await swept(gateway, redis, first)
            return not await redis.exists(*Log.keys(first)[:2], Journal.key(first))

        await eventually(first_is_gone, 20)
        assert await redis.exists(keys_of(OWNER, own_thread_of(first))[0])  # the next one goes on from them
        await finished(gateway, second)
        await eventually(lambda: swept(gateway, redis, second), 20)
        assert not await redis.exists(keys_of(OWNER, own_thread_of(first))[0])


@pytest.mark.parametrize("end", ["cancelled", "expired"])
async def test_one_that_asks_and_is_not_answered(redis_url: str, redis: Redis, end: str) -> None:
    async with gateway_of(redis_url) as gateway:
        stream_id = await begun(gateway)
        await redis.hset(Log.keys(stream_id)[0], "keep_ms", 2000)
        await finished(gateway, stream_id, **ASKS | {"thread_ms": 2000})
        if end == "cancelled":
            await gateway.end(stream_id, OWNER)
            assert await redis.pttl(Log.keys(stream_id)[0]) <= UNSTORED_MS
        await eventually(lambda: swept(gateway, redis, stream_id), 30)


async def test_an_answer_may_say_that_what_follows_is_not_stored(redis_url: str, redis: Redis) -> None:
    async with gateway_of(redis_url) as gateway:
        first = await begun(gateway, replace(START, unstored=False))
        await finished(gateway, first, **ASKS)
        second = (await gateway.resume(first, Resume({"q": 1}, unstored=True), owner=OWNER)).id
        await finished(gateway, second)
        assert await redis.pttl(Log.keys(second)[0]) <= UNSTORED_MS
        assert await redis.pttl(Log.keys(first)[0]) > LONG_MS


@pytest.mark.parametrize("event", ["done", "interrupted"])
async def test_its_webhook_goes_out_without_its_words_also_after_it_is_gone(
    redis_url: str, redis: Redis, event: str
) -> None:
    async with Receiver(answers=[answer(500)]) as receiver, gateway_of(redis_url) as gateway:
        start = replace(START, webhook=Webhook(receiver.url("/hook"), (event,)))
        stream_id = await begun(gateway, start)
        await finished(gateway, stream_id, **(ASKS if event == "interrupted" else {}))
        if event == "interrupted":
            await gateway.end(stream_id, OWNER)
        await eventually(lambda: silent(gateway, redis), 20)
        with pytest.raises(StreamNotFound):
            await gateway.find(stream_id, OWNER)
        deliverer = Deliverer(gateway.settings, gateway.parts.log, gateway.parts.outbox)

        async def told() -> bool:
            await deliverer.sweep()
            return len(receiver.received) == 2

        await eventually(told, 20)
        assert receiver.received[0].body == receiver.received[1].body
        sent = receiver.received[1].document
        assert (sent["type"], sent["data"]["id"], sent["text_left_out"]) == (
            f"stream.{event}",
            stream_id,
            True,
        )
        assert sent["data"]["status"] == ("waiting" if event == "interrupted" else "done")
        assert (sent["data"]["text"], sent["data"]["metadata"]) == (None, None)
        assert WORDS.encode() not in receiver.received[1].body
        assert not await redis.exists(Outbox.keys(f"{stream_id}_{event}")[0])


async def silent(gateway: Gateway, redis: Redis) -> bool:
    assert gateway.parts.log.projector is not None
    await gateway.parts.log.projector.sweep()
    return not await keys_with(redis, WORDS)
