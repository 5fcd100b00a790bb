"""The driver's own tools: how they act on the parts, and which wrong results they reject."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from time import monotonic

import httpx
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError

from tests.chaos import texts, wire
from tests.chaos.evidence import keep
from tests.chaos.fold import fold
from tests.chaos.model import MOST_FAILURES, REFUSALS, KnownModel
from tests.chaos.parts import Part, content
from tests.chaos.plan import Kind, Stores, kinds, plan
from tests.chaos.proxy import Mangled, Mischief, Proxy
from tests.chaos.report import markdown
from tests.chaos.run import Outcome
from tests.chaos.store import FSYNC_SECONDS, store
from tests.chaos.tally import Tally
from tests.support.redis_server import RedisServer

TEXT = b'id: 0-aaaa\ndata: {"delta_content":"x"}\n\n'


def test_a_seed_is_a_plan_and_ten_minutes_hold_enough_of_each_fault() -> None:
    assert plan(7, 600, [*Kind]) == plan(7, 600, [*Kind]) != plan(8, 600, [*Kind])
    counts = Counter(moment.kind for moment in plan(7, 600, [*Kind]))
    assert counts[Kind.KILL_WORKER] >= 60
    assert counts[Kind.RESTART_REDIS] >= 12
    assert counts[Kind.PROMOTE] >= 12
    assert set(Counter(moment.kind for moment in plan(7, 5, [*Kind]))) == set(Kind)


def test_a_store_meets_only_the_faults_that_it_can_meet() -> None:
    assert set(kinds(Stores.BOTH, planned=True)) == set(Kind)
    assert set(Kind) - set(kinds(Stores.BOTH, planned=False)) == {Kind.HAND_OVER}
    assert set(Kind) - set(kinds(Stores.AOF, planned=True)) == {Kind.PROMOTE, Kind.HAND_OVER}
    assert set(Kind) - set(kinds(Stores.REPLICATED, planned=True)) == {Kind.RESTART_REDIS}


@pytest.mark.parametrize(("mischief", "heard"), [
    (Mischief(), [b"1", b"2", b"3"]),
    (Mischief(drop=1.0), []),
    (Mischief(double=1.0), [b"1", b"1", b"2", b"2", b"3", b"3"]),
    (Mischief(late=1.0), [b"2", b"1"]),
])  # fmt: skip
async def test_the_proxy_tampers_with_messages_and_with_nothing_else(
    redis_server: RedisServer, mischief: Mischief, heard: list[bytes]
) -> None:
    async with Proxy(lambda: redis_server.socket, random.Random(1)) as proxy:
        client = Redis.from_url(proxy.url, protocol=2)
        follower = client.pubsub()
        await follower.subscribe("chaos")
        assert (await follower.get_message(timeout=5))["type"] == "subscribe"
        proxy.mischief = mischief
        for number in range(1, 4):
            await client.publish("chaos", str(number))
        await follower.ping()
        got = []
        while (message := await follower.get_message(timeout=5))["type"] != "pong":
            got.append(message["data"])
        assert got == heard
        await follower.aclose()
        await client.aclose()


async def test_a_cut_connection_is_reset_and_a_new_one_is_served(redis_server: RedisServer) -> None:
    async with Proxy(lambda: redis_server.socket, random.Random(1)) as proxy:
        host, port = "127.0.0.1", int(proxy.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"PING\r\n")
        assert await reader.readline() == b"+PONG\r\n"
        assert proxy.cut(1.0) == 1
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"PING\r\n")
        assert await reader.readline() == b"+PONG\r\n"
        writer.close()


@pytest.mark.slow
async def test_a_restarted_store_has_lost_its_last_second_and_nothing_before_it() -> None:
    async with store() as held:
        redis = Redis.from_url(held.server.url)
        loop = asyncio.get_running_loop()
        written: dict[str, float] = {}
        until = loop.time() + 2 * FSYNC_SECONDS
        while loop.time() < until:
            key = f"k{len(written)}"
            await redis.set(key, "v", ex=60)
            written[key] = loop.time()
            await asyncio.sleep(0.02)
        killed = loop.time()
        await held.restart(down=0.0, lose=FSYNC_SECONDS)
        left = {key.decode() async for key in redis.scan_iter("k*", count=1000)}
        await redis.aclose()
    gone = [at for key, at in written.items() if key not in left]
    assert gone
    assert min(gone) > killed - FSYNC_SECONDS - 0.3
    assert all(at < min(gone) for key, at in written.items() if key in left)


class Pulse:
    """Write a key every few milliseconds, and record the time of each answer."""

    def __init__(self, url: str) -> None:
        self.written: dict[str, float] = {}
        self._redis = Redis.from_url(url)
        self._task = asyncio.create_task(self._beat(), name="pulse")

    async def until(self, count: int) -> None:
        """Wait for this number of further keys."""
        most = len(self.written) + count
        async with asyncio.timeout(20):
            while len(self.written) < most:  # noqa: ASYNC110 - a task of this very process counts
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._redis.aclose()

    async def _beat(self) -> None:
        while True:
            key = f"k{len(self.written)}"
            await self._redis.set(key, "v", ex=60)
            self.written[key] = monotonic()
            await asyncio.sleep(0.005)


@pytest.mark.slow
async def test_a_promoted_replica_lacks_the_last_writes_and_nothing_before_them_each_time() -> None:
    async with store(replicated=True) as held:
        for _ in range(2):
            old, pulse = held.server, Pulse(held.server.url)
            await pulse.until(20)
            began = monotonic()
            await held.promote(down=0.0, lag=partial(pulse.until, 20))
            await pulse.end()
            assert held.server is not old
            assert held.standby is not None
            async with Redis.from_url(held.server.url) as redis:
                left = {key.decode() async for key in redis.scan_iter("k*", count=1000)}
                await redis.flushall()
            gone = [at for key, at in pulse.written.items() if key not in left]
            assert len(gone) >= 15
            assert min(gone) > began
            assert all(held.may_have_lost(at, at) for at in gone)
            assert all(at < min(gone) for key, at in pulse.written.items() if key in left)
        assert not held.may_have_lost(0.0, began - 10)


@pytest.mark.slow
async def test_a_planned_failover_loses_nothing_and_the_old_primary_keeps_its_connections() -> None:
    async with store(replicated=True) as held:
        old, pulse = held.server, Pulse(held.server.url)
        async with Redis.from_url(old.url, single_connection_client=True) as kept:
            await kept.ping()
            await pulse.until(20)
            await held.hand_over()
            await pulse.end()  # it has ended with READONLY
            assert await kept.ping()
            with pytest.raises(ReadOnlyError):
                await kept.set("k", "v", ex=60)
        async with Redis.from_url(held.server.url) as redis:
            left = {key.decode() async for key in redis.scan_iter("k*", count=1000)}
            assert left >= set(pulse.written)
            await redis.set("new", "v", ex=60)
        assert not held.lost
        await held.promote(down=0.0)  # the old primary was its replica, and serves again
        assert held.server is old
        async with Redis.from_url(old.url) as redis:
            assert await redis.get("new") == b"v"


async def test_what_leads_by_the_name_finds_the_new_primary() -> None:
    async with (
        store(replicated=True) as held,
        Proxy(lambda: held.server.socket, random.Random(1)) as proxy,
        Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 1)) as redis,
    ):
        await redis.set("k", "v", ex=60)
        await held.promote(down=0.0)
        assert await redis.get("k") == b"v"


@pytest.mark.parametrize("bad", [
    b"retry: soon\n",
    b"retry: 5\n\n" + TEXT,
    b"data: x\n\n",
    b"id: 5\ndata: x\n\n",
    b"id: 0-aaaa\nevent: start\n\n",
    b"id: 0-aaaa\r\ndata: x\n\n",
    TEXT + b"retry: 5\n" + TEXT,
])  # fmt: skip
def test_only_frames_a_retry_line_before_them_and_heartbeats_are_allowed(bad: bytes) -> None:
    with pytest.raises(wire.BadWire):
        wire.Wire().feed(bad)


def test_frames_are_the_same_whatever_the_split() -> None:
    data = b":\nretry: 700\n" + TEXT + b":\n" + wire.LOG_LOST + TEXT
    for at in range(len(data)):
        reader = wire.Wire()
        assert reader.feed(data[:at]) + reader.feed(data[at:]) == [TEXT, wire.LOG_LOST, TEXT]
        assert reader.heartbeats == 2


PARTS = [Part("q 0", ("a ", "b "), 0.1), Part("q 1", ("c ", "d "), 0.1, vary_at=1), Part("q 2", ("e ",), 0.1)]
ANSWERS = {"q 0": ["a b "], "q 1": ["c 0d ", "c 1d "], "q 2": ["e "]}
HANDED = {"q 0": {""}, "q 1": {"a b "}, "q 2": {"c 1d "}}


@pytest.mark.parametrize(("status", "texts_read", "count"), [
    ("done", ["a b ", "c 1d ", "e "], 0),
    ("done", ["a b b ", "c 1d ", "e "], 2),  # the log has it twice, the next stage got it once
    ("done", ["a b ", "c 0d ", "e "], 1),  # an answer of the model, but not the one passed on
    ("done", ["a b ", "c 1d ", "e e "], 1),
    ("done", ["a b ", "c 1d ", ""], 1),
    ("done", ["a b ", "c 1d "], 1),
    ("done", ["a b ", "c 1d ", "e ", "e "], 1),
    ("cancelled", ["a b ", "c "], 0),
    ("cancelled", ["a b ", "c c "], 1),
    ("cancelled", ["a ", "c "], 2),  # a stage that is over must be complete
    ("cancelled", [], 0),
])  # fmt: skip
def test_a_text_is_the_models_in_every_stage_or_it_is_found(
    status: str, texts_read: list[str], count: int
) -> None:
    folded = {"status": status, "stages": [{"text": text} for text in texts_read]}
    assert len(texts.wrong(PARTS, folded, ANSWERS, HANDED)) == count


async def test_the_model_cuts_and_refuses_each_part_no_more_than_so_often() -> None:
    part = Part("q", ("a", "b"), 60.0)
    body = {"messages": [{"role": "user", "content": content(part.told)}]}
    rng = random.Random(1)
    async with KnownModel() as model, httpx.AsyncClient(base_url=model.url, timeout=30) as client:
        asked = partial(client.build_request, "POST", "/v1/chat/completions", json=body)
        model.refuse(60.0, rng)
        refused = [(await client.send(asked())).status_code for _ in range(MOST_FAILURES - 1)]
        model.refuse(0.0, rng)
        for cut in (1, 0):
            answer = await client.send(asked(), stream=True)
            chunks = answer.aiter_raw()
            assert b"a" in await anext(chunks)
            assert model.cut(1.0, rng) == cut
            if cut:
                with pytest.raises(httpx.RemoteProtocolError):
                    await anext(chunks)
            await answer.aclose()
    assert set(refused) <= set(REFUSALS)
    assert (model.cuts, model.refusals) == (1, MOST_FAILURES - 1)
    assert model.answers["q"] == ["ab", "ab"]


def test_a_run_that_found_something_keeps_what_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tally = Tally()
    tally.find("said twice", "abc")
    tally.suspects["abc"] = TEXT
    folder = keep(Outcome(tally, Mangled(), "tails", "story"), 7, "make chaos SEED=7")
    assert folder.parent == tmp_path
    assert "make chaos SEED=7\n\nsaid twice\n" in (folder / "findings.txt").read_text()
    assert (folder / "abc.log").read_bytes() == TEXT
    assert (folder / "story.txt").read_text() == "story"
    assert "| findings | 1 |" in markdown(7, tally)


def test_the_drivers_own_fold_voids_what_a_reset_names() -> None:
    log = (
        b'id: 0-aaaa\nevent: stage\ndata: {"name":"chat","run":1,"state":"started"}\n\n'
        b'id: 1-aaaa\ndata: {"delta_content":"old","stage":"chat"}\n\n'
        b'id: 2-aaaa\nevent: reset\ndata: {"discard_after":"0-aaaa","stage":"chat"}\n\n'
        b'id: 3-bbbb\ndata: {"delta_content":"new","stage":"chat"}\n\n'
        b"id: 4-bbbb\nevent: done\ndata: {}\n\n"
    )
    folded = fold(log)
    assert (folded["text"], folded["status"], folded["last_event_id"]) == ("new", "done", "4-bbbb")
