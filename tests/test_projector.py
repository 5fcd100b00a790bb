"""Journals, and how they get to their owners: once, whatever dies; on a real Redis, and on a cluster."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway import protocol
from gateway.protocol import Event, EventType, sse
from gateway.protocol.errors import CursorLost
from gateway.redis.cluster import Router
from gateway.redis.connect import Place
from gateway.settings import Settings
from gateway.store.feeds import Feeds
from gateway.store.journal import Journal
from gateway.store.log import Log
from gateway.store.projector import Projector
from gateway.store.usage import Usage
from tests.support.jobs import eventually
from tests.support.processes import REPOSITORY
from tests.support.redis_cluster import RedisCluster

OWNER = "key:alice"
USAGE = {"usage": '{"input_tokens":7,"output_tokens":3}'}
WAITING = {"questions": '[{"id":"q"}]', "pending": '["q"]'}


class Store:
    """A store whose scripts are called by a process that projects nothing."""

    def __init__(self, redis: Router, url: str) -> None:
        self.redis = redis
        self.settings = Settings(redis_url=url)
        self.log = Log(redis)
        self.projector = Projector(redis, self.settings)

    async def started(self, owner: str = OWNER, **fields: Any) -> str:
        """A confirmed stream."""
        stream_id = protocol.new_stream_id()
        plain = {"version": protocol.VERSION, "owner": owner, "chain": "c", "stages": '["c"]', "input": "1"}
        times = {"created_ms": await self.log.now_ms(), "keep_ms": 60_000, "tombstone_ms": 60_000}
        more = {"open_ms": 60_000, "wait_ms": 60_000, "last_id": "0-beef"} | fields
        frame = b"id: 0-beef\nevent: start\ndata: {}\n\n"
        await self.log.create(stream_id, plain | times | more, frame)
        assert await self.log.confirm(stream_id, 60_000)
        return stream_id

    async def ended(self, stream_id: str, status: str = "done", **fields: Any) -> None:
        """It runs, tells a stage, and ends in one append."""
        claim = (await self.log.claim(stream_id, protocol.new_token(), 60_000, run_ms=60_000)).claim
        assert claim is not None
        at, frames = claim.log_end, b""
        for event in (
            protocol.stage("c", run=1, index=0, count=1, finished=True),
            Event(EventType.DONE, {"usage": {}}),
        ):
            last = f"{at + len(frames)}-{claim.tag}"
            frames += sse.encode(event, at + len(frames), claim.tag)
        answer = await self.log.append(claim, at, frames, last, 60_000, status=status, fields=fields)
        assert answer.word == "ok"

    async def whole(self, **fields: Any) -> str:
        """A stream at its end, of whose journal nothing is projected yet."""
        stream_id = await self.started()
        await self.ended(stream_id, **(USAGE | fields))
        return stream_id

    async def told(self, stream_id: str, owner: str = OWNER) -> list[str]:
        """The kinds of its events that stand in its owner's feed."""
        kinds = []
        entries = await self.redis.call("XRANGE", Feeds.keys(Feeds.id_of(owner))[0], "-", "+")
        for _, flat in entries:
            raw = dict(zip(flat[::2], flat[1::2], strict=True))
            if json.loads(raw[b"tail"].partition(b"data: ")[2])["id"] == stream_id:
                kinds.append(raw[b"kind"].decode())
        return kinds

    async def spent(self, owner: str = OWNER) -> tuple[int, int]:
        return (await Usage(self.redis).of(owner)).day

    async def left(self, stream_id: str) -> tuple[int, Any]:
        """Entries of its journal, and its place in the due index."""
        return (
            await self.redis.call("XLEN", Journal.key(stream_id)),
            await self.redis.call("ZSCORE", Journal.due_key(stream_id), stream_id),
        )


@asynccontextmanager
async def store_at(url: str) -> AsyncIterator[Store]:
    redis = Router(Place(url), name="test")
    try:
        yield Store(redis, url)
    finally:
        await redis.close()


async def check_deaths(store: Store, url: str, when: str) -> None:
    """Processes that die at their first command, at their second, and so on; the last one lives."""
    deaths, before, pipe = 0, await store.spent(), asyncio.subprocess.PIPE
    module = ("-m", "tests.support.mortal_projector")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *module, cwd=REPOSITORY, stdin=pipe, stdout=pipe
    )
    assert process.stdin is not None
    assert process.stdout is not None
    while True:
        stream_id = await store.whole()
        process.stdin.write(f"{url} {stream_id} {when} {deaths + 1}\n".encode())
        code = int(await process.stdout.readline())
        if code == 0:
            break
        assert code == -signal.SIGKILL
        deaths += 1
        await store.redis.call("ZADD", Journal.due_key(stream_id), 1, stream_id)  # its time has come
        assert await store.projector.sweep() == 1  # the process that has the turn
        assert await store.told(stream_id) == ["started", "stage", "ended"]
        assert await store.left(stream_id) == (0, None)
        assert await store.spent() == (before[0] + deaths * 7, before[1] + deaths * 3)
    process.stdin.close()
    assert await process.wait() == 0
    assert deaths >= 6


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_projector_that_is_killed_at_each_step_loses_and_doubles_nothing(
    redis_url: str, when: str
) -> None:
    async with store_at(redis_url) as store:
        await check_deaths(store, redis_url, when)


async def test_so_it_is_on_a_cluster() -> None:
    async with RedisCluster() as cluster, store_at(cluster.url) as store:
        await check_deaths(store, cluster.url, "after")


async def test_several_that_project_at_once_tell_it_once(redis_url: str) -> None:
    async with store_at(redis_url) as store:
        streams = [await store.whole() for _ in range(10)]
        others = [Projector(store.redis, store.settings) for _ in range(4)]
        await asyncio.gather(*(other.settle(one) for one in streams for other in others))
        for stream_id in streams:
            assert await store.told(stream_id) == ["started", "stage", "ended"]
        assert await store.spent() == (70, 30)


async def test_what_is_left_behind_comes_due_and_nothing_else(redis_url: str) -> None:
    async with store_at(redis_url) as store:
        stream_id = await store.whole()
        assert await store.projector.sweep() == 0  # the process that has written it may be at it
        count, due = await store.left(stream_id)
        assert count == 3
        assert 0 < int(due) - await store.log.now_ms() <= 5000
        await store.projector.settle(stream_id)
        assert await store.left(stream_id) == (0, None)


async def test_a_stream_that_ends_unconfirmed_is_told_whole(redis_url: str) -> None:
    async with store_at(redis_url) as store:
        stream_id = await store.started()
        await store.log.cancel(stream_id, "beef")
        await store.projector.settle(stream_id)
        assert await store.told(stream_id) == ["started", "ended"]


async def test_one_that_waits_ends_when_its_question_expires(redis_url: str) -> None:
    async with store_at(redis_url) as store:
        stream_id = await store.started(keep_ms=1500)
        await store.ended(stream_id, **WAITING, thread_ms=1500)
        await store.projector.settle(stream_id)
        assert await store.told(stream_id) == ["started", "stage", "waiting"]
        _, due = await store.left(stream_id)
        assert due is not None

        async def swept() -> bool:
            return bool(await store.projector.sweep())

        await eventually(swept)
        assert await store.told(stream_id) == ["started", "stage", "waiting", "ended"]
        assert await store.left(stream_id) == (0, None)
        record, _ = await store.log.record(stream_id)
        assert record is not None
        assert record.questions is None


@pytest.mark.parametrize("end", ["cancelled", "answered"])
async def test_one_that_waits_ends_when_it_is_cancelled_or_answered(redis_url: str, end: str) -> None:
    async with store_at(redis_url) as store:
        stream_id = await store.started()
        await store.ended(stream_id, **WAITING, thread_ms=60_000, **USAGE)
        if end == "cancelled":
            assert (await store.log.cancel(stream_id, "beef")).word == "dropped"
        else:
            new_id = protocol.new_stream_id(stream_id)
            fields = {"version": protocol.VERSION, "owner": OWNER, "chain": "c", "stages": "[]"}
            fields |= {"created_ms": 1, "keep_ms": 60_000, "tombstone_ms": 60_000, "last_id": "0-beef"}
            word, *_ = await store.log.resume(
                stream_id, new_id, b'["q"]', "digest", b"id: 0-beef\n", 1, fields
            )
            assert word == "resumed"
            await store.projector.settle(new_id)
            assert await store.told(new_id) == ["started"]
        await store.projector.settle(stream_id)
        assert await store.told(stream_id) == ["started", "stage", "waiting", "ended"]
        assert await store.spent() == (7, 3)  # by what ended the run, and not again by the answer


async def test_a_deleted_stream_leaves_the_feed_and_does_not_come_back(redis_url: str) -> None:
    async with store_at(redis_url) as store:
        log = Log(store.redis, store.projector)
        stream_id = await store.whole(metadata='{"secret":"word"}')
        entries = await store.projector.journal.read(stream_id)
        await log.erase(stream_id)
        assert await store.spent() == (7, 3)  # counted all the same
        assert await store.told(stream_id) == []
        for entry in entries:  # of a projector that was paused meanwhile
            assert await store.projector.feeds.project(entry) == "again"
        assert await store.told(stream_id) == []
        keys = await store.redis.call("KEYS", "*")
        assert not [key for key in keys if stream_id.encode() in key]


async def test_a_reader_that_comes_too_late_is_told_so(redis_url: str) -> None:
    async with store_at(redis_url) as store:
        feed_id, large = Feeds.id_of(OWNER), json.dumps({"text": "x" * 600_000})
        await store.projector.settle(await store.whole())
        first = await store.projector.feeds.read(feed_id, None)
        for _ in range(5):
            await store.projector.settle(await store.whole(metadata=large))
        with pytest.raises(CursorLost):
            await store.projector.feeds.read(feed_id, first.last)
        size = await store.redis.call("MEMORY", "USAGE", Feeds.keys(feed_id)[0], "SAMPLES", 0)
        assert size < 8 * 1024 * 1024
        piece = await store.projector.feeds.read(feed_id, None)
        again = await store.projector.feeds.read(feed_id, piece.last)
        assert (again.frames, again.last) == (b"", piece.last)


async def test_what_a_stream_has_used_in_all_its_parts(redis_url: str) -> None:
    async with store_at(redis_url) as store:
        parts = {
            "usage": '{"input_tokens":1,"output_tokens":2}',
            "lost": '{"input_tokens":10,"output_tokens":20}',
            "used": '{"a 1":{"input_tokens":100,"output_tokens":200}}',
            "pieces": 1000,
        }
        await store.projector.settle(await store.whole(**parts))
        assert await store.spent() == (111, 1222)
        paid = {"usage": {"input_tokens": 1, "output_tokens": 1}, "lost": {"input_tokens": 10}}
        await store.projector.settle(await store.whole(**parts, paid=json.dumps(paid)))
        assert await store.spent() == (111 + 100, 1222 + 1221)


async def test_a_feed_that_has_expired_goes_on(redis_url: str) -> None:
    async with store_at(redis_url) as store:
        events, feeding, *_ = Feeds.keys(Feeds.id_of(OWNER))
        await store.projector.settle(await store.whole())
        first = (await store.projector.feeds.read(Feeds.id_of(OWNER), None)).last
        await store.redis.call("DEL", events)  # as its expiry does
        assert (
            await store.projector.feeds.read(Feeds.id_of(OWNER), first)
        ).last == first  # nothing is missing
        stream_id = await store.whole()
        await store.projector.settle(stream_id)
        piece = await store.projector.feeds.read(Feeds.id_of(OWNER), first)
        assert piece.frames.count(b"event: ") == 3
        entries = await store.redis.call("XRANGE", events, "-", "+")
        assert int(await store.redis.call("HGET", feeding, "bytes")) == sum(
            len(flat[7]) for _, flat in entries
        )
        await store.redis.call("DEL", events)
        with pytest.raises(CursorLost):
            await store.projector.feeds.read(Feeds.id_of(OWNER), first)
