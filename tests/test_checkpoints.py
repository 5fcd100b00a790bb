"""The checkpointer on a real Redis.

It must pass LangGraph's own conformance suite, and other cases that this suite does not test.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver, writes_sort_key
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import ERROR
from redis.asyncio import Redis

from gateway.protocol.errors import StoreUnavailable
from gateway.redis.cluster import Router
from gateway.redis.embedded_fake import FakeStore
from gateway.settings import Settings
from holdfast_gateway.checkpoints import Saver
from tests.support.checkpoints import listed, place, put, sound, values_of
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer
from workers.checkpoints.names import keys_of


async def conforms(url: str) -> None:
    """Check that every capability is detected and that every test of the suite passes."""

    @checkpointer_test(name="Saver")
    async def made() -> AsyncGenerator[BaseCheckpointSaver[Any]]:
        async with Saver.from_url(url) as saver:
            yield saver

    report = await validate(made)
    assert report.results.keys() == {capability.value for capability in Capability}
    for name, result in report.results.items():
        assert result.failures == [], name
        assert (result.detected, result.passed, result.tests_skipped) == (True, True, 0), name
        assert result.tests_passed > 0, name


async def test_the_conformance_suite_passes_in_full(redis_url: str) -> None:
    await conforms(redis_url)


@pytest.mark.slow
async def test_the_conformance_suite_passes_in_full_without_a_redis_server() -> None:
    fake = FakeStore()
    url = await fake.start()
    try:
        await conforms(url)
    finally:
        await fake.stop()


@pytest.mark.slow
async def test_the_conformance_suite_passes_in_full_on_a_cluster() -> None:
    async with RedisCluster() as cluster:
        await conforms(cluster.url)
        for node in cluster.nodes:
            keys = [key async for key in node.client.scan_iter("*")]
            assert len(keys) > 10  # Every node has threads.
            assert [key for key in keys if await node.client.ttl(key) < 1] == []
            assert await node.said("CROSSSLOT") == 0


async def test_a_write_renews_the_expiry_of_all_keys(redis_url: str, redis: Redis) -> None:
    async with Saver.from_url(redis_url, seconds=100) as saver:
        config = await put(saver, place(), {"a": (1, "x")})
        await saver.aput_writes(config, [("a", "y")], "task")
        for act in ("put", "writes"):
            keys = [key async for key in redis.scan_iter("*")]
            assert len(keys) == 4
            assert all([90_000 < await redis.pttl(key) <= 100_000 for key in keys])
            for key in keys:
                await redis.expire(key, 10)
            if act == "put":
                await put(saver, config, {"a": (1, "x")}, {})
            else:
                await saver.aput_writes(config, [("a", "y")], "other")
            assert all([90_000 < await redis.pttl(key) <= 100_000 for key in keys])


async def test_deletion_leaves_no_key(redis_url: str, redis: Redis) -> None:
    async with Saver.from_url(redis_url) as saver:
        for namespace in ("", "sub:1"):
            config = await put(saver, place("one", namespace), {"a": (1, "x")}, run_id="run")
            await saver.aput_writes(config, [("a", "y")], "task")
        await saver.adelete_thread("one")
        assert await redis.dbsize() == 0
        await put(saver, place("one"), {"a": (1, "x")}, run_id="run")
        await put(saver, place("two"), {"a": (1, "x")}, run_id="run")
        await saver.adelete_for_runs(["run"])
        assert [key async for key in redis.scan_iter("*:saved")] == []
        await saver.aprune(["one", "two"], strategy="delete")
        assert await redis.dbsize() == 0


async def test_two_owners_with_one_threads_name_never_meet(redis_url: str) -> None:
    async with Saver.from_url(redis_url, owner="a") as hers, Saver.from_url(redis_url, owner="b") as his:
        config = await put(hers, place(), {"a": (1, "hers")}, run_id="run")
        assert await values_of(his, place()) is None
        assert await values_of(his, config) is None
        assert await listed(his, None) == []
        await put(his, place(), {"a": (1, "his")}, run_id="run")
        await his.acopy_thread("one", "two")
        await his.adelete_for_runs(["run"])
        await his.adelete_thread("one")
        assert await values_of(hers, place()) == {"a": "hers"}
        assert [one.config for one in await listed(hers, None)] == [config]
        assert keys_of("a", "b:c") != keys_of("a:b", "c")


async def test_any_text_may_be_a_name(redis_url: str, redis: Redis) -> None:
    odd = "a/b {x} ü\0%2F|:"
    half = f"{odd}\ud83d"  # LangGraph's serializer refuses half a surrogate pair inside a checkpoint.
    async with Saver.from_url(redis_url, owner=half) as saver:
        config = await put(saver, place(half, half), {odd: (f"1.{odd}", b"\x00\xff")}, run_id=odd)
        await saver.aput_writes(config, [(odd, {"k": b"\r\n"})], half, half)
        [found] = await listed(saver, None)
        assert found.config == config
        assert found.checkpoint["channel_values"] == {odd: b"\x00\xff"}
        assert found.pending_writes == [(half, odd, {"k": b"\r\n"})]
        await sound(redis, half, half)
        await saver.adelete_for_runs([found.metadata["run_id"]])
        assert await listed(saver, place(half)) == []


async def test_pending_writes_are_in_langgraphs_order_and_the_first_word_counts(redis_url: str) -> None:
    async with Saver.from_url(redis_url) as saver:
        config = await put(saver, place(), {"a": (1, "x")})
        tasks = [("b-task", "~2"), ("a-task", "~1"), ("z-task", ""), ("c-task", "~1")]
        for task, path in tasks:
            many = [("a", f"{task} {number}") for number in range(11)]
            await saver.aput_writes(config, many, task, path)
            await saver.aput_writes(config, [("a", "later")], task, path)
        await saver.aput_writes(config, [(ERROR, "first")], "a-task", "~1")
        await saver.aput_writes(config, [(ERROR, "last")], "a-task", "~1")
        expected = [
            (writes_sort_key(path, task, number), (task, "a", f"{task} {number}"))
            for task, path in tasks
            for number in range(11)
        ]
        expected.append((writes_sort_key("~1", "a-task", -1), ("a-task", ERROR, "last")))
        found = await saver.aget_tuple(place())
        assert found is not None
        assert found.pending_writes == [write for _, write in sorted(expected)]


@dataclass
class Own:
    """A class of a chain's author that is stored in a graph's state."""

    word: str


async def test_a_strict_serializer_makes_only_what_a_graph_allows(redis_url: str) -> None:
    """LangGraph does this with LANGGRAPH_STRICT_MSGPACK: it makes a copy of the saver for each graph."""
    strict = JsonPlusSerializer(allowed_msgpack_modules=None)
    async with Saver.from_url(redis_url, serde=strict) as saver:
        allowing = saver.with_allowlist([(Own.__module__, "Own")])
        await put(allowing, place(), {"a": (1, Own("x"))})
        assert await values_of(allowing, place()) == {"a": Own("x")}
        assert await values_of(saver, place()) == {"a": {"word": "x"}}
        with pytest.raises(NotImplementedError, match="pickle"):
            strict.loads_typed(("pickle", b""))


class Forgetful(Router):
    """A router that executes every command but loses the first answer to each command."""

    def __init__(self, url: str) -> None:
        super().__init__(url, name="holdfast-test")
        self._heard: set[tuple[Any, ...]] = set()

    async def call(self, *command: Any) -> Any:
        answer = await super().call(*command)
        if command not in self._heard:
            self._heard.add(command)
            raise StoreUnavailable
        return answer


@asynccontextmanager
async def forgetful(url: str) -> AsyncIterator[Router]:
    connection = Forgetful(url)
    try:
        yield connection
    finally:
        await connection.close()


async def test_what_is_done_again_since_its_answer_was_lost_is_done_once(
    redis_url: str, redis: Redis
) -> None:
    async with forgetful(redis_url) as connection:
        saver = Saver(connection)
        first = await put(saver, place(), {"a": (1, "x"), "b": (1, "y")}, run_id="run")
        await saver.aput_writes(first, [("a", "z")], "task")
        second = await put(saver, first, {"a": (2, "z"), "b": (1, "y")}, {"a": 2}, run_id="run")
        assert [one.config for one in await listed(saver, place())] == [second, first]
        assert await values_of(saver, place()) == {"a": "z", "b": "y"}
        found = await saver.aget_tuple(first)
        assert found is not None
        assert found.pending_writes == [("task", "a", "z")]
        await sound(redis)
        await saver.aprune(["one"])
        await sound(redis)
        await saver.adelete_thread("one")
        assert await redis.dbsize() == 0


async def test_a_store_that_is_away_is_waited_for_with_an_end() -> None:
    async with RedisServer(aof=True) as server, Saver.from_url(server.url) as saver:
        first = await put(saver, place(), {"a": (1, "x")})
        await server.kill()
        async with Saver.from_url(server.url, patience=0) as hasty:
            with pytest.raises(StoreUnavailable):
                await hasty.aget_tuple(place())
        await server.start()
        await put(saver, first, {"a": (1, "x")}, {})
        assert await values_of(saver, place()) == {"a": "x"}


async def test_a_list_of_all_threads_and_namespaces(redis_url: str) -> None:
    async with Saver.from_url(redis_url) as saver:
        made = [await put(saver, place("one", name), {"a": (1, "x")}, step=1) for name in ("b", "", "a")]
        other = await put(saver, place("two"), {"a": (1, "x")}, step=2)
        everywhere: Any = {"configurable": {"thread_id": "one"}}
        assert [one.config for one in await listed(saver, everywhere)] == made[::-1]
        assert [one.config for one in await listed(saver, everywhere, before=made[2])] == made[1::-1]
        assert [one.config for one in await listed(saver, made[0])] == [made[0]]
        assert await listed(saver, made[0], before=made[0]) == []
        assert [one.config for one in await listed(saver, None)] == [*made[::-1], other]
        assert [one.config for one in await listed(saver, None, filter={"step": 2}, limit=3)] == [other]
        many = [await put(saver, place("three"), {}) for _ in range(205)]
        assert [one.config for one in await listed(saver, place("three"))] == many[::-1]
        with pytest.raises(ValueError, match="keep_latest"):
            await saver.aprune(["one"], strategy="oldest")


async def test_the_gateways_settings_open_one(redis_url: str, redis: Redis) -> None:
    settings = Settings(redis_url=redis_url, thread_seconds=500)
    async with Saver.from_settings(settings, owner="a", patience=0) as saver:
        await put(saver, place(), {"a": (1, "x")})
        assert 400 < await redis.ttl(keys_of("a", "one")[0]) <= 500
    with pytest.raises(StoreUnavailable):
        await saver.aget_tuple(place())  # The saver's connection is closed.
    with pytest.raises(ValueError, match="REDIS_URL"):
        async with Saver.from_settings(Settings()):
            pass
