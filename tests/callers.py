"""Both hosts with several authenticated callers (API keys or JWTs), tokens for one stream, and CORS.

A module that uses `guarded` or `trusting` names this module in `pytest_plugins`, together with `tests.hosts`.
The Functions host has a function key that no test sends: when the gateway authenticates callers, the key is
not required. PYTEST_DONT_REWRITE: this module is imported before pytest sees it as a plugin.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from gateway.streams.stream_tokens import StreamTokens
from tests.functions_host.client import FunctionsHost
from tests.hosts import EVENTS, HOST_NAMES, LIMIT_SECONDS, SELDOM, functions_environment, quick_app
from tests.support.azurite import Azurite
from tests.support.collector import Collector
from tests.support.issuer import Issuer
from tests.support.model_server import ModelServer, script
from tests.support.processes import GatewayProcess
from tests.support.redis_server import RedisServer

CANARY = "canary-7f3a"  # part of every secret and of every question
ORIGIN = "https://app.example"
TOKEN_SECONDS = 300
TOKEN_KEYS = [f"{CANARY}-of-stream-tokens-{name}-{'x' * 16}" for name in ("new", "old", "removed")]
WEBHOOK_KEYS = [f"{CANARY}-of-webhooks-{name}-{'w' * 16}" for name in ("new", "old")]
ALICE, ALICE_TOO, BOB, CAROL = (
    f"hf_{CANARY}-{name}-{'k' * 24}" for name in ("alice", "alice-too", "bob", "carol")
)
FLOODS = (
    "openapi",
    "quota",
    "known",
    "langgraph",
    "agui",
    "openai",
    "rpc",
    "ai",
    "day",
    "minute",
    "reloaded",
)  # tests that fill a quota, which is free again only after a second


def flooding(test: str, host: str) -> str:
    """Return the key of a caller that only fills its quota, in one of these tests."""
    return f"hf_{CANARY}-{test}-{host}-{'k' * 24}"


KEYS = (
    *((ALICE, "alice"), (ALICE_TOO, "alice"), (BOB, "bob"), (CAROL, "carol")),
    *((flooding(test, host), f"{test}-{host}") for test in FLOODS for host in HOST_NAMES),
)
METRICS_KEY = f"{CANARY}-of-metrics-{'m' * 32}"
MOST_STREAMS, MOST_STREAM_READERS = 30, 4
SMALL = {"GATEWAY_MAX_ITEMS": "50", "GATEWAY_MAX_MESSAGES": "40"}  # keeps a body at the limit short


def by_key(key: str) -> dict[str, str]:
    """Return the headers of a caller with this API key or JWT."""
    return {"authorization": f"Bearer {key}"}


def keys_file(*keys: tuple[str, str]) -> str:
    """Return the text of a file with these keys."""
    lines = [f"{name} {hashlib.sha256(key.encode()).hexdigest()}" for key, name in keys]
    return "\n".join(["# name, SHA-256 of the key", "", *lines]) + "\n"


def old_tokens() -> StreamTokens:
    """Return the token signer with the keys from before the rotation."""
    return StreamTokens(TOKEN_KEYS[1:2], 60)


@dataclass(frozen=True, slots=True)
class Guarded:
    """A host that authenticates its callers. `log` returns all that its process has written to stderr."""

    name: str
    http: httpx.AsyncClient
    redis: Redis
    log: Callable[[], str] = field(repr=False)
    store_url: str

    async def start(self, key: str, chunks: list[str] | None = None, **options: Any) -> str:
        """Start a stream as this caller, with the canary in its question; its location."""
        body = {"user": script(chunks or ["a", "b"], canary=CANARY, **options)}
        answer = await self.http.post("/stream", json=body, headers=by_key(key))
        assert answer.status_code == 202, answer.text
        return answer.headers["location"]

    async def finished(self, key: str, chunks: list[str] | None = None) -> str:
        """Start a stream as this caller and wait for its end; return its location."""
        where = await self.start(key, chunks)
        answer = await self.http.get(where, headers={**EVENTS, **by_key(key)})
        assert b"event: done" in answer.content
        return where

    async def token(self, where: str, key: str) -> dict[str, Any]:
        """Request a token for this stream."""
        answer = await self.http.post(f"{where}/token", headers=by_key(key))
        assert answer.status_code == 201, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def now_ms(self) -> int:
        """Return the time of Redis in milliseconds."""
        seconds, micros = await self.redis.time()
        return seconds * 1000 + micros // 1000


@asynccontextmanager
async def running(
    name: str, model: ModelServer, store: RedisServer, app: Path, settings: Mapping[str, str]
) -> AsyncIterator[Guarded]:
    """Start one of the hosts, with workers."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        if name == "uvicorn":
            environment = {**model.environment(), "REDIS_URL": store.url, **settings}
            process = await enter(GatewayProcess("all", environment))
            url, log = process.url, process.log
        else:
            azurite = await enter(Azurite())
            environment = {**functions_environment(store.url, model, azurite.connection), **settings}
            functions = await enter(FunctionsHost(app, environment, listen=True, eager=True))
            url, log = functions.url, functions.log
        http = await enter(httpx.AsyncClient(base_url=url, timeout=LIMIT_SECONDS))
        yield Guarded(name, http, await enter(Redis.from_url(store.url)), log, store.url)


@asynccontextmanager
async def both(
    model: ModelServer, app: Path, settings: Mapping[str, str]
) -> AsyncIterator[dict[str, Guarded]]:
    """Start both hosts, by name, on a separate store, so that no other process runs their jobs."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(RedisServer())
        yield {
            name: await stack.enter_async_context(running(name, model, store, app, settings))
            for name in HOST_NAMES
        }


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def collector() -> AsyncIterator[Collector]:
    """Receive the telemetry that these hosts export."""
    async with Collector() as started:
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def issuer() -> AsyncIterator[Issuer]:
    """Start the issuer that signs JWTs."""
    async with Issuer() as started:
        yield started


@pytest.fixture(scope="session")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the key file of `guarded`."""
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(keys_file(*KEYS))
    return path


def plans_of(**more: object) -> str:
    """Return the text of a plans file, which gives some callers a small token quota."""
    plans = {"day": {"tokens_per_day": 5}, "minute": {"tokens_per_minute": 5}}
    owners = {f"key:{plan}-{host}": plan for plan in plans for host in HOST_NAMES}
    return json.dumps({"plans": plans, "owners": owners} | more)


@pytest.fixture(scope="session")
def plans_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the plans file of `guarded`."""
    path = tmp_path_factory.mktemp("plans") / "plans.json"
    path.write_text(plans_of())
    return path


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the deployed app."""
    return quick_app(tmp_path_factory.mktemp("guarded-app"), SELDOM)


def common(collector: Collector) -> dict[str, str]:
    """Return the settings that all these hosts share."""
    return {
        **collector.environment("guarded"),
        "GATEWAY_TOKEN_KEYS": " ".join(TOKEN_KEYS[:2]),
        "GATEWAY_TOKEN_SECONDS": str(TOKEN_SECONDS),  # a token expires, even if its stream still runs
        "GATEWAY_CORS_ORIGINS": f"{ORIGIN} http://localhost:3000",
        "GATEWAY_METRICS": "prometheus",
        "GATEWAY_METRICS_KEY": METRICS_KEY,
        "GATEWAY_LOG_LEVEL": "debug",
        "GATEWAY_LIST_METADATA": "about number",
        "GATEWAY_WEBHOOK_KEYS": " ".join(WEBHOOK_KEYS),
        "GATEWAY_WEBHOOK_LOOPBACK": "yes",
        "GATEWAY_WEBHOOK_RETRY_SECONDS": "0.5 0.5",
        "GATEWAY_MAX_OWNER_STREAMS": str(MOST_STREAMS),
        "GATEWAY_MAX_OWNER_STARTS_PER_MINUTE": "10000",
        "GATEWAY_PRODUCER_GRACE_SECONDS": "5",  # streams that Schemathesis opens end by themselves
        "GATEWAY_MAX_STREAM_READERS": str(MOST_STREAM_READERS),
        **SMALL,
        "FUNCTIONS_HOST_KEY": "nobody-sends-it",
        # The platform sets this from the template's corsOrigins, for its own answers to preflight requests.
        "CORS_ALLOWED_ORIGINS": json.dumps([ORIGIN, "http://localhost:3000"]),
        "CORS_SUPPORT_CREDENTIALS": "true",
    }


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def keyed(
    model: ModelServer, collector: Collector, deployed: Path, key_file: Path, plans_file: Path
) -> AsyncIterator[dict[str, Guarded]]:
    """Start both hosts with API keys."""
    files = {"GATEWAY_KEYS_FILE": str(key_file), "GATEWAY_PLANS_FILE": str(plans_file)}
    settings = {**common(collector), **files, "GATEWAY_AUTH": "keys"}
    async with both(model, deployed, settings) as started:
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def signed(
    model: ModelServer, collector: Collector, deployed: Path, issuer: Issuer
) -> AsyncIterator[dict[str, Guarded]]:
    """Start both hosts with JWTs. The log of uvicorn is JSON."""
    settings = {**common(collector), **issuer.environment(), "GATEWAY_LOG_FORMAT": "json"}
    async with both(model, deployed, settings) as started:
        yield started


@pytest.fixture(params=HOST_NAMES)
def guarded(request: pytest.FixtureRequest, keyed: dict[str, Guarded]) -> Guarded:
    """Run the test on each host with API keys."""
    name: str = request.param
    return keyed[name]


@pytest.fixture(params=HOST_NAMES)
def trusting(request: pytest.FixtureRequest, signed: dict[str, Guarded]) -> Guarded:
    """Run the test on each host with JWTs."""
    name: str = request.param
    return signed[name]
