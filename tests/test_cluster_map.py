"""The address and name of each node from `CLUSTER SLOTS`: with and without hosts and names, and over TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.protocol.errors import StoreUnavailable
from gateway.redis.connect import Place
from gateway.redis.slots import Map, Node, key_of, slot_of_key
from gateway.store.log import Log
from tests.support.certificates import certify
from tests.support.following import Stream, reading
from tests.support.redis_cluster import RedisCluster
from tests.test_cluster import one_each, relaying, routed


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("GET", "k"), "k"),
        (("SET", b"k", 1, "PX", 5), b"k"),
        (("EVALSHA", "sha", 2, "k", "other", "argument"), "k"),
        (("eval", "return 1", 1, "k"), "k"),
        (("EVAL", "return 1", 0), None),
        (("XADD", "k", "*", "job", b"{}"), "k"),
        (("XREADGROUP", "GROUP", "g", "c", "COUNT", 1, "BLOCK", 1000, "STREAMS", "k", ">"), "k"),
        (("XGROUP", "CREATE", "k", "g", "0", "MKSTREAM"), "k"),
        (("XAUTOCLAIM", "k", "g", "c", 1, "0-0"), "k"),
        (("MEMORY", "USAGE", "k", "SAMPLES", 0), "k"),
        (("TIME",), None),
        (("PING",), None),
    ],
)
def test_a_commands_key(command: tuple[Any, ...], key: str | bytes | None) -> None:
    assert key_of(command) == key


def test_all_keys_of_a_stream_have_one_slot() -> None:
    for stream_id in ("00abc", "ffxyz"):
        keys = [*Log.keys(stream_id), "{" + stream_id[:2] + "}:idem:hash"]
        assert len({slot_of_key(key) for key in keys}) == 1


def node(host: bytes | None, *names: bytes) -> list[Any]:
    return [host, 7000, b"id", list(names)]


@pytest.mark.parametrize(
    ("said", "known"),
    [
        (node(b"10.0.0.1"), Node("10.0.0.1", 7000, "redis.example")),
        (node(b"10.0.0.1", b"hostname", b"one.example"), Node("10.0.0.1", 7000, "one.example")),
        (node(b"one.example", b"ip", b"10.0.0.1"), Node("one.example", 7000, "one.example")),
        (node(None), Node("asked.example", 7000, "asked.example")),
        (node(b""), Node("asked.example", 7000, "asked.example")),
        (node(b"?"), Node("asked.example", 7000, "asked.example")),
        ([b"::1", 7000, b"id"], Node("::1", 7000, "redis.example")),  # Before Redis 7.
    ],
)
def test_a_nodes_address_and_name(said: list[Any], known: Node) -> None:
    cluster = Map("redis.example")
    cluster.learn([[0, 16383, said, node(b"10.0.0.9")]], "asked.example")
    assert cluster.nodes == [known]
    assert cluster.owner("any") == known
    assert cluster.at(known.host, known.port) == known


def test_a_slot_that_nobody_has_and_one_that_moved() -> None:
    cluster = Map("redis.example")
    cluster.learn([[0, 100, node(b"10.0.0.1")]], "")
    slot = slot_of_key("any")
    assert cluster.owner("any") is None
    cluster.moved(slot, cluster.at("10.0.0.1", 7000))
    assert cluster.owner("any") == cluster.nodes[0]


def test_another_node_is_spoken_to_in_the_same_way() -> None:
    place = Place("rediss://user:pass%40word@redis.example:10000/0?ssl_ca_certs=/ca.pem")
    there = place.at("10.0.0.1", 8500, "redis.example")
    assert there.url == "rediss://user:pass%40word@10.0.0.1:8500/0?ssl_ca_certs=/ca.pem"
    assert there.tls_name == "redis.example"
    assert Place("redis://a").at("::1", 1, "").url == "redis://[::1]:1"


@pytest.mark.slow
@pytest.mark.tls
async def test_over_tls_an_announced_address_is_checked_for_the_name_in_the_url(tmp_path: Path) -> None:
    """The certificate is only for `localhost`; the nodes announce 127.0.0.1."""
    certify(tmp_path, "localhost")
    async with RedisCluster(tls=tmp_path, host="localhost") as cluster, relaying(cluster.url) as f:
        for stream in await one_each(cluster, f.log):
            async with reading(f.relay, stream) as [reader]:
                await stream.texts("a")
                await stream.end()
                assert b'"a"' in await reader.all()


@pytest.mark.slow
@pytest.mark.tls
async def test_over_tls_an_announced_name_must_be_the_certificates(tmp_path: Path) -> None:
    certify(tmp_path, "localhost")
    wrong = ("--cluster-announce-hostname", "node.example")
    async with (
        RedisCluster(*wrong, tls=tmp_path, host="localhost") as cluster,
        routed(cluster.url) as router,
    ):
        with pytest.raises(StoreUnavailable):
            await Stream.create(Log(router))
    right = ("--cluster-announce-hostname", "localhost", "--cluster-preferred-endpoint-type", "hostname")
    async with (
        RedisCluster(*right, tls=tmp_path, host="localhost") as cluster,
        routed(cluster.url) as router,
    ):
        await Stream.create(Log(router))
