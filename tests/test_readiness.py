"""Each part and its state, from real parts that are well, slow, away or gone; one look for all who ask."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.ops import readiness
from gateway.ops.readiness import Ready, Shared
from gateway.redis import pubsub
from gateway.settings import Settings
from gateway.streams.service import Gateway
from tests.support.following import until
from tests.support.jobs import Jobs
from tests.support.proxy import Proxy
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer

WELL = Ready("ok", "ok", 0, "idle", "configured")


@asynccontextmanager
async def opened(url: str, **more: Any) -> AsyncIterator[Gateway]:
    gateway = Gateway(Settings(redis_url=url), {"chat": ("chat",)}, **more)
    try:
        yield gateway
    finally:
        await gateway.close()


@pytest.fixture
def unkept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look is a new one."""
    monkeypatch.setattr(Shared.__init__, "__defaults__", (0.0,))


async def test_all_is_well(redis_url: str) -> None:
    async with opened(redis_url) as gateway:
        found = await gateway.readiness()
        assert found == WELL
        assert found.good
        assert found.document() == {
            "status": "ready",
            "store": {"state": "ok"},
            "queue": {"state": "ok", "depth": 0},
            "subscriber": {"state": "idle"},
            "model": {"state": "configured"},
            "workers": {"state": "none_seen"},
        }


async def test_the_queue_tells_its_depth(redis_url: str) -> None:
    async with Jobs(redis_url) as jobs:
        for _ in range(3):
            await jobs.stream(chain="chat")
        assert (await jobs.gateway.readiness()).depth == 3


async def test_a_hundred_who_ask_share_one_look_and_so_do_those_within_a_second(
    redis_url: str, redis: Redis
) -> None:
    async with opened(redis_url) as gateway:
        await gateway.readiness()
        await gateway.close()  # what the first look found out about the server is not counted
        async with opened(redis_url) as other:
            await redis.config_resetstat()
            await asyncio.gather(*(other.readiness() for _ in range(100)))
            await other.readiness()
            stats = await redis.info("commandstats")
            assert stats["cmdstat_set"]["calls"] == 1
            assert stats["cmdstat_xlen"]["calls"] == 1


async def test_a_look_is_old_after_its_time_and_an_error_is_shared_too() -> None:
    looks = 0

    async def look() -> int:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0)
        if looks == 1:
            raise LookupError
        return looks

    shared = Shared(look, seconds=0.05)
    first = await asyncio.gather(*(shared() for _ in range(5)), return_exceptions=True)
    assert all(isinstance(one, LookupError) for one in first)
    with pytest.raises(LookupError):
        await shared()
    answers: list[int] = []
    async with asyncio.timeout(10):
        while not answers:
            try:
                answers.append(await shared())
            except LookupError:
                await asyncio.sleep(0.01)
    assert answers == [2]


async def test_whoever_stops_waiting_leaves_the_look_to_the_others() -> None:
    gate = asyncio.Event()

    async def look() -> str:
        await gate.wait()
        return "seen"

    shared = Shared(look)
    leaving, staying = asyncio.create_task(shared()), asyncio.create_task(shared())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    gate.set()
    assert await staying == "seen"


@pytest.mark.usefixtures("unkept")
async def test_a_store_that_is_away_hung_or_back_is_told_within_the_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readiness, "LOOK_SECONDS", 0.2)
    async with RedisServer() as server, opened(server.url) as gateway:
        assert (await gateway.readiness()).good
        os.kill(server.pid, signal.SIGSTOP)
        try:
            hung = await gateway.readiness()
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert (hung.store, hung.queue, hung.depth, hung.good) == ("unreachable", "unreachable", None, False)
        await server.kill()
        away = await gateway.readiness()
        assert away.document()["store"] == {"state": "unreachable"}
        assert away.document()["queue"] == {"state": "unreachable"}
        assert not away.good
        await server.start()
        async with asyncio.timeout(20):
            while not (await gateway.readiness()).good:  # noqa: ASYNC110 - only a look can tell
                await asyncio.sleep(0.02)


@pytest.mark.usefixtures("unkept")
async def test_the_subscriber_is_idle_alive_lost_and_ended(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pubsub, "UNHEARD_SECONDS", 0.2)
    monkeypatch.setattr(pubsub, "TIMEOUT_SECONDS", 0.2)
    async with Proxy(redis_url) as proxy, opened(proxy.url) as gateway:
        hub = gateway.parts.hub
        assert (await gateway.readiness()).subscriber == "idle"
        async with hub.subscribe("a"):
            assert (await gateway.readiness()).subscriber == "ok"
            proxy.hold("hub", "answers")
            proxy.cut("hub")
            await until(lambda: hub.subscriber.state == "lost")
            assert not (await gateway.readiness()).good
            proxy.release()
            await until(lambda: hub.subscriber.state == "ok")
        assert (await gateway.readiness()).subscriber == "idle"
        with monkeypatch.context() as deaf:
            deaf.setattr(pubsub.Subscriber, "state", "unheard")
            await until(lambda: hub.subscriber.state == "unheard")
            found = await gateway.readiness()
            assert (found.subscriber, found.good) == ("unheard", True)
        await hub.close()
        found = await gateway.readiness()
        assert (found.subscriber, found.good) == ("ended", False)


@pytest.mark.parametrize(("state", "good"), [("loading", True), ("ready", True), ("failed", False)])
async def test_a_failed_model_makes_it_unready_and_a_loading_one_does_not(
    redis_url: str, state: str, good: bool
) -> None:
    async with opened(redis_url, model_state=lambda: state) as gateway:
        found = await gateway.readiness()
        assert (found.model, found.good) == (state, good)


async def test_without_a_store_there_is_nothing_to_open() -> None:
    async with opened("") as gateway:
        assert not (await gateway.readiness()).good


@pytest.mark.usefixtures("unkept")
async def test_a_cluster_with_a_node_away_is_degraded_and_serves() -> None:
    async with (
        RedisCluster("--cluster-require-full-coverage", "no") as cluster,
        opened(cluster.url) as gateway,
    ):
        assert (await gateway.readiness()).store == "ok"
        queue = cluster.owner("holdfast-jobs")
        other = next(node for node in cluster.nodes if node is not queue)
        await other.kill()
        found = await gateway.readiness()
        assert (found.store, found.queue, found.good) == ("degraded", "ok", True)


async def test_metrics_ask_for_the_depth_from_a_thread_of_their_own(redis_url: str) -> None:
    async with Jobs(redis_url) as jobs:
        await jobs.stream(chain="chat")
        assert await asyncio.to_thread(jobs.gateway.readiness.depth) == 1
    assert await asyncio.to_thread(jobs.gateway.readiness.depth) is None


async def test_a_store_that_takes_no_write_is_refusing_and_nobody_is_sent_here(
    redis_url: str, redis: Redis
) -> None:
    async with opened(redis_url) as gateway:
        await redis.config_set("min-replicas-to-write", 1)
        try:
            found = await gateway.readiness()
        finally:
            await redis.config_set("min-replicas-to-write", 0)
        assert (found.store, found.good) == ("refusing", False)
