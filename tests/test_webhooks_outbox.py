"""The outbox on a real Redis: what each script answers, bounds, and the deliverer between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway import protocol
from gateway.outbox.body import MOST_BYTES
from gateway.outbox.deliverer import MOST_CLAIMS, Deliverer
from gateway.protocol import Status, sse
from gateway.protocol.errors import OverQuota
from gateway.settings import Settings
from gateway.store.outbox import Outbox, Outgoing
from gateway.store.record import Record
from gateway.streams.service import Gateway
from gateway.streams.start import Start
from gateway.webhooks.asked import Webhook
from tests.support.receiver import Receiver, answer
from tests.support.redis_cluster import RedisCluster

HOOK = Webhook("https://example.org/")
START = Start("c", {"input": 1}, {}, webhook=HOOK)
LONG_MS = 60_000
DONE = protocol.done(finish_reason="stop", usage={}, attempts=1, duration_ms=1)


@asynccontextmanager
async def gateway_of(redis_url: str, **settings: Any) -> AsyncIterator[Gateway]:
    given = {"webhook_keys": "k" * 32, "webhook_loopback": "yes", "webhook_retry": "0 0", **settings}
    gateway = Gateway(Settings(redis_url=redis_url, **given), {"c": ("c",)})
    try:
        yield gateway
    finally:
        await gateway.close()


async def ended(gateway: Gateway, webhook: Webhook = HOOK, owner: str = "alice", **fields: Any) -> str:
    """A stream that was cancelled; the name of its webhook."""
    record = await gateway.create(replace(START, webhook=webhook, **fields), owner=owner)
    await gateway.end(record.id, owner)
    return f"{record.id}_cancelled"


def deliverer_of(gateway: Gateway) -> Deliverer:
    return Deliverer(gateway.settings, gateway.parts.log, gateway.parts.outbox)


async def entry_of(gateway: Gateway, name: str) -> Outgoing | None:
    return next((one for one in await gateway.parts.outbox.listed(100) if one.name == name), None)


async def test_the_entry_comes_with_the_event_and_lasts_with_its_record(redis_url: str, redis: Redis) -> None:
    async with gateway_of(redis_url, retention=1.0, tombstone=1.0) as gateway:
        record = await gateway.create(START, owner="alice")
        name = f"{record.id}_cancelled"
        entry, outbox, undelivered, job, log = Outbox.keys(name)
        assert not await redis.exists(entry, outbox, undelivered)
        await gateway.end(record.id, "alice")
        fields = await redis.hgetall(entry)
        assert fields[b"url"] == HOOK.url.encode()
        assert (fields[b"stream"], fields[b"event"], fields[b"owner"]) == (
            record.id.encode(),
            b"cancelled",
            b"alice",
        )
        assert await gateway.parts.outbox.due(10) == [name]
        assert await redis.pttl(log) <= 1000
        for key in (entry, outbox, job):
            assert await redis.pttl(key) > 6 * 86_400_000
        assert (await gateway.parts.outbox.take(name, "t", LONG_MS)) is not None
        assert await gateway.parts.outbox.settle(name, "t", "sent") == "settled"
        assert not await redis.exists(entry, outbox)
        assert 0 < await redis.pttl(job) <= 2000  # as of a stream without a webhook


async def test_one_process_has_it_until_its_lease_is_over(redis_url: str, redis: Redis) -> None:
    async with gateway_of(redis_url) as gateway:
        outbox, name = gateway.parts.outbox, await ended(gateway)
        taken = await outbox.take(name, "one", LONG_MS)
        assert taken is not None
        assert (taken.webhook_id, taken.owner, taken.tries, taken.claims) == (f"msg_{name}", "alice", 0, 1)
        assert await outbox.take(name, "two", LONG_MS) is None
        assert await outbox.due(10) == []
        again = await outbox.take(name, "one", LONG_MS)  # its lease is renewed
        assert again is not None
        assert again.claims == 1
        assert await outbox.fill(name, "two", b"other") is None
        assert await outbox.fill(name, "one", b"first") == b"first"
        assert await outbox.settle(name, "two", "sent") == "fenced"
        await redis.hset(Outbox.keys(name)[0], "due_ms", 1)
        second = await outbox.take(name, "two", LONG_MS)
        assert second is not None
        assert (second.body, second.claims) == (b"first", 2)
        assert await outbox.fill(name, "two", b"second") == b"first"
        assert await outbox.fill(name, "one", b"first") is None
        assert await outbox.settle(name, "one", "sent") == "fenced"


async def test_what_came_of_a_try_says_when_it_is_due_again(redis_url: str, redis: Redis) -> None:
    async with gateway_of(redis_url) as gateway:
        outbox, name = gateway.parts.outbox, await ended(gateway)
        assert await outbox.take(name, "t", LONG_MS)
        assert await outbox.settle(name, "t", "back", pause_ms=0) == "settled"
        taken = await outbox.take(name, "t", LONG_MS)
        assert taken is not None
        assert (taken.tries, taken.claims) == (0, 1)
        assert await outbox.settle(name, "t", "again", "500", LONG_MS) == "settled"
        assert await outbox.settle(name, "t", "again", "500", LONG_MS) == "fenced"  # its answer was lost
        assert await outbox.take(name, "u", LONG_MS) is None
        entry = await entry_of(gateway, name)
        assert entry is not None
        assert (entry.tries, entry.outcome, entry.dead, entry.held) == (1, "500", False, False)
        # Redis's clock has gone back: what is due later than it was ever to wait is due now.
        await redis.hset(Outbox.keys(name)[0], "due_ms", entry.due_ms + 10 * LONG_MS)
        assert await outbox.take(name, "u", LONG_MS) is not None
        assert await outbox.settle(name, "u", "dead", "timeout") == "settled"
        assert await outbox.take(name, "v", LONG_MS) is None
        assert await outbox.due(10, all_of_them=True) == []
        entry = await entry_of(gateway, name)
        assert entry is not None
        assert (entry.tries, entry.dead) == (2, True)
        assert await outbox.redrive(name)
        taken = await outbox.take(name, "v", LONG_MS)
        assert taken is not None
        assert (taken.tries, taken.dead) == (0, False)
        assert not await outbox.redrive("00" + "A" * 22 + "_done")


async def test_of_those_given_up_a_bucket_keeps_its_share(redis_url: str, redis: Redis) -> None:
    async with gateway_of(redis_url, max_webhooks=512) as gateway:
        outbox = gateway.parts.outbox
        first = await ended(gateway)
        names = [first]
        while len(names) < 3:  # of the same bucket: keys are made by hand
            stream_id = first[:2] + protocol.new_stream_id()[2:]
            if f"{stream_id}_cancelled" < names[-1]:
                continue  # of the same millisecond the first in order goes first
            names.append(f"{stream_id}_cancelled")
            await redis.copy(Outbox.keys(first)[0], Outbox.keys(names[-1])[0])
            await redis.hset(Outbox.keys(names[-1])[0], "stream", stream_id)
            await redis.pexpire(Outbox.keys(names[-1])[0], LONG_MS)
        for name in names:
            assert await outbox.take(name, "t", LONG_MS)
            assert await outbox.settle(name, "t", "dead") == "settled"
        kept = {one.name for one in await outbox.listed(100)}
        assert kept == set(names[1:])
        assert not await redis.exists(Outbox.keys(first)[0])


async def test_a_reader_at_the_end_takes_an_unseen_one_back(redis_url: str, redis: Redis) -> None:
    async with gateway_of(redis_url) as gateway:
        log, unseen = gateway.parts.log, replace(HOOK, unseen=60.0)
        name = await ended(gateway, unseen)
        stream_id = name.partition("_cancelled")[0]
        assert await gateway.parts.outbox.due(10) == []
        assert await log.see(stream_id)
        assert not await log.see(stream_id)
        assert not await redis.exists(*Outbox.keys(name)[:2])
        told = await ended(gateway)
        assert not await log.see(told.partition("_cancelled")[0])
        assert await redis.exists(Outbox.keys(told)[0])
        late = await ended(gateway, unseen)
        await redis.hset(Outbox.keys(late)[0], "due_ms", 1)
        assert await gateway.parts.outbox.take(late, "t", LONG_MS)
        assert not await log.see(late.partition("_cancelled")[0])  # somebody sends it already


async def test_an_owner_has_so_many_and_no_more(redis_url: str, redis: Redis) -> None:
    async with gateway_of(redis_url, max_owner_webhooks=2) as gateway:
        names = [await ended(gateway) for _ in range(2)]
        with pytest.raises(OverQuota, match="2 webhooks"):
            await ended(gateway)
        await ended(gateway, owner="bob")
        await gateway.create(replace(START, webhook=None), owner="alice")
        outbox = gateway.parts.outbox
        assert await outbox.take(names[0], "t", LONG_MS)
        await outbox.settle(names[0], "t", "dead")
        with pytest.raises(OverQuota):  # one that was given up is not delivered either
            await ended(gateway)
        assert await outbox.take(names[1], "t", LONG_MS)
        await outbox.settle(names[1], "t", "sent")
        await ended(gateway)


async def test_all_owners_have_so_many_and_no_more(redis_url: str, redis: Redis) -> None:
    async with gateway_of(redis_url, max_webhooks=1) as gateway:
        stream_id = protocol.new_stream_id()
        await gateway.parts.outbox.admit("alice", stream_id)
        outbox = Outbox.keys(f"{stream_id}_done")[1]
        await redis.zadd(outbox, {"other": 1})
        await redis.pexpire(outbox, LONG_MS)
        with pytest.raises(OverQuota, match="too many"):
            await gateway.parts.outbox.admit("alice", stream_id)


async def test_it_is_sent_until_there_is_no_pause_left(redis_url: str, redis: Redis) -> None:
    async with Receiver([answer(500)] * 3) as receiver, gateway_of(redis_url) as gateway:
        name = await ended(gateway, Webhook(receiver.url()))
        deliverer = deliverer_of(gateway)
        for tries in (1, 2, 3):
            await redis.delete("turn:webhooks")
            await deliverer.sweep()
            assert len(receiver.received) == tries
        entry = await entry_of(gateway, name)
        assert entry is not None
        assert (entry.dead, entry.tries, entry.outcome) == (True, 3, "500")
        assert await gateway.parts.outbox.redrive(name)
        await redis.delete("turn:webhooks")
        await deliverer.sweep()
        assert len({(one.id, one.body) for one in receiver.received}) == 1
        assert len(receiver.received) == 4
        assert await entry_of(gateway, name) is None


async def test_one_that_kills_whoever_sends_it_is_given_up(redis_url: str, redis: Redis) -> None:
    async with Receiver() as receiver, gateway_of(redis_url, webhook_retry="") as gateway:
        name = await ended(gateway, Webhook(receiver.url()))
        await redis.hset(Outbox.keys(name)[0], "claims", MOST_CLAIMS)
        await deliverer_of(gateway).sweep()
        entry = await entry_of(gateway, name)
        assert entry is not None
        assert (entry.dead, entry.outcome, receiver.connections) == (True, "lost", 0)


async def test_a_lease_is_renewed_while_it_is_sent(redis_url: str) -> None:
    async with Receiver([None]) as receiver, gateway_of(redis_url, lease=0.3) as gateway:
        name = await ended(gateway, Webhook(receiver.url()))
        sending = asyncio.create_task(deliverer_of(gateway).sweep())
        await receiver.until(lambda: receiver.received)
        first = await entry_of(gateway, name)
        assert first is not None
        async with asyncio.timeout(30):
            while (now := await entry_of(gateway, name)) is not None and now.due_ms <= first.due_ms + 1000:
                assert await gateway.parts.outbox.take(name, "other", 300) is None
                await asyncio.sleep(0.02)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def test_a_long_text_is_left_out_and_an_expired_log_is_no_loss(redis_url: str, redis: Redis) -> None:
    async with Receiver() as receiver, gateway_of(redis_url) as gateway:
        record = await gateway.create(replace(START, webhook=Webhook(receiver.url("/long"))), owner="alice")
        log = gateway.parts.log
        claim = (await log.claim(record.id, protocol.new_token(), LONG_MS)).claim
        assert claim is not None
        frame = sse.encode(
            protocol.text("x" * 2 * MOST_BYTES, deployment="d", stage="c"), claim.log_end, claim.tag
        )
        end = claim.log_end + len(frame)
        frames = frame + sse.encode(DONE, end, claim.tag)
        done = await log.append(claim, claim.log_end, frames, f"{end}-{claim.tag}", LONG_MS, status="done")
        assert done.word == "ok"
        gone = await ended(gateway, Webhook(receiver.url("/gone")))
        await redis.delete(Outbox.keys(gone)[4])
        await deliverer_of(gateway).sweep()
        [long], [lost] = receiver.of("/long"), receiver.of("/gone")
        assert len(long.body) < MOST_BYTES
        for one, status in ((long, Status.DONE), (lost, Status.CANCELLED)):
            assert one.document["text_left_out"] is True
            assert (one.document["data"]["status"], one.document["data"]["text"]) == (status, None)


async def test_an_interruption_is_told_as_it_was_though_it_was_answered_since(
    redis_url: str, redis: Redis
) -> None:
    async with Receiver() as receiver, gateway_of(redis_url) as gateway:
        record = await gateway.create(replace(START, webhook=Webhook(receiver.url())), owner="alice")
        log = gateway.parts.log
        claim = (await log.claim(record.id, protocol.new_token(), LONG_MS)).claim
        assert claim is not None
        frames = sse.encode(DONE, claim.log_end, claim.tag)
        questions = [{"id": "q", "value": "?"}]
        fields = {"questions": sse.dumps(questions), "pending": '["q"]', "thread_ms": LONG_MS}
        await log.append(
            claim,
            claim.log_end,
            frames,
            f"{claim.log_end}-{claim.tag}",
            LONG_MS,
            status="done",
            fields=fields,
        )
        await gateway.end(record.id, "alice")  # it waits no more
        await deliverer_of(gateway).sweep()
        told = {one.document["type"]: one.document["data"] for one in receiver.received}
        assert set(told) == {"stream.interrupted", "stream.cancelled"}
        assert told["stream.interrupted"]["status"] == "waiting"
        assert told["stream.interrupted"]["interrupts"] == questions
        assert told["stream.cancelled"]["status"] == "cancelled"
        look: Record | None = (await log.look(record.id, "alice")).record
        assert look is not None


async def test_an_owner_who_is_slow_holds_up_his_own(redis_url: str) -> None:
    async with Receiver([None] * 4) as receiver, gateway_of(redis_url) as gateway:
        for _ in range(4):
            await ended(gateway, Webhook(receiver.url("/slow")))
        deliverer = deliverer_of(gateway)
        sending = asyncio.create_task(deliverer.run())
        await receiver.until(lambda: len(receiver.received) == 4)
        late = await ended(gateway, Webhook(receiver.url("/late")))
        await ended(gateway, Webhook(receiver.url("/bob")), owner="bob")
        await receiver.until(lambda: receiver.of("/bob"))
        assert not receiver.of("/late")
        assert await entry_of(gateway, late) is not None
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def test_two_processes_send_each_of_many_once(redis_url: str) -> None:
    async with (
        Receiver() as receiver,
        gateway_of(redis_url, max_owner_streams=100) as one,
        gateway_of(redis_url) as other,
    ):
        sent = {await ended(one, Webhook(receiver.url()), owner=f"owner-{n % 10}") for n in range(40)}
        sending = [asyncio.create_task(deliverer_of(gateway).run()) for gateway in (one, other)]
        await receiver.until(lambda: len(receiver.received) >= len(sent))
        async with asyncio.timeout(60):
            while await one.parts.outbox.listed(100):  # noqa: ASYNC110 - only the store can tell
                await asyncio.sleep(0.05)
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        assert sorted(received.id for received in receiver.received) == sorted(f"msg_{name}" for name in sent)


async def test_a_cluster_keeps_each_webhook_beside_its_stream() -> None:
    async with Receiver() as receiver, RedisCluster() as cluster, gateway_of(cluster.url) as gateway:
        names = {await ended(gateway, Webhook(receiver.url()), owner=f"owner-{n}") for n in range(6)}
        assert {entry.name for entry in await gateway.parts.outbox.listed(100)} == names
        dead = names.pop()
        assert await gateway.parts.outbox.take(dead, "t", LONG_MS)
        assert await gateway.parts.outbox.settle(dead, "t", "dead") == "settled"
        await deliverer_of(gateway).sweep()
        assert {received.id for received in receiver.received} == {f"msg_{name}" for name in names}
        assert await gateway.parts.outbox.redrive(dead)
        assert [entry.name for entry in await gateway.parts.outbox.listed(100)] == [dead]
