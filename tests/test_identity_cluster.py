"""Tokens on a cluster: every node accepts one token at the connect and the next on the live connection."""

from __future__ import annotations

import asyncio

import pytest

from gateway.azure import credentials
from gateway.azure.credentials import RedisTokens
from gateway.redis.cluster import Router
from gateway.redis.connect import Place
from tests.support.following import until
from tests.support.identity_server import Gatekeeper, IdentityServer
from tests.support.redis_cluster import RedisCluster

NAME = "holdfast-test"


@pytest.mark.slow
async def test_each_node_takes_each_token(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RedisCluster() as cluster, IdentityServer(life_seconds=3) as issuer:
        for name, value in issuer.environment().items():
            monkeypatch.setenv(name, value)
        gates = [Gatekeeper(node.client, issuer) for node in cluster.nodes]

        async def issued(token: str) -> None:
            await asyncio.gather(*(gate._issued(token) for gate in gates))

        async with gates[0], gates[1], gates[2]:
            issuer.issued = issued
            tokens = RedisTokens()
            router = Router(Place(cluster.url, tokens), name=NAME)
            keys = [f"{{{number:02x}}}:k" for number in range(64)]
            await router.call_all([("SET", key, key, "PX", 60_000) for key in keys])
            before = [(await gate.clients())[NAME] for gate in gates]
            await until(lambda: len(issuer.tokens) >= 4)
            assert await router.call_all([("GET", key) for key in keys]) == [key.encode() for key in keys]
            assert [(await gate.clients())[NAME] for gate in gates] == before
            assert all(len(clients) == 1 for clients in before)
            # Each token is requested once and used for all nodes.
            assert len(issuer.requests) == len(issuer.tokens)
            await router.close()
            await tokens.close()
    await credentials.close()
