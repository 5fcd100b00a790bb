"""The product on a real cluster of three nodes, with keys on every node.

On one server it costs nothing more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest
from redis.asyncio import Redis

from gateway.protocol import new_stream_id
from gateway.protocol.errors import OverQuota, StoreUnavailable
from gateway.protocol.fold import Fold
from gateway.protocol.sse import Decoder
from gateway.queue.job_queue import Message
from gateway.queue.redis_queue import RedisQueue
from gateway.redis.cluster import Router
from gateway.redis.embedded_fake import FakeStore
from gateway.relay.follow import Relay
from gateway.relay.hub import Hub
from gateway.settings import Settings
from gateway.store.due import BUCKETS
from gateway.store.log import Log
from gateway.store.quota import Quota
from tests.support.following import Following, Stream, reading, until
from tests.support.model_server import ModelServer, script
from tests.support.processes import GatewayProcess
from tests.support.proxy import Proxy
from tests.support.redis_cluster import ClusterNode, RedisCluster
from tests.support.redis_server import free_port, maps_asked

NAME = "holdfast-test"
EACH = 3  # Streams on each node.
BOUND_SECONDS = 60


@asynccontextmanager
async def routed(url: str, timeout: float = 5.0) -> AsyncIterator[Router]:
    router = Router(url, name=NAME, timeout=timeout)
    try:
        yield router
    finally:
        await router.close()


@asynccontextmanager
async def relaying(url: str) -> AsyncIterator[Following]:
    """Yield the log, hub and relay of a web process, made in the way of the gateway."""
    async with routed(url) as router:
        log, orphans = Log(router), list[str]()

        async def orphaned(stream_id: str) -> None:
            orphans.append(stream_id)

        hub = Hub(
            router.place,
            log,
            orphaned,
            heartbeat=15,
            reader_bytes=256 * 1024,
            most=100,
            most_of_owner=100,
            most_of_stream=100,
        )
        hub.open()
        try:
            yield Following(router, log, hub, Relay(log, hub, max_age=0), orphans)
        finally:
            await hub.close()


async def streams(cluster: RedisCluster, log: Log, each: int = EACH) -> dict[ClusterNode, list[Stream]]:
    """Create streams until each node has `each` of them, and return the streams by node."""
    found: dict[ClusterNode, list[Stream]] = {node: [] for node in cluster.nodes[:3]}
    while any(len(made) < each for made in found.values()):
        stream = await Stream.create(log)
        found[cluster.owner(log.keys(stream.id)[0])].append(stream)
    return {node: made[:each] for node, made in found.items()}


async def one_each(cluster: RedisCluster, log: Log) -> list[Stream]:
    return [made[0] for made in (await streams(cluster, log, 1)).values()]


@pytest.mark.slow
async def test_commands_go_to_their_nodes_and_answers_keep_the_callers_order() -> None:
    async with RedisCluster() as cluster, routed(cluster.url) as router:
        keys = [f"{{{number:02x}}}:k" for number in range(BUCKETS)]
        assert set(await router.call_all([("SET", key, key, "PX", 60_000) for key in keys])) == {b"OK"}
        mixed: list[tuple[str, ...]] = [("ECHO", "first"), *(("GET", key) for key in keys), ("ECHO", "last")]
        calls = (router.call_all(mixed), router.call("GET", keys[7]), router.call("GET", keys[200]))
        answers, seventh, other = await asyncio.gather(*calls)
        assert answers == [b"first", *(key.encode() for key in keys), b"last"]
        assert (seventh, other) == (keys[7].encode(), keys[200].encode())
        for node in cluster.nodes:
            assert await node.client.dbsize() > BUCKETS / 6
            assert (await node.names()).count(NAME) == 1
            assert await node.said("MOVED") == 0


@pytest.mark.slow
async def test_the_log_works_on_every_node() -> None:
    async with RedisCluster() as cluster, routed(cluster.url) as router:
        log = Log(router)
        made = await streams(cluster, log)
        ids = [stream.id for group in made.values() for stream in group]
        quota = Quota(router, Settings(max_owner_streams=len(ids)))
        for stream_id in ids:
            await quota.admit("alice", stream_id)
        with pytest.raises(OverQuota):
            await quota.admit("alice", new_stream_id())
        for group in made.values():
            first, second, third = group
            await first.texts("a", "b")
            await first.end()
            assert (await log.cancel(second.id, "0" * 4)).word == "cancelled"
            await third.claim_again()
            record, length = await log.record(third.id)
            assert record is not None
            assert (record.attempt, length > 0) == (2, True)
            assert b'"b"' in (await log.read(first.id, None)).frames
            assert (await log.ask(first.id, 1000)).word == "ended"
            assert (await log.ask(third.id, 1000)).word == "held"
        by_node = await log.by_node(ids)
        assert sorted(map(sorted, by_node)) == sorted(
            sorted(stream.id for stream in group) for group in made.values()
        )
        running = {group[2].id for group in made.values()}
        # The quota finds that the others have ended.
        assert await quota.admit("alice", new_stream_id()) == len(running)
        for part in by_node:
            for stream_id, head in zip(part, await log.heads(part), strict=True):
                assert (head.lease_left_ms is not None) == (stream_id in running)
        assert await log.due(100) == []
        for group in made.values():
            third = group[2]
            await third.claim_again()
            await log.append(third._claim, third._end, b"", "", 1)  # The lease ends in a moment.
        async with asyncio.timeout(BOUND_SECONDS):
            while len(await log.due(100)) < 3:
                pass
        assert set(await log.due(100)) == running
        assert await log.take_turn("sweep", 60_000) == "yes"
        assert await log.take_turn("sweep", 60_000) == "no"


@pytest.mark.slow
async def test_a_lease_is_read_by_the_clock_of_its_own_node() -> None:
    """The clocks of nodes differ. The node that stores a stream sets the end of its lease."""
    async with RedisCluster() as cluster, routed(cluster.url) as router:
        log = Log(router)
        made = await one_each(cluster, log)

        async def clocks_asked() -> list[int]:
            stats = [await node.client.info("commandstats") for node in cluster.nodes]
            for node in cluster.nodes:
                await node.client.config_resetstat()
            return [one.get("cmdstat_time", {"calls": 0})["calls"] for one in stats]

        for number, stream in enumerate(made):
            await clocks_asked()
            await log.heads([stream.id])
            assert await clocks_asked() == [int(number == n) for n in range(3)]
        await log.due(100)
        assert await clocks_asked() == [1, 1, 1]


@pytest.mark.slow
async def test_the_queue_works_on_a_cluster() -> None:
    async with RedisCluster() as cluster, AsyncExitStack() as stack:
        for name in ("one", "another", "third"):  # Probably not all on one node.
            two = [await stack.enter_async_context(routed(cluster.url)) for _ in range(2)]
            queue = RedisQueue(*two, name=name, consumer="c", lease_ms=60_000, keep_ms=60_000)
            await queue.enqueue(Message("job"))
            async with asyncio.timeout(BOUND_SECONDS):
                while not (deliveries := await queue.receive(1)):
                    pass
            assert Message.decode(deliveries[0].body).id == "job"
            await queue.later(deliveries[0], 0)
            [again] = await queue.receive(1)
            await queue.done(again)
            assert await queue.depth() == 0


@pytest.mark.slow
async def test_one_subscriber_connection_hears_of_streams_on_every_node() -> None:
    async with RedisCluster() as cluster, relaying(cluster.url) as f, AsyncExitStack() as stack:
        made = await one_each(cluster, f.log)
        readers = [(await stack.enter_async_context(reading(f.relay, stream)))[0] for stream in made]
        for reader in readers:
            await until(lambda reader=reader: reader.frames != b"")  # type: ignore[misc]
        assert sum([(await node.names()).count("holdfast-hub") for node in cluster.nodes]) == 1
        for number in range(50):
            await asyncio.gather(*(stream.texts(f"word {number}") for stream in made))
        await asyncio.gather(*(stream.end() for stream in made))
        for stream, reader in zip(made, readers, strict=True):
            whole = (await f.log.read(stream.id, None, 1 << 20)).frames
            assert await reader.all() == whole
            assert whole.count(b"word ") == 50


@pytest.mark.slow
async def test_a_run_on_a_cluster() -> None:
    """Run `python -m gateway all`, and start streams until every node has stored at least one."""
    async with RedisCluster() as cluster, ModelServer() as model:
        environment = {"REDIS_URL": cluster.url, **model.environment()}
        async with (
            GatewayProcess("all", environment) as host,
            httpx.AsyncClient(timeout=BOUND_SECONDS, headers={"accept": "text/event-stream"}) as client,
        ):
            seen: set[ClusterNode] = set()
            while len(seen) < 3:
                answer = await client.post(f"{host.url}/stream", json={"user": script(["a ", "b ", "c"])})
                fold, ids = Fold(), []
                for message in Decoder().feed(answer.content):
                    ids.append(message.event())
                    fold.feed(message.id, message.event())
                assert (fold.text, fold.ended) == ("a b c", "done")
                seen.add(cluster.owner(Log.keys(ids[0].data["id"])[0]))
        assert all(model.requests)


async def test_a_single_server_is_asked_once_what_it_is(redis_url: str, redis: Redis) -> None:
    await redis.config_resetstat()
    async with Proxy(redis_url) as proxy, routed(proxy.url) as router:
        assert await asyncio.gather(*(router.call("ECHO", str(n)) for n in range(20))) == [
            str(n).encode() for n in range(20)
        ]
        assert await router.call_all([("ECHO", "a"), ("ECHO", "b")]) == [b"a", b"b"]
        assert await router.by_node(["a", "b"]) == [["a", "b"]]
        assert proxy.accepted["commands"] == 1
        assert await maps_asked(redis) == 1
        assert router.place().url == proxy.url


async def test_a_socket_on_this_machine_is_not_even_asked(redis_url: str, redis: Redis) -> None:
    await redis.config_resetstat()
    async with routed(redis_url) as router:
        assert await router.call("ECHO", "x") == b"x"
        assert await maps_asked(redis) == 0


async def test_the_store_that_stands_in_for_redis_is_a_single_one() -> None:
    fake = FakeStore()
    url = await fake.start()
    try:
        async with routed(url) as router:
            assert await router.call("ECHO", "x") == b"x"
    finally:
        await fake.stop()


async def test_a_server_that_is_away_sees_no_storm_and_is_found_when_it_is_back(redis_url: str) -> None:
    async with Proxy(f"{redis_url}.not-there") as proxy, routed(proxy.url) as router:
        answers = await asyncio.gather(*(router.call("PING") for _ in range(300)), return_exceptions=True)
        assert all(isinstance(answer, StoreUnavailable) for answer in answers)
        assert proxy.accepted["commands"] <= 4
        proxy.upstream = redis_url
        assert await router.call("PING") == b"PONG"


async def test_a_cluster_without_slots_is_unavailable_until_it_has_them() -> None:
    node = ClusterNode()
    await node.start()
    try:
        async with routed(node.url) as router:
            with pytest.raises(StoreUnavailable):
                await router.call("GET", "k")
            await node.serve(0, 16383)
            async with asyncio.timeout(BOUND_SECONDS):
                while True:
                    try:
                        assert await router.call("GET", "k") is None
                        break
                    except StoreUnavailable:  # CLUSTERDOWN, for a moment.
                        await asyncio.sleep(0.02)
    finally:
        await node.stop()


async def test_closed_is_closed() -> None:
    router = Router(f"redis://127.0.0.1:{free_port()}", name=NAME)
    await router.close()
    with pytest.raises(StoreUnavailable):
        await router.call("PING")
