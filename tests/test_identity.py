"""Tokens instead of keys for Redis.

azure-identity requests the tokens from a real endpoint over HTTP, and a real redis-server checks them.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic

import pytest
from redis.asyncio import Redis

from gateway.azure import credentials
from gateway.azure.credentials import RedisTokens
from gateway.protocol.errors import StoreUnavailable
from gateway.redis.connect import Place
from gateway.redis.connection import Connection
from gateway.settings import Settings
from tests.support.following import Stream, following, reading, until
from tests.support.identity_server import HEADER, SIGNATURE, Gatekeeper, IdentityServer

# Lifetime of a token in seconds. The expiry time of a token is rounded up to a whole second.
SHORT_SECONDS = 3.0
NAME = "holdfast-test"


@dataclass(frozen=True, slots=True)
class Site:
    """A token endpoint, and a Redis that accepts the endpoint's tokens."""

    url: str
    issuer: IdentityServer
    gate: Gatekeeper
    redis: Redis


@pytest.fixture
async def site(
    redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Site]:
    caplog.set_level(logging.DEBUG)
    async with IdentityServer() as issuer, Gatekeeper(redis, issuer) as gate:
        for name, value in issuer.environment().items():
            monkeypatch.setenv(name, value)
        await redis.config_resetstat()
        yield Site(redis_url, issuer, gate, redis)
    await credentials.close()
    await redis.execute_command("ACL", "DELUSER", issuer.oid)
    for secret in (*issuer.tokens, SIGNATURE, HEADER):
        assert secret not in caplog.text


@asynccontextmanager
async def entering(site: Site, client_id: str = "") -> AsyncIterator[tuple[Connection, RedisTokens]]:
    tokens = RedisTokens(client_id)
    connection = Connection(Place(site.url, tokens), name=NAME)
    try:
        yield connection, tokens
    finally:
        await connection.close()
        await tokens.close()


async def test_a_connection_is_let_in_by_a_token(site: Site) -> None:
    async with entering(site) as (connection, _):
        assert await connection.call("ACL", "WHOAMI") == site.issuer.oid.encode()
        assert await asyncio.gather(*(connection.call("ECHO", str(n)) for n in range(50)))
    assert site.issuer.requests == [{"api-version": "2019-08-01", "resource": "https://redis.azure.com"}]


async def test_a_user_assigned_identity_is_named(site: Site) -> None:
    async with entering(site, "the-client-id") as (connection, _):
        await connection.call("PING")
    assert site.issuer.requests[0]["client_id"] == "the-client-id"


@pytest.mark.slow
async def test_a_token_is_renewed_on_the_live_connection(site: Site) -> None:
    site.issuer.life_seconds = SHORT_SECONDS
    async with entering(site) as (connection, _):
        await connection.call("PING")
        before, first = await site.gate.clients(), await site.gate.authentications()
        asked = 0
        # When the fourth token is issued, the first has expired, and Redis does not accept it any more.
        while len(site.issuer.tokens) < 4:
            numbers = [str(asked + n) for n in range(20)]
            answers = await asyncio.gather(*(connection.call("ECHO", number) for number in numbers))
            assert answers == [number.encode() for number in numbers]
            asked += 20
        await connection.call("PING")
        assert await site.gate.clients() == before
        assert len(before[NAME]) == 1
        assert await site.gate.authentications() >= first + 2


@pytest.mark.slow
async def test_a_slow_endpoint_is_waited_for_and_holds_up_nobody_else(site: Site) -> None:
    """The endpoint takes 3 s to answer: thirty times the default time-out of redis-py's own token manager."""
    site.issuer.delay_seconds = 3.0
    async with entering(site) as (connection, _):
        call = asyncio.create_task(connection.call("PING"))
        longest, last = 0.0, monotonic()
        while not call.done():
            await asyncio.sleep(0.01)
            longest, last = max(longest, monotonic() - last), monotonic()
        assert await call == b"PONG"
        # A thread imports azure-identity. It shares the interpreter with the event loop, so the loop is slow.
        assert longest < 2.7


@pytest.mark.slow
async def test_an_endpoint_that_is_away_is_asked_again_while_the_connection_goes_on(site: Site) -> None:
    site.issuer.life_seconds = 2 * SHORT_SECONDS
    async with entering(site) as (connection, tokens):
        await connection.call("PING")
        before = await site.gate.clients()
        await site.issuer.stop()
        await until(lambda: tokens._failed)  # The renewal has failed.
        for _ in range(100):
            assert await connection.call("PING") == b"PONG"
        await site.issuer.start()
        await until(lambda: len(site.issuer.tokens) == 2)
        assert await connection.call("PING") == b"PONG"
        assert await site.gate.clients() == before


@pytest.mark.slow
async def test_without_a_token_the_store_is_unavailable_and_the_endpoint_sees_no_storm(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    await site.issuer.stop()
    async with entering(site) as (connection, _):
        began = monotonic()
        while monotonic() - began < 3:
            answers = await asyncio.gather(
                *(connection.call("PING") for _ in range(50)), return_exceptions=True
            )
            assert all(isinstance(answer, StoreUnavailable) for answer in answers)
        tries = caplog.text.count("no token for the store")
        assert 1 <= tries <= 6
        assert caplog.text.count("has no connection to the store") == 1
        await site.issuer.start()
        async with asyncio.timeout(15):
            while True:
                try:
                    assert await connection.call("PING") == b"PONG"
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_a_connection_that_the_server_ends_at_the_tokens_expiry_comes_back_with_a_new_one(
    site: Site,
) -> None:
    site.issuer.life_seconds = SHORT_SECONDS
    async with entering(site) as (connection, _):
        await connection.call("PING")
        [old] = (await site.gate.clients())[NAME]
        await until(lambda: len(site.issuer.tokens) == 2)
        await site.redis.execute_command("CLIENT", "KILL", "USER", site.issuer.oid)
        assert await connection.call("PING") == b"PONG"
        [new] = (await site.gate.clients())[NAME]
        assert new != old


@pytest.mark.slow
async def test_a_new_token_that_is_refused_leaves_the_connection_as_it_is(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.issuer.life_seconds = 2 * SHORT_SECONDS
    async with entering(site) as (connection, _):
        await connection.call("PING")
        before = await site.gate.clients()
        site.gate.open = False
        await until(lambda: "the store refuses the new token" in caplog.text)
        site.gate.open = True
        assert await connection.call("PING") == b"PONG"
        refused = await site.gate.authentications()
        async with asyncio.timeout(20):
            while await site.gate.authentications() == refused:  # noqa: ASYNC110 - only the server knows
                await asyncio.sleep(0.05)
        assert await connection.call("PING") == b"PONG"
        assert await site.gate.clients() == before


@pytest.mark.slow
async def test_the_same_token_again_is_not_sent_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "RENEW_AT", (0.0, 0.0))
    site.issuer.life_seconds, site.issuer.frozen = 60, True
    async with entering(site) as (connection, _):
        began = monotonic()
        await connection.call("PING")
        first = await site.gate.authentications()
        await until(lambda: len(site.issuer.requests) >= 3)
        assert monotonic() - began > 2 * credentials.SHORTEST_PAUSE_SECONDS * 0.9
        assert await site.gate.authentications() == first


@pytest.mark.slow
async def test_the_subscriber_connection_is_replaced_and_its_readers_miss_nothing(site: Site) -> None:
    site.issuer.life_seconds = SHORT_SECONDS
    tokens = RedisTokens()
    async with following(site.url, hub_url=Place(site.url, tokens)) as f:
        stream = await Stream.create(f.log)
        async with reading(f.relay, stream, count=3) as readers:
            await readers[0].has(await stream.log_bytes(site.redis))
            [old] = (await site.gate.clients())["holdfast-hub"]
            number = 0
            while len(site.issuer.tokens) < 3:
                await stream.texts(f"word {number}")
                number += 1
                await asyncio.sleep(0.002)
            assert old not in (await site.gate.clients()).get("holdfast-hub", [])
            await stream.end()
            whole = await stream.log_bytes(site.redis)
            assert [await reader.all() for reader in readers] == [whole] * 3
            assert whole.count(b"word ") == number
    await tokens.close()


async def test_closing_ends_everything(site: Site) -> None:
    before = asyncio.all_tasks()
    async with entering(site) as (connection, _):
        await connection.call("PING")
    assert await credentials.openai_token_provider(Settings())() == site.issuer.tokens[-1]
    await credentials.close()
    await until(lambda: not {t for t in asyncio.all_tasks() - before if "redis" in t.get_name()})


async def test_closing_does_not_cut_off_a_request_that_is_under_way(site: Site) -> None:
    site.issuer.delay_seconds = 0.3
    tokens = RedisTokens()
    waiting = asyncio.create_task(tokens.current())
    await until(lambda: len(site.issuer.requests) == 1)
    await tokens.close()
    waiting.cancel()
    assert len(site.issuer.tokens) == 1


def test_without_azure_nothing_of_it_is_loaded() -> None:
    """With a key and a URL, making the gateway, the registry and the shipped chain loads no Azure module."""
    code = """
import sys, asyncio
from gateway.streams.service import Gateway
from gateway.settings import Settings
from workers.chains.registry import Registry
async def main():
    settings = Settings(redis_url="redis://127.0.0.1:1", openai_api_key="key")
    registry = Registry(settings)
    gateway = Gateway(settings, registry.catalogue())
    gateway.parts
    await registry.load("chat")
    await gateway.close()
asyncio.run(main())
print([name for name in sys.modules if name.startswith(("azure", "redis_entraid", "msal"))])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis://redis.example:10000",
        "redis://127.0.0.1.example",
        "redis://localhost.example",
        "rediss://user:secret-canary@redis.example:10000",
        "rediss://:secret-canary@redis.example:10000",
        "rediss://redis.example:10000?ssl_cert_reqs=none",
        "rediss://redis.example:10000?ssl_check_hostname=no",
    ],
)
def test_a_token_is_sent_to_nobody_who_does_not_prove_who_it_is(url: str) -> None:
    with pytest.raises(ValueError, match="GATEWAY_REDIS_AUTH") as caught:
        Settings.from_env({"GATEWAY_REDIS_AUTH": "entra", "REDIS_URL": url})
    assert "secret-canary" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "rediss://redis.example:10000",
        "rediss://redis.example:10000/0?ssl_ca_certs=/ca.pem",
        "redis://localhost:6379",
        "redis://127.0.0.1:6379",
        "redis://[::1]:6379",
        "unix:///run/redis.sock",
    ],
)
def test_over_tls_or_within_the_machine_it_is(url: str) -> None:
    settings = Settings.from_env({"GATEWAY_REDIS_AUTH": "entra", "REDIS_URL": url})
    assert credentials.redis_tokens(settings) is not None
    assert credentials.redis_tokens(Settings(redis_url=url)) is None


def test_there_is_no_other_way_to_be_let_in() -> None:
    with pytest.raises(ValueError, match="GATEWAY_REDIS_AUTH must be url or entra"):
        Settings.from_env({"GATEWAY_REDIS_AUTH": "kerberos"})
