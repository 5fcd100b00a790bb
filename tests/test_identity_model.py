"""Authentication at models: by a token for each request, or by a key if one is set.

The last test runs gateway and worker without any secret.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from redis.asyncio import Redis

from gateway.azure import credentials
from gateway.protocol.fold import Fold
from gateway.protocol.sse import Decoder
from gateway.settings import Settings
from tests.support.identity_server import SIGNATURE, Gatekeeper, IdentityServer, claims
from tests.support.model_server import ModelServer, script
from tests.support.processes import GatewayProcess
from workers.chains.registry import Registry

KEYS = ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN")
BOUND_SECONDS = 60
TOKEN_SECONDS = 3.0


@pytest.fixture
async def issuer(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[IdentityServer]:
    async with IdentityServer() as issuer:
        for name, value in issuer.environment().items():
            monkeypatch.setenv(name, value)
        for name in KEYS:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
        yield issuer
        await credentials.close()


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer() as model:
        yield model


async def answered(model: ModelServer) -> str:
    """Make the shipped chain as the worker makes it, and return its answer."""
    chain = await Registry(Settings(azure_openai_endpoint=model.url, model="ours")).load("chat")
    chain = chain["chat"]
    assert isinstance(chain, AzureChatOpenAI)
    try:
        return "".join([str(chunk.content) async for chunk in chain.astream(script(["a", "b"]))])
    finally:
        await chain.root_async_client.close()


async def test_without_a_key_each_request_has_a_token(issuer: IdentityServer, model: ModelServer) -> None:
    assert await answered(model) == "ab"
    [token] = issuer.tokens
    assert claims(token)["aud"] == "https://cognitiveservices.azure.com"
    assert model.headers[0]["authorization"] == f"Bearer {token}"
    assert "api-key" not in model.headers[0]


@pytest.mark.parametrize("name", ["AZURE_OPENAI_API_KEY", "OPENAI_API_KEY"])
async def test_with_a_key_nobody_is_asked_for_a_token(
    issuer: IdentityServer, model: ModelServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "the-key")
    assert await answered(model) == "ab"
    assert model.headers[0]["api-key"] == "the-key"
    assert issuer.requests == []


@pytest.mark.parametrize("key", ["", "the-key"])
async def test_the_api_without_dates_is_signed_in_to_the_same_way(
    issuer: IdentityServer, model: ModelServer, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """OPENAI_API_VERSION=v1 selects OpenAI's API below /openai/v1/.

    The API is called with a token, or with a key if one is set.
    """
    monkeypatch.setenv("OPENAI_API_VERSION", "v1")
    if key:
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", key)
    settings = Settings.from_env({"AZURE_OPENAI_ENDPOINT": model.url, "OPENAI_API_VERSION": "v1"})
    chain = await Registry(settings).load("chat")
    chain = chain["chat"]
    assert isinstance(chain, ChatOpenAI)
    assert not isinstance(chain, AzureChatOpenAI)
    assert chain.openai_api_base == f"{model.url}/openai/v1/"
    try:
        said = [str(chunk.content) async for chunk in chain.astream(script(["a", "b"]))]
    finally:
        await chain.root_async_client.close()
    assert "".join(said) == "ab"
    [bearer] = [key] if key else issuer.tokens
    assert model.headers[0]["authorization"] == f"Bearer {bearer}"
    assert bool(key) == (issuer.requests == [])


async def test_a_token_that_cannot_be_had_fails_the_call(issuer: IdentityServer, model: ModelServer) -> None:
    await issuer.stop()
    try:
        with pytest.raises(Exception, match="DefaultAzureCredential"):
            await answered(model)
        assert model.requests == []
    finally:
        await issuer.start()


@pytest.mark.slow
async def test_a_run_without_any_secret(
    redis_url: str, redis: Redis, issuer: IdentityServer, model: ModelServer
) -> None:
    """The tokens of gateway and worker expire during the run.

    The stream is still complete, and no log contains a token.
    """
    issuer.life_seconds = TOKEN_SECONDS
    words = [f"{number} " for number in range(40)]
    environment = {
        "REDIS_URL": redis_url,
        "GATEWAY_REDIS_AUTH": "entra",
        "GATEWAY_LOG_LEVEL": "debug",
        "AZURE_OPENAI_ENDPOINT": model.url,
        "OPENAI_API_VERSION": "2024-10-21",
        **issuer.environment(),
    }
    async with Gatekeeper(redis, issuer) as gate, GatewayProcess("all", environment) as host:
        decoder, fold = Decoder(), Fold()
        first: dict[str, list[str]] = {}
        replaced: set[str] = set()
        asked = {"user": script(words, pace=0.2)}
        async with httpx.AsyncClient(timeout=BOUND_SECONDS) as client:
            started = await client.post(f"{host.url}/stream", json=asked)
            while started.status_code == 503:  # On a slow machine, the gateway has no token yet.
                started = await client.post(f"{host.url}/stream", json=asked)
            where = f"{host.url}/stream/{started.json()['id']}"
            async with client.stream("GET", where, headers={"accept": "text/event-stream"}) as answer:
                assert answer.status_code == 200
                async for raw in answer.aiter_raw():
                    for message in decoder.feed(raw):
                        fold.feed(message.id, message.event())
                    for name, ids in (await gate.clients()).items():
                        if first.setdefault(name, ids) != ids:
                            replaced.add(name)
        assert fold.text == "".join(words)
        assert fold.ended == "done"
        # A connection without a name is still in its handshake.
        assert replaced - {""} == {"holdfast-hub"}
        assert {"holdfast", "holdfast-queue", "holdfast-hub"} <= first.keys()
        tokens = [token for token in issuer.tokens if claims(token)["aud"] == credentials.REDIS_SCOPE[:-9]]
        assert len(tokens) >= 3
    log = host.log()
    assert all(token not in log for token in issuer.tokens)
    assert SIGNATURE not in log
    await asyncio.gather(redis.execute_command("ACL", "DELUSER", issuer.oid))
