"""The list of an owner's streams, on a real Redis and on a cluster.

A page costs the same for a list of any length, and the list is right when a process has died.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.cli.purge import purge
from gateway.protocol.errors import QueueFull
from gateway.settings import Settings
from gateway.store.mine import Mine
from gateway.store.usage import Usage
from gateway.streams import rows
from gateway.streams.service import Gateway
from gateway.streams.start import Start
from tests.support.everything import keys_with
from tests.support.jobs import Jobs, body
from tests.support.redis_cluster import RedisCluster

OWNER = "alice"


async def says(given: Any) -> Any:
    yield "said"


async def start(jobs: Jobs, owner: str = OWNER, **more: Any) -> str:
    return (await jobs.gateway.create(Start("under-test", {"input": "q"}, {}, **more), owner=owner)).id


async def listed(jobs: Jobs, owner: str = OWNER, **asked: Any) -> list[str]:
    page = await rows.page(jobs.gateway, owner, rows.Filter(**asked))
    return [row["id"] for row in page["streams"]]


async def test_a_page_of_a_hundred_thousand_takes_what_a_page_of_a_hundred_takes(redis_url: str) -> None:
    async with Jobs(redis_url, says) as jobs:
        mine, now = jobs.gateway.parts.mine, await jobs.log.now_ms()
        costs = {}
        for count in (100, 100_000):
            pairs: list[Any] = []
            for number in range(count):
                pairs += [now - number, f"{number:024d}"]
            for first in range(0, len(pairs), 20_000):
                await jobs.connection.call("ZADD", mine.key(OWNER), *pairs[first : first + 20_000])
            await jobs.connection.call("PEXPIRE", mine.key(OWNER), 60_000)
            before = await commands(jobs)
            found = []
            at = (now - count // 2, "~")
            page = await mine.page(OWNER, at, 50)
            found += page
            costs[count] = await commands(jobs) - before
            assert [name for _, name in found] == [f"{count // 2 + n:024d}" for n in range(50)]
        assert costs[100] == costs[100_000]


async def commands(jobs: Jobs) -> int:
    told = (await jobs.connection.call("INFO", "stats")).decode()
    return int(told.partition("total_commands_processed:")[2].split()[0])


async def test_many_of_one_millisecond_are_told_once_each(redis_url: str) -> None:
    async with Jobs(redis_url, says) as jobs:
        mine = jobs.gateway.parts.mine
        names = [f"{number:024d}" for number in range(250)]
        for name in names:
            await mine.note(OWNER, name, 1_700_000_000_000)
        seen: list[str] = []
        before = None
        while page := await mine.page(OWNER, before, 40):
            seen += [name for _, name in page]
            before = page[-1]
        assert seen == names[::-1]


async def test_an_id_whose_stream_did_not_come_to_be_is_passed_over_and_dropped(redis_url: str) -> None:
    async with Jobs(redis_url, says) as jobs:
        one = await start(jobs)
        now = await jobs.log.now_ms()
        mine = jobs.gateway.parts.mine
        making, dead = "m" * 24, "d" * 24
        await mine.note(OWNER, making, now)  # A process is creating this stream now.
        await mine.note(OWNER, dead, now - 200_000)
        assert await listed(jobs) == [one]
        assert {name for _, name in await mine.page(OWNER, None, 10)} == {one, making}


async def test_a_refused_start_is_not_listed_and_every_key_expires(redis_url: str) -> None:
    async with Jobs(redis_url, says, max_queue=1) as jobs:
        one = await start(jobs)
        with pytest.raises(QueueFull):
            await start(jobs)
        mine = jobs.gateway.parts.mine
        assert [name for _, name in await mine.page(OWNER, None, 10)] == [one]
        assert await jobs.connection.call("PTTL", mine.key(OWNER)) > 0


async def test_a_page_looks_at_so_many_and_goes_on_behind_them(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MOST_LOOKS", 4)
    async with Jobs(redis_url, says, max_owner_streams=100, max_owner_starts=100) as jobs:
        made = [await start(jobs, metadata={"n": number % 5}) for number in range(10)]
        seen: list[str] = []
        asked, pages = rows.Filter(metadata={"n": "0"}), 0
        while True:
            page = await rows.page(jobs.gateway, OWNER, asked)
            pages += 1
            seen += [row["id"] for row in page["streams"]]
            if page["next"] is None:
                break
            asked = rows.filter_of([("metadata.n", "0"), ("before", page["next"])], frozenset({"n"}))
        assert (seen, pages) == ([made[5], made[0]], 3)


async def test_where_all_would_share_one_list_none_is_kept(redis_url: str) -> None:
    settings = Settings(redis_url=redis_url, auth="none", open_to_all="yes")
    gateway = Gateway(settings, {"under-test": ["under-test"]})
    try:
        await gateway.create(Start("under-test", {"input": "q"}, {}), owner="anonymous")
        assert await gateway.parts.redis.call("EXISTS", Mine.key("anonymous")) == 0
    finally:
        await gateway.close()


async def test_an_owners_streams_and_threads_are_purged_and_anothers_stay(
    redis_url: str, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Jobs(redis_url, says, max_owner_streams=100, max_owner_starts=100) as jobs:
        bob = await start(jobs, "bob", thread="trip")
        made = [await start(jobs), await start(jobs, thread="trip"), await start(jobs, thread="other")]
        for stream_id in (bob, *made[:2]):
            await jobs.runner.run(body(stream_id))
        gateway = Gateway(jobs.settings, {"under-test": ["under-test"]})
        assert await purge(gateway, OWNER, asks=False) == 0
        assert capsys.readouterr().out == "deleted: 2 threads, and 1 streams beside them\n"
        left = [key.decode() for key in await jobs.connection.call("KEYS", "*")]
        assert not [key for key in left if any(one in key for one in made)]
        assert await keys_with(redis, OWNER) == set()
        used = Usage(jobs.connection)
        assert await used.owners(10) == ["bob"]
        assert (await used.of(OWNER)).day[1] > 0  # The usage stays counted.
        assert await listed(jobs, "bob") == [bob]
        assert await listed(jobs) == []


async def test_it_is_right_on_a_cluster() -> None:
    async with RedisCluster() as cluster, Jobs(cluster.url, says, max_owner_streams=100) as jobs:
        made = await asyncio.gather(*(start(jobs) for _ in range(20)))
        for stream_id in made:
            await jobs.runner.run(body(stream_id))
        assert sorted(await listed(jobs)) == sorted(made)
        assert set(await listed(jobs, states=frozenset({"done"}), limit=7)) < set(made)
