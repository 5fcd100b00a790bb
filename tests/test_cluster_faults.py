"""A cluster that changes during work.

Examples: a slot moves, or a node dies, restarts, or is replaced by its replica.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

import pytest
from redis.crc import key_slot

from gateway import protocol
from gateway.protocol.errors import StoreUnavailable
from gateway.redis.cluster import Router
from gateway.store.log import Log
from gateway.writing.writer import Writer
from tests.support.following import Stream, reading, until
from tests.support.pen import WatchedLog
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import maps_asked
from tests.test_cluster import NAME, one_each, relaying, routed

pytestmark = pytest.mark.slow
BOUND_SECONDS = 30
SOON_SECONDS = 10.0  # Seconds. Far less than twenty time limits.


async def again(work: Callable[[], Awaitable[object]]) -> None:
    """Repeat the work while the store is unavailable, as a worker does."""
    async with asyncio.timeout(BOUND_SECONDS):
        while True:
            try:
                await work()
                return
            except StoreUnavailable:
                await asyncio.sleep(0.02)


async def test_a_stream_is_written_on_while_its_slot_moves() -> None:
    """Write before the move, during the move, and after it.

    During the move the keys are first on the old node and then on the new one.
    """
    async with RedisCluster() as cluster, relaying(cluster.url) as f:
        stream = await Stream.create(f.log)
        key = f.log.keys(stream.id)[0]
        slot, source = key_slot(key.encode()), cluster.owner(key)
        target = next(node for node in cluster.nodes if node is not source)
        async with reading(f.relay, stream) as [reader]:
            await stream.texts("before")
            await cluster.begin_move(slot, source, target)
            await stream.texts("still here")
            await cluster.move_keys(slot, source, target)
            await stream.texts("there already")
            assert await source.said("ASK") > 0
            assert b"there already" in (await f.log.read(stream.id, None)).frames
            await cluster.end_move(slot, target)
            moved = await source.said("MOVED")
            await stream.texts("behind")
            assert await source.said("MOVED") > moved
            seen = await source.said("MOVED")
            await stream.end()
            whole = await reader.all()
            assert await source.said("MOVED") == seen  # The map already has the slot's new node.
        for text in (b"before", b"still here", b"there already", b"behind"):
            assert whole.count(b'"' + text + b'"') == 1


async def test_a_writer_goes_on_while_its_slot_moves() -> None:
    """A callback command cannot follow ASK or MOVED.

    The writer's task repeats it and follows them, and later commands use the callback again.
    """
    async with RedisCluster() as cluster, routed(cluster.url) as router:
        log = WatchedLog(router)
        stream = await Stream.create(log)
        claim = await stream.take_over()
        writer = Writer(log, claim, lease=15.0, patience=20.0, max_event=1 << 20, max_log=1 << 26)
        writing = asyncio.create_task(writer.run())
        key = log.keys(stream.id)[0]
        slot, source = key_slot(key.encode()), cluster.owner(key)
        target = next(node for node in cluster.nodes if node is not source)

        async def say(*words: str) -> tuple[int, int]:
            """Return how many words the callback has sent, and how many the task."""
            posted, asked = log.posted, log.asked
            for word in words:
                await writer.put(protocol.text(word, deployment="d", stage="s"))
                await writer.flush()
            return log.posted - posted, log.asked - asked

        await say("a ")
        assert await say("b ", "c ") == (2, 0)
        await cluster.begin_move(slot, source, target)
        await cluster.move_keys(slot, source, target)
        assert await say("d ", "e ") == (2, 2)  # ASK: the keys are on the target for now.
        await cluster.end_move(slot, target)
        await say("f ")
        assert (await say("g ", "h "))[1] == 0
        await writer.put(protocol.done(finish_reason="stop", usage={}, attempts=1, duration_ms=1))
        assert await writing == "ok"
        frames = (await log.read(stream.id, None)).frames
        for word in "abcdefgh":
            assert frames.count(b'"%b "' % word.encode()) == 1


async def test_after_a_node_has_not_answered_a_callback_the_map_is_asked_for_before_anything_else() -> None:
    """A replica may have replaced the node. To wait for the old node again would take most of a lease."""
    async with RedisCluster() as cluster, routed(cluster.url, 0.5) as router:
        [stream, *_] = await one_each(cluster, Log(router))
        key = Log.keys(stream.id)[0]
        silent = cluster.owner(key)
        heard: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        silent._process.send_signal(19)  # SIGSTOP
        try:
            assert router.post(key, ("GET", key), heard.set_result)
            assert isinstance(await heard, TimeoutError)
            others = [node for node in cluster.nodes if node is not silent]

            async def looks() -> int:
                return sum([await maps_asked(node.client) for node in others])

            before = await looks()
            elsewhere = next(key for key in map(str, range(1000)) if cluster.owner(key) is others[0])
            assert await router.call("GET", elsewhere) is None
            assert await looks() == before + 1
            assert await router.call("GET", elsewhere) is None
            assert await looks() == before + 1
        finally:
            silent._process.send_signal(18)  # SIGCONT


async def test_each_slot_that_has_moved_is_told_once() -> None:
    """The node answers MOVED once for each slot.

    The slots move faster than the whole map may be read again.
    """
    async with RedisCluster() as cluster, routed(cluster.url) as router:
        source, target = cluster.nodes[:2]
        keys = [f"{{{n}}}" for n in range(100) if cluster.owner(f"{{{n}}}") is source][:5]
        await router.call_all([("GET", key) for key in keys])
        for key in keys:
            await cluster.end_move(key_slot(key.encode()), target)
            for _ in range(3):
                assert await router.call("GET", key) is None
        assert await source.said("MOVED") == len(keys)


async def test_many_commands_at_once_are_sent_on_one_by_one() -> None:
    """Half of the keys have moved already. Each answer must belong to its own command."""
    async with RedisCluster() as cluster, routed(cluster.url) as router:
        keys = [f"{{tag}}:{number}" for number in range(40)]
        slot, source = key_slot(b"tag"), cluster.owner("{tag}")
        target = next(node for node in cluster.nodes if node is not source)
        await router.call_all([("SET", key, key, "PX", 60_000) for key in keys])
        await cluster.begin_move(slot, source, target)
        await source.call("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys[::2])
        mixed = [command for key in keys for command in (("GET", key), ("GET", f"{{other{key}}}"))]
        assert await router.call_all(mixed) == [one for key in keys for one in (key.encode(), None)]
        assert await source.said("ASK") == 20
        await cluster.move_keys(slot, source, target)
        await cluster.end_move(slot, target)
        calls = (router.call("GET", key) for key in keys)
        assert await asyncio.gather(*calls) == [key.encode() for key in keys]


async def test_a_node_that_dies_takes_only_its_own_streams_along_and_brings_them_back() -> None:
    async with RedisCluster() as cluster, relaying(cluster.url) as f:
        made = await one_each(cluster, f.log)
        dead, *others = made  # The first node is the one in the URL.
        await cluster.nodes[0].kill()
        for stream in others:
            # The dead node had some subscriptions; they move.
            async with reading(f.relay, stream) as [reader]:
                await stream.texts("a")
                await stream.end()
                assert b'"a"' in await reader.all()
        began = monotonic()
        for _ in range(20):
            with pytest.raises(StoreUnavailable):
                await dead.texts("a")
        assert monotonic() - began < SOON_SECONDS
        for _ in range(20):
            await f.log.now_ms()  # Any node can answer this.
        assert await f.log.due(100) == []
        await cluster.nodes[0].start()
        await again(lambda: dead.texts("a"))
        await again(dead.end)
        assert (await f.log.read(dead.id, None)).frames.count(b'"a"') == 1


async def test_the_hub_looks_at_the_streams_of_the_nodes_that_are_left() -> None:
    async with RedisCluster() as cluster, relaying(cluster.url) as f:
        made = await one_each(cluster, f.log)
        async with (
            reading(f.relay, made[0]) as [first],
            reading(f.relay, made[1]) as [second],
            reading(f.relay, made[2]) as [third],
        ):
            await until(lambda: all(reader.frames for reader in (first, second, third)))
            await cluster.nodes[2].kill()
            for stream in made[:2]:
                await stream.claim_again()  # No publish: only a poll can notice the lease end.
                await f.log.append(stream._claim, stream._end, b"", "", 200)
            await until(lambda: {stream.id for stream in made[:2]} <= set(f.orphans))


async def test_a_replica_takes_over_and_streams_go_on() -> None:
    async with RedisCluster() as cluster, relaying(cluster.url) as f:
        stream = (await one_each(cluster, f.log))[1]
        replica = await cluster.replicate(cluster.nodes[1])
        await stream.texts("before")
        await cluster.copied(cluster.nodes[1], replica)
        await cluster.nodes[1].kill()
        await again(lambda: stream.texts("after"))
        await again(stream.end)
        frames = (await f.log.read(stream.id, None)).frames
        assert frames.index(b'"before"') < frames.index(b'"after"')
        assert len(f.redis._cluster._map.nodes) == 3  # type: ignore[attr-defined]


async def test_a_node_that_does_not_answer_is_given_up_in_time() -> None:
    async with RedisCluster() as cluster, routed(cluster.url, timeout=0.5) as router:
        keys = [f"{{{number:02x}}}:k" for number in range(64)]
        await router.call_all([("GET", key) for key in keys])
        stopped = cluster.nodes[1]
        stopped._process.send_signal(19)  # SIGSTOP
        try:
            began = monotonic()
            mine = next(key for key in keys if cluster.owner(key) is stopped)
            theirs = [key for key in keys if cluster.owner(key) is not stopped]
            with pytest.raises(StoreUnavailable):
                await router.call("GET", mine)
            assert monotonic() - began < 3 * 2 * 0.5
            assert await router.call_all([("GET", key) for key in theirs]) == [None] * len(theirs)
        finally:
            stopped._process.send_signal(18)  # SIGCONT
        await again(lambda: router.call("GET", mine))


async def test_closing_leaves_no_connection_and_no_task() -> None:
    async with RedisCluster() as cluster:
        before = asyncio.all_tasks()
        router = Router(cluster.url, name=NAME)
        await router.call_all([("GET", f"{{{number:02x}}}:k") for number in range(64)])
        await router.close()
        with pytest.raises(StoreUnavailable):
            await router.call("GET", "k")
        await until(lambda: not asyncio.all_tasks() - before)
        async with asyncio.timeout(BOUND_SECONDS):
            while any([NAME in await node.names() for node in cluster.nodes]):
                pass
