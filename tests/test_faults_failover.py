"""Rows 36 to 44: a store that fails over, refuses commands, drops connections, or delivers no messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from gateway.protocol import ANONYMOUS, TERMINAL_EVENTS
from gateway.protocol.errors import QueueUnavailable, StoreUnavailable
from gateway.queue import overdue
from gateway.redis.cluster import Router
from gateway.relay import feed, hub
from gateway.settings import Settings
from gateway.streams.service import Gateway
from tests.support.following import Stream, connected, feeds, following, reading, until
from tests.support.jobs import Jobs, body, eventually
from tests.support.model_server import ModelServer, script
from tests.support.name import Name, follow, promote, switch
from tests.support.processes import GatewayProcess
from tests.support.proxy import Proxy, dropped
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer
from tests.test_faults_store import Attached
from workers.delivery.runner import DONE

BOUND_SECONDS = 30
REFUSED_CALLS = 200
WORDS = ["before ", "after ", "end"]


@asynccontextmanager
async def replicated() -> AsyncIterator[tuple[RedisServer, RedisServer]]:
    """Yield a primary and its replica."""
    async with RedisServer(tcp=True) as primary, RedisServer(tcp=True) as replica:
        await follow(replica, primary)
        yield primary, replica


@asynccontextmanager
async def behind(name: Name, model: ModelServer, text: bytes) -> AsyncIterator[tuple[str, Attached, str]]:
    """Run web and worker at this name, a running stream, and a reader that has received this text."""
    environment = {"REDIS_URL": name.url, "GATEWAY_LEASE_SECONDS": "5", **model.environment()}
    async with (
        GatewayProcess("web", environment) as web,
        GatewayProcess("worker", environment) as worker,
        httpx.AsyncClient(base_url=web.url, timeout=BOUND_SECONDS) as client,
    ):
        question = {"user": script(WORDS, gate="failover", gate_at=1)}
        where = (await client.post("/stream", json=question)).headers["location"]
        reader = Attached(web.url + where)
        await reader.has(text)
        yield web.url, reader, where
        assert "Traceback" not in web.log() + worker.log()


async def ended(url: str, reader: Attached, where: str) -> None:
    """Check that this reader's first connection received the rest and the end, each once."""
    async with asyncio.timeout(BOUND_SECONDS):
        await reader.task
    for word in WORDS:
        assert reader.frames.count(b'"%b"' % word.encode()) == 1
    assert b"event: done\n" in reader.frames
    async with httpx.AsyncClient(base_url=url, timeout=BOUND_SECONDS) as client:
        answer = await client.post(
            "/stream", json={"user": script(["new"])}, headers={"accept": "text/event-stream"}
        )
        assert b"event: done\n" in answer.content
        assert (await client.get(where, headers={"accept": "application/json"})).json()["status"] == "done"
        async with asyncio.timeout(BOUND_SECONDS):
            while (await client.get("/ready")).status_code != 200:  # noqa: ASYNC110 - only asking can tell
                await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_fault_36_after_a_planned_failover_all_connections_are_left_and_streams_go_on() -> None:
    """The old primary keeps its connections open. No client waits for their end, the subscriber included."""
    async with (
        replicated() as (old, new),
        ModelServer() as model,
        Name(old) as name,
        behind(name, model, b'"before "') as (url, reader, where),
    ):
        had = name.open_to(old)
        assert had >= 3
        await switch(old, new)
        name.leads_to(new)
        ready = monotonic()
        await until(lambda: name.open_to(old) == 0)
        await until(lambda: name.open[new.port, "hub"] == 1)
        print(f"left after {monotonic() - ready:.1f} s")
        model.open_gate("failover")
        await ended(url, reader, where)
        print(f"ended after {monotonic() - ready:.1f} s")
        # Redis itself ends a blocked read (here the queue's) and its connection (`blocked.c`).
        assert name.ended_by_server[old.port, "commands"] == name.ended_by_server[old.port, "hub"] == 0


@pytest.mark.slow
async def test_fault_37_after_an_unplanned_failover_streams_go_on() -> None:
    async with (
        replicated() as (old, new),
        ModelServer() as model,
        Name(old) as name,
        behind(name, model, b'"before "') as (url, reader, where),
    ):
        await follow(new, old)
        await old.kill()
        await promote(new)
        name.leads_to(new)
        ready = monotonic()
        model.open_gate("failover")
        await ended_or_back(url, reader, where)
        print(f"ended after {monotonic() - ready:.1f} s")


async def ended_or_back(url: str, reader: Attached, where: str) -> None:
    """A reader that found no store got a clean close. It reconnects once, after its last event."""
    async with asyncio.timeout(BOUND_SECONDS):
        await reader.task
    if b"event: done\n" not in reader.frames:
        last = reader.frames.rpartition(b"id: ")[2].partition(b"\n")[0].decode()
        async with httpx.AsyncClient(base_url=url, timeout=BOUND_SECONDS) as client:
            headers = {"accept": "text/event-stream", "last-event-id": last}
            reader.frames += (await client.get(where, headers=headers)).content
    await ended(url, reader, where)


async def test_fault_38_while_a_server_is_read_only_for_long_it_is_left_ever_more_rarely(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log has one line, and the number of new connections does not grow with the number of commands."""
    async with RedisServer(tcp=True) as server, Name(server) as name, connected(name.url) as connection:
        async with Redis.from_url(server.url) as redis:
            await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
            began, refused = monotonic(), 0
            async with asyncio.timeout(BOUND_SECONDS):
                while refused < REFUSED_CALLS or name.opened[server.port, "commands"] < 4:
                    with pytest.raises(StoreUnavailable):
                        await connection.call("SET", "k", "v", "PX", 1000)
                    refused += 1
            connects = name.opened[server.port, "commands"]
            assert connects <= 6 + 2 * (monotonic() - began)
            await redis.execute_command("REPLICAOF", "NO", "ONE")
            assert await connection.call("SET", "k", "v", "PX", 1000) == b"OK"
        lines = [line for line in caplog.messages if "leaves the store" in line]
        assert len(lines) == 1
        assert "READONLY" in lines[0]


async def test_fault_38_a_write_that_a_demoted_server_refuses_is_made_where_the_name_leads_now() -> None:
    """The caller of `call` sees no error. A refused callback makes no difference to later callers."""
    async with replicated() as (old, new), Name(old) as name, connected(name.url) as connection:
        await connection.call("SET", "k", "1", "PX", 60_000)
        await switch(old, new)
        name.leads_to(new)
        heard: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        assert connection.post("k", ("SET", "k", "2", "PX", 60_000), heard.set_result)
        assert isinstance(await heard, Exception)
        assert await connection.call("SET", "k", "3", "PX", 60_000) == b"OK"
        assert not name.ended_by_server
        await until(lambda: name.open_to(old) == 0)
        assert name.open_to(new) == 1


@pytest.mark.slow
async def test_fault_39_who_only_reads_leaves_a_replica_too() -> None:
    """A reader gets no refusal from a replica, so the client asks the server for its role."""
    async with replicated() as (old, new), Name(old) as name:
        gateway = Gateway(Settings(redis_url=name.url), {"chat": ("chat",)})
        parts = gateway.parts
        try:
            async with connected(old.url) as direct:
                stream = await Stream.create(type(parts.log)(direct))
            async with parts.hub.subscribe(stream.id):
                await parts.log.now_ms()
                assert name.open[old.port, "commands"] == name.open[old.port, "hub"] == 1
                await switch(old, new)
                name.leads_to(new)
                await until(lambda: name.open_to(old) == 0)
                await until(lambda: name.open_to(new) == 2)
                assert not name.ended_by_server
        finally:
            await gateway.close()


async def received(jobs: Jobs) -> bytes:
    """Return the next delivery. Ask again while the queue is unavailable, as a worker does."""
    while True:
        try:
            return (await jobs.delivery()).body
        except QueueUnavailable:
            await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_fault_40_a_consumer_that_waits_on_a_demoted_server_goes_on_at_the_new_primary() -> None:
    """A change of role ends a blocked read with UNBLOCKED. This does not mean that the group is missing."""
    async with replicated() as (old, new), Name(old) as name, Jobs(name.url) as jobs:
        await jobs.queue.receive(1)  # This makes the group.
        await follow(new, old)
        receiving = asyncio.create_task(received(jobs))
        async with Redis.from_url(old.url) as redis:

            async def waits() -> bool:
                return bool((await redis.info("clients"))["blocked_clients"])

            await eventually(waits)
        await switch(old, new)
        name.leads_to(new)
        stream_id = await jobs.stream(chain="chat")
        assert stream_id.encode() in await asyncio.wait_for(receiving, BOUND_SECONDS)


@pytest.mark.slow
async def test_fault_43_a_subscriber_that_hears_nothing_leaves_the_old_primary_which_lives_on_alone() -> None:
    async with replicated() as (old, new), Name(old) as name, following(new.url, hub_url=name.url) as f:
        await promote(new)
        stream = await Stream.create(f.log)
        async with reading(f.relay, stream) as [reader]:
            ear = f.hub.subscriber
            await until(lambda: name.open[old.port, "hub"] == 1)
            name.leads_to(new)
            words, states = 0, set()
            async with asyncio.timeout(BOUND_SECONDS):
                while name.open[new.port, "hub"] == 0:
                    await stream.texts(f"untold {words}")
                    words += 1
                    await until(lambda: b'"untold %d"' % (words - 1) in reader.frames)  # noqa: B023
                    states.add(ear.state)
            assert not name.ended_by_server
            assert name.opened[new.port, "hub"] == 1
            await until(lambda: ear.state in ("ok", "unheard"))
            [followed] = feeds(f.hub)
            heard = followed.heard_at
            await stream.texts("told")
            await until(lambda: followed.heard_at > heard)
            await until(lambda: ear.state == "ok")
            await stream.end()
            whole = await reader.all()
        for number in range(words):
            assert whole.count(b'"untold %d"' % number) == 1


@pytest.mark.slow
async def test_fault_44_a_server_that_drops_every_publish_is_not_left_again_and_again(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`/ready` reports it, readers get everything by polling the log, and new connections are rare."""
    monkeypatch.setattr(hub, "PULSE_SECONDS", 0.02)
    monkeypatch.setattr(feed, "SILENT_SECONDS", 0.02)
    async with Proxy(redis_url) as proxy, following(redis_url, hub_url=proxy.url) as f:
        proxy.fault = dropped
        stream = await Stream.create(f.log)
        async with reading(f.relay, stream) as [reader]:
            began, words = monotonic(), 0
            async with asyncio.timeout(BOUND_SECONDS):
                while words < 30 or proxy.accepted["hub"] < 3:
                    await stream.texts(f"w{words}")
                    await until(lambda: b'"w%d"' % words in reader.frames)  # noqa: B023
                    words += 1
            assert proxy.accepted["hub"] <= 3 + monotonic() - began
            await until(lambda: f.hub.subscriber.state == "unheard")
            proxy.fault = lambda message: (message,)
            await stream.texts("told")
            await until(lambda: f.hub.subscriber.state == "ok")
            await stream.end()
            await reader.all()


async def test_fault_41_a_user_without_permissions_is_unavailable_and_then_served(redis_url: str) -> None:
    """The test covers a command, a command in a script, and the handshake. Each state logs one line."""
    async with Redis.from_url(redis_url) as admin, connected(redis_url) as connection:
        try:
            assert await connection.call("GET", "k") is None
            for taken in (("-@all", "+acl"), ("+@all", "-get")):
                await admin.execute_command("ACL", "SETUSER", "default", *taken)
                commands: tuple[tuple[object, ...], ...] = (
                    ("GET", "k"),
                    ("EVAL", "return redis.call('GET', KEYS[1])", 1, "k"),
                )
                for command in commands:
                    with pytest.raises(StoreUnavailable):
                        await connection.call(*command)  # type: ignore[arg-type]
            await admin.execute_command("ACL", "SETUSER", "default", "-@all", "+acl")
            async with connected(redis_url) as anew:
                with pytest.raises(StoreUnavailable):
                    await anew.call("GET", "k")
        finally:
            await admin.execute_command("ACL", "SETUSER", "default", "+@all")
        assert await connection.call("GET", "k") is None


async def words(_: Any) -> AsyncIterator[str]:
    yield "said"


@pytest.mark.parametrize("how", ["run", "cancel", "give up"])
async def test_fault_41_a_user_without_channels_ends_each_stream_once(
    redis_url: str, redis: Redis, how: str
) -> None:
    """The refused PUBLISH is almost the last step of a script. What was written before stays stored."""
    async with Jobs(redis_url, words, store_patience=2.0) as jobs:
        stream_id = await jobs.stream("q")
        await redis.execute_command("ACL", "SETUSER", "default", "resetchannels")
        try:
            if how == "run":
                assert await jobs.runner.run(body(stream_id)) == DONE
                assert (await jobs.fold(stream_id)).text == "said"
            elif how == "cancel":
                with suppress(StoreUnavailable):
                    await jobs.gateway.cancel(stream_id, ANONYMOUS)
                await jobs.gateway.cancel(stream_id, ANONYMOUS)
            else:
                await redis.hset(jobs.log.keys(stream_id)[0], "since_ms", 1)
                with suppress(StoreUnavailable):
                    await overdue.end(jobs.log, stream_id, "wait_limit")
                await overdue.end(jobs.log, stream_id, "wait_limit")
        finally:
            await redis.execute_command("ACL", "SETUSER", "default", "allchannels")
        kinds = await jobs.kinds(stream_id)
        assert (await jobs.record(stream_id)).ended
        assert sum(kind in TERMINAL_EVENTS for kind in kinds) == 1


@pytest.mark.slow
async def test_fault_41_permissions_taken_and_given_back_end_no_process_and_no_stream() -> None:
    async with RedisServer() as server, ModelServer() as model, Redis.from_url(server.url) as admin:
        environment = {"REDIS_URL": server.url, **model.environment()}
        async with (
            GatewayProcess("web", environment) as web,
            GatewayProcess("worker", environment) as worker,
            httpx.AsyncClient(base_url=web.url, timeout=BOUND_SECONDS) as client,
        ):
            question = {"user": script(WORDS, gate="permissions", gate_at=1)}
            where = (await client.post("/stream", json=question)).headers["location"]
            reader = Attached(web.url + where)
            await reader.has(b'"before "')
            for round_ in (1, 2, 3):
                await admin.execute_command("ACL", "SETUSER", "default", "-@all", "+acl")
                try:
                    told = "the queue cannot be read"
                    await until(lambda: worker.log().count(told) >= round_)  # noqa: B023
                    answer = await client.post("/stream", json={"user": "q"})
                    assert answer.status_code == 503
                finally:
                    await admin.execute_command("ACL", "SETUSER", "default", "+@all")
                await until(lambda: worker.log().count("the queue is read again") >= round_)  # noqa: B023
            model.open_gate("permissions")
            await ended_or_back(web.url, reader, where)
            assert worker.log().count(told) == 3
            assert "NOPERM" in web.log() + worker.log()
            assert "Traceback" not in web.log() + worker.log()


async def test_fault_41_a_cluster_whose_map_is_forbidden_is_not_taken_for_one_server() -> None:
    async with RedisCluster() as cluster:
        router = Router(cluster.url, name="holdfast-test")
        try:
            await cluster.nodes[0].call("ACL", "SETUSER", "default", "-cluster|slots")
            with pytest.raises(StoreUnavailable):
                await router.call("GET", "k")
            await cluster.nodes[0].call("ACL", "SETUSER", "default", "+cluster|slots")
            keys = [f"{{{number:02x}}}:k" for number in range(16)]
            assert await router.call_all([("GET", key) for key in keys]) == [None] * len(keys)
        finally:
            await router.close()


async def test_fault_42_a_server_that_drops_connections_in_a_row_is_asked_until_it_answers() -> None:
    async with RedisServer(tcp=True) as server, Name(server) as name, connected(name.url) as connection:
        name.cuts(4)
        assert await connection.call("SET", "k", "v", "PX", 1000) == b"OK"
        assert name.opened[server.port, "commands"] == 5
        name.cuts(1000)
        with pytest.raises(StoreUnavailable):
            await connection.call("GET", "k")
        name.cuts(0)
        assert await connection.call("GET", "k") in (b"v", None)


@pytest.mark.slow
async def test_fault_42_streams_go_on_when_clients_are_evicted_no_more() -> None:
    async with RedisServer(tcp=True) as server, ModelServer() as model, Redis.from_url(server.url) as admin:
        environment = {"REDIS_URL": f"redis://127.0.0.1:{server.port}/0", **model.environment()}
        async with (
            GatewayProcess("web", environment) as web,
            GatewayProcess("worker", environment) as worker,
            httpx.AsyncClient(base_url=web.url, timeout=BOUND_SECONDS) as client,
        ):
            question = {"user": script(WORDS, gate="evicted", gate_at=1)}
            where = (await client.post("/stream", json=question)).headers["location"]
            reader = Attached(web.url + where)
            await reader.has(b'"before "')
            for _ in range(8):  # Like eviction: it kills all, again and again.
                await admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                await admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                seen = (await admin.info("stats"))["total_connections_received"]

                async def again() -> bool:
                    return bool((await admin.info("stats"))["total_connections_received"] > seen)  # noqa: B023

                await eventually(again)
            model.open_gate("evicted")
            await ended_or_back(web.url, reader, where)
            assert "Traceback" not in web.log() + worker.log()
