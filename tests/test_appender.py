"""The appender writes for many claims in one script, each independent of the others.

Tested on one Redis and on a cluster.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from gateway import protocol
from gateway.protocol import sse
from gateway.redis.cluster import Router
from gateway.redis.connection import Connection
from gateway.store.appender import MOST_BYTES, MOST_CLAIMS
from gateway.store.log import Log
from gateway.store.record import Batch, Claim
from tests.support.following import LEASE_MS, Stream, connected, until
from tests.support.pen import text
from tests.support.redis_cluster import RedisCluster


class Written:
    """A claimed stream, the batches it gives to the appender, and the results that the appender reports."""

    def __init__(self, log: Log, claim: Claim, lease_ms: int = LEASE_MS) -> None:
        self.log, self.claim, self.id, self.lease_ms = log, claim, claim.record.id, lease_ms
        self.keys = log.keys(self.id)
        self.appends = log.appends(claim, lease_ms, self)
        self.end = claim.log_end
        self.batches: deque[Batch] = deque()
        self.told: list[bool] = []

    def say(self, word: str, **fields: object) -> None:
        frame = sse.encode(text(word), self.end, self.claim.tag)
        self.batches.append(Batch(self.end, frame, f"{self.end}-{self.claim.tag}", "", fields))
        self.end += len(frame)
        self.appends.ask()

    def next_batch(self) -> Batch | None:
        return self.batches.popleft() if self.batches else None

    def batch_sent(self, batch: Batch, stands: bool) -> None:
        self.told.append(stands)

    async def words(self) -> list[str]:
        messages = sse.Decoder().feed((await self.log.read(self.id, None)).frames)
        return [message.event().data["delta_content"] for message in messages[1:]]


async def written(log: Log, lease_ms: int = LEASE_MS) -> Written:
    claim = await (await Stream.create(log)).claim_again()
    # This call loads the script into Redis.
    await log.append(claim, claim.log_end, b"", claim.record.last_id, LEASE_MS)
    return Written(log, claim, lease_ms)


async def all_told(*them: Written) -> None:
    await until(lambda: all(one.told for one in them))


@pytest.fixture
async def connection(redis_url: str) -> AsyncIterator[Connection]:
    async with connected(redis_url) as made:
        yield made


async def scripts_run(redis: Redis) -> int:
    found = (await redis.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})
    return int(found["calls"])


async def test_what_comes_in_one_turn_goes_in_one_script_up_to_a_bound(
    connection: Connection, redis: Redis
) -> None:
    log = Log(connection)
    them = [await written(log) for _ in range(MOST_CLAIMS + 3)]
    fields = set(await redis.hkeys(them[0].keys[0]))
    before = await scripts_run(redis)
    for number, one in enumerate(them):
        one.say(f"word {number}", usage=number, mark="x" * number)
    assert not any(one.told for one in them)  # No result is reported before `ask` returns.
    await all_told(*them)
    assert [one.told for one in them] == [[True]] * len(them)
    assert await scripts_run(redis) == before + 2
    for number, one in enumerate(them):
        assert await one.words() == [f"word {number}"]
        assert await redis.hmget(one.keys[0], "usage", "mark") == [b"%d" % number, b"x" * number]
        assert set(await redis.hkeys(one.keys[0])) == fields | {b"usage", b"mark", b"progress"}


async def test_each_of_several_has_its_own_lease_index_and_channel(
    connection: Connection, redis: Redis
) -> None:
    log = Log(connection)
    them = [await written(log, lease_ms) for lease_ms in (20_000, 60_000, 40_000)]
    async with redis.pubsub() as channels:
        await channels.subscribe(*(f"live:{one.id}" for one in them))
        for one in them:
            # The lease is almost over, so each stream is renewed.
            await redis.hset(one.keys[0], "lease_end_ms", 1)
            await redis.zrem(one.keys[2], one.id)
        now_ms = await log.now_ms()
        for one in them:
            one.say(f"of {one.id}")
        await all_told(*them)
        for one in them:
            end = int(await redis.hget(one.keys[0], "lease_end_ms") or 0)
            assert now_ms + one.lease_ms <= end < now_ms + one.lease_ms + 10_000
            assert await redis.zscore(one.keys[2], one.id) == end
            assert await redis.hget(one.keys[0], "lease_ms") == b"%d" % one.lease_ms
        heard: list[tuple[bytes, bytes]] = []
        async with asyncio.timeout(10):
            while len(heard) < len(them):
                found = await channels.get_message(ignore_subscribe_messages=True, timeout=10)
                if found is not None:
                    heard.append((found["channel"], found["data"]))
        for one, (channel, block) in zip(them, heard, strict=True):
            assert channel == f"live:{one.id}".encode()
            assert f"of {one.id}".encode() in block


async def test_large_ones_go_in_scripts_of_their_own(connection: Connection, redis: Redis) -> None:
    log = Log(connection)
    them = [await written(log) for _ in range(5)]
    before = await scripts_run(redis)
    for one in them:
        one.say("x" * (MOST_BYTES // 2 - 1000))
    await all_told(*them)
    assert [one.told for one in them] == [[True]] * 5
    assert await scripts_run(redis) == before + 3


async def test_one_that_is_refused_leaves_the_others_alone(connection: Connection, redis: Redis) -> None:
    log = Log(connection)
    first, fenced, lost, last = [await written(log) for _ in range(4)]
    await redis.hset(fenced.keys[0], mapping={"lease_end_ms": 1})
    assert (await log.claim(fenced.id, protocol.new_token(), LEASE_MS)).claim is not None
    lost.end += 1
    for one in (first, fenced, lost, last):
        one.say("w")
    await all_told(first, fenced, lost, last)
    assert [one.told for one in (first, fenced, lost, last)] == [[True], [False], [False], [True]]
    assert [await one.words() for one in (first, fenced, lost, last)] == [["w"], [], [], ["w"]]


async def test_what_an_error_cuts_short_is_asked_again_and_nothing_is_doubled(
    connection: Connection, redis: Redis
) -> None:
    """A script has no rollback.

    The appends before the error stay in the log, but all the streams get a failure.
    """
    log = Log(connection)
    before, broken, behind = [await written(log) for _ in range(3)]
    await redis.delete(broken.keys[1])
    await redis.lpush(broken.keys[1], "no string")
    for one in (before, broken, behind):
        one.say("w")
    await all_told(before, broken, behind)
    assert [one.told for one in (before, broken, behind)] == [[False]] * 3
    assert [await before.words(), await behind.words()] == [["w"], []]
    for one, word in ((before, "duplicate"), (behind, "ok")):
        position = one.claim.log_end
        frame = sse.encode(text("w"), position, one.claim.tag)
        last = f"{position}-{one.claim.tag}"
        assert (await log.append(one.claim, position, frame, last, LEASE_MS)).word == word
        assert await one.words() == ["w"]
    await redis.delete(broken.keys[1])


async def test_a_field_that_cannot_be_sent_is_told_to_all_and_the_connection_goes_on(
    connection: Connection,
) -> None:
    log = Log(connection)
    good, bad = await written(log), await written(log)
    good.say("w")
    bad.say("w", field=object())
    await all_told(good, bad)
    assert good.told == bad.told == [False]
    assert await connection.call("ECHO", "x") == b"x"


async def test_who_asks_is_asked_once_a_turn_and_who_has_nothing_left_sends_nothing(
    connection: Connection, redis: Redis
) -> None:
    log = Log(connection)
    many, none = await written(log), await written(log)
    before = await scripts_run(redis)
    many.say("a")
    many.say("b")  # This asks a second time and keeps the same turn.
    none.appends.ask()
    await all_told(many)
    assert (many.told, len(many.batches), none.told) == ([True], 1, [])
    assert await scripts_run(redis) == before + 1
    none.appends.ask()
    many.appends.ask()
    await until(lambda: len(many.told) == 2)
    assert await many.words() == ["a", "b"]
    assert await scripts_run(redis) == before + 2


async def test_what_is_said_in_this_turn_is_sent_in_the_next(connection: Connection) -> None:
    one = await written(Log(connection))
    one.say("a")
    await asyncio.sleep(0)
    assert not one.batches


@pytest.mark.slow
async def test_on_a_cluster_each_slot_has_a_script_of_its_own() -> None:
    async with RedisCluster() as cluster:
        router = Router(cluster.url, name="pen")
        try:
            log = Log(router)
            them = [await written(log) for _ in range(40)]
            for one in them:
                one.say("w")
            await all_told(*them)
            assert all(one.told == [True] for one in them)
            assert [await one.words() for one in them] == [["w"]] * len(them)
            assert len({router.slot(one.keys[0]) for one in them}) > MOST_CLAIMS / 4
            for node in cluster.nodes:
                assert await node.said("CROSSSLOT") == 0
        finally:
            await router.close()


@pytest.mark.slow
async def test_a_cluster_that_shows_itself_as_one_server_is_found_out_at_its_first_refusal() -> None:
    """Azure Managed Redis does this with the Enterprise policy. Here the client talks to a single node."""
    async with RedisCluster() as cluster:
        node, router = cluster.nodes[0], Router(cluster.url, name="pen")
        try:
            made = [await Stream.create(Log(router)) for _ in range(40)]
            mine = [one for one in made if cluster.owner(Log.keys(one.id)[0]) is node]
            async with connected(node.url) as connection:
                await connection.call("PING")  # The first command opens the connection.
                log = Log(connection)
                them = [Written(log, await one.claim_again()) for one in mine]
                assert len({key_slot(one.keys[0].encode()) for one in them}) > 1
                refused = await node.said("CROSSSLOT")
                for turn in range(3):
                    for one in them:
                        one.say(f"turn {turn}")
                    await all_told(*them)
                    assert {told for one in them for told in one.told} == {turn > 0}
                    for one in them:
                        one.told.clear()
                        if turn == 0:
                            one.end = one.claim.log_end
                assert await node.said("CROSSSLOT") == refused + 1
                assert [await one.words() for one in them] == [["turn 1", "turn 2"]] * len(them)
        finally:
            await router.close()
