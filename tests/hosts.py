"""Both hosts on one store and one scripted model. Each HTTP test runs on both hosts.

A module that uses `host` names this module in `pytest_plugins` and runs in the session's event loop, in which
the model answers. Each test makes its own streams. The store is shared and is never flushed.
PYTEST_DONT_REWRITE: this module is imported before pytest sees it as a plugin.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from gateway.hosts.asgi import ROUTES, Routes, app
from gateway.settings import Settings
from gateway.store.log import Log
from gateway.streams.service import Gateway
from tests.functions_host.client import FunctionsHost
from tests.support.azurite import Azurite
from tests.support.model_server import ModelServer, script
from tests.support.processes import REPOSITORY, GatewayProcess
from tests.support.queued import QUEUE, Queued, RedisQueued, StorageTap
from tests.support.redis_server import RedisServer

LIMIT_SECONDS = 30
T = TypeVar("T")
HEARTBEAT_SECONDS = 2
JOBS = "holdfast-jobs"
NO_DIRECT_START = {"GATEWAY_DIRECT_START": "off"}  # the process that gets the POST does not run its job
EVENTS = {"accept": "text/event-stream"}
JSON = {"accept": "application/json"}
SELDOM = "00:00:02"  # poll interval of an idle queue, for a host that also polls after each POST
NOBODY = "00" + "A" * 22  # it has the form of an id but no stream has it
# the runtime needs 3.13
HOST_NAMES = ("uvicorn", "functions") if sys.version_info >= (3, 13) else ("uvicorn",)
# Texts that a model may write and that break a careless parser.
TEXTS = [
    "plain",
    "a\nb",
    "\r\n\r\n",
    "data: x\n\nid: 9\n\n",
    "\u2028\u2029\u0085",
    "\0",
    "\U0001f600",
    "\ufeff",
    " ",
]
# A chain that returns its input. It is a module of the operator, which GATEWAY_CHAINS names.
MIRROR = """
import json
from langchain_core.runnables import RunnableConfig, RunnableLambda
from workers.chains.registry import chain

@chain("mirror")
def mirror(settings):
    async def tell(given, config: RunnableConfig):
        return json.dumps([given, config["configurable"]])

    return RunnableLambda(tell)

@chain("figures")
def figures(settings):
    return RunnableLambda(lambda given: {"total": 42, "of": ["é"]})

@chain("shaped", structured=True)
def shaped(settings):
    async def tell(given, config: RunnableConfig):
        asked = config["configurable"]["response_format"]
        return json.dumps({"name": asked["name"], "age": len(asked["schema"]["properties"])})

    return RunnableLambda(tell)
"""
_WIRE = re.compile(
    rb"(?P<retry>retry: [0-9]+\n)|(?P<beat>:\n)"
    rb"|(?P<frame>id: (?P<id>[^\n]+)\n(?:event: (?P<event>[^\n]+)\n)?data: (?P<data>[^\n]*)\n\n)"
)


@dataclass(slots=True)
class Wire:
    """The parsed data of one connection. Any data outside the contract is an error."""

    raw: bytes
    kinds: list[str] = field(default_factory=list)  # `retry`, `beat` and `frame`, in order
    ids: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)
    frames: bytes = b""

    def __post_init__(self) -> None:
        at = 0
        while at < len(self.raw):
            found = _WIRE.match(self.raw, at)
            if found is None:
                raise AssertionError(f"not of the contract, at byte {at}: {self.raw[at : at + 80]!r}")
            self.kinds.append(next(kind for kind in ("retry", "beat", "frame") if found[kind]))
            if found["frame"]:
                self.frames += found["frame"]
                self.ids.append(found["id"].decode())
                self.events.append((found["event"] or b"message").decode())
                self.data.append(found["data"])
            at = found.end()


def triples(wire: Wire) -> list[tuple[str, str, str]]:
    """Return the events as a client sees them: id, type, data."""
    return list(zip(wire.ids, wire.events, (data.decode() for data in wire.data), strict=True))


@dataclass(frozen=True, slots=True)
class Host:
    """One host and the services that it uses."""

    name: str
    http: httpx.AsyncClient
    redis: Redis
    model: ModelServer
    queued: Queued
    functions: Sequence[Mapping[str, Any]] = ()  # the functions that the Functions host has indexed

    async def start(self, chunks: list[str], **options: Any) -> str:
        """Start a stream that writes these chunks (`script`); return its location."""
        answer = await self.http.post("/stream", json={"user": script(chunks, **options)})
        assert answer.status_code == 202, answer.text
        return answer.headers["location"]

    async def finished(self, chunks: list[str]) -> tuple[str, Wire]:
        """Run a stream to its end; return its location and what a reader received."""
        where = await self.start(chunks)
        return where, await self.read(where)

    async def read(self, where: str, last_event_id: str = "") -> Wire:
        """Read one connection until the server closes it."""
        cursor = {"last-event-id": last_event_id} if last_event_id else {}
        answer = await self.http.get(where, headers={**EVENTS, **cursor})
        assert answer.status_code == 200, answer.text
        return Wire(answer.content)

    async def status(self, where: str) -> dict[str, Any]:
        """Return the status document."""
        answer = await self.http.get(where, headers=JSON)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def log(self, where: str) -> bytes:
        """Return the log as stored in the store."""
        log = await self.redis.get(Log.keys(where.rpartition("/")[2])[1])
        assert isinstance(log, bytes)
        return log

    async def last_message(self) -> bytes:
        """Return the newest job that was put into the queue, in the form in which the queue carries it."""
        return await self.queued.last()

    async def stored(self) -> tuple[list[bytes], int]:
        """Return what a request may leave in the store: the keys of streams, and the number of jobs ever
        queued.

        It first waits for the notices to owners about earlier streams. The token counts of a minute expire by
        themselves.
        """
        keys: list[Any] = await until(
            lambda: self.redis.keys("*"), lambda keys: not any(b":journal:" in key for key in keys)
        )
        passing = (b":open", b":minute")
        kept = sorted(key for key in keys if not key.endswith(passing) and not key.startswith(b"turn:"))
        return kept, await self.queued.ever()


async def until(ask: Callable[[], Awaitable[T]], right: Callable[[T], object]) -> T:
    """Repeat a request until the answer is right. It is for conditions that no event announces."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while not right(answer := await ask()):  # noqa: ASYNC110 - only an answer can tell
            await asyncio.sleep(0.02)
        return answer


@asynccontextmanager
async def uvicorn_host(
    model: ModelServer, redis_url: str, mode: str = "all", **settings: str
) -> AsyncIterator[Host]:
    """Start a separate uvicorn host, with workers if the mode is `all`."""
    environment = {**model.environment(), "REDIS_URL": redis_url, **settings}
    async with (
        GatewayProcess(mode, environment) as process,
        httpx.AsyncClient(base_url=process.url, timeout=LIMIT_SECONDS) as http,
        Redis.from_url(redis_url) as redis,
    ):
        yield Host("uvicorn", http, redis, model, RedisQueued(redis))


@asynccontextmanager
async def functions_host(
    model: ModelServer, redis_url: str, *, app: Path = REPOSITORY, listen: bool = False, **settings: str
) -> AsyncIterator[Host]:
    """Start a separate Functions host on a separate Azurite. Without `listen` it runs no jobs."""
    idle = {} if listen else NO_DIRECT_START
    async with (
        Azurite() as azurite,
        StorageTap(azurite) as tap,
        FunctionsHost(
            app,
            {**functions_environment(redis_url, model, tap.connection), **idle, **settings},
            listen=listen,
            eager=True,
        ) as process,
        httpx.AsyncClient(base_url=process.url, timeout=LIMIT_SECONDS) as http,
        Redis.from_url(redis_url) as redis,
    ):
        yield Host("functions", http, redis, model, tap, process.functions)


@asynccontextmanager
async def within(settings: Settings, routes: Routes = ROUTES) -> AsyncIterator[httpx.AsyncClient]:
    """Open a client of a gateway in this process."""
    gateway = Gateway(settings, {"chat": ["chat"]})
    transport = httpx.ASGITransport(app(gateway, routes))
    async with httpx.AsyncClient(base_url="http://localhost", transport=transport) as http:
        yield http
    await gateway.close()


def quick_app(folder: Path, pause: str = "00:00:00.5") -> Path:
    """Copy the app as it is deployed, with a shorter maximum pause between two polls of an idle queue."""
    for item in (
        *REPOSITORY.glob("*.py"),
        REPOSITORY / "gateway",
        REPOSITORY / "holdfast_gateway",
        REPOSITORY / "workers",
        REPOSITORY / "web",
    ):
        (folder / item.name).symlink_to(item)
    host = json.loads((REPOSITORY / "host.json").read_text())
    host["extensions"]["queues"]["maxPollingInterval"] = pause
    (folder / "host.json").write_text(json.dumps(host))
    return folder


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def model() -> AsyncIterator[ModelServer]:
    """Start the scripted model in this process."""
    async with ModelServer() as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def store() -> AsyncIterator[RedisServer]:
    """Start the store of both hosts."""
    async with RedisServer() as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def hosts(
    store: RedisServer, model: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, Host]]:
    """Start both hosts, by name, on one store. Each host has its own queue and workers."""
    folder: Path = tmp_path_factory.mktemp("chains")
    (folder / "mirror.py").write_text(MIRROR)
    shared = {
        "GATEWAY_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
        "GATEWAY_CHAINS": "mirror",
        "PYTHONPATH": str(folder),
    }
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(uvicorn_host(model, store.url, **shared))
        await until(lambda: first.redis.exists(QUEUE), bool)
        running = {"uvicorn": first}
        if "functions" in HOST_NAMES:
            app = quick_app(tmp_path_factory.mktemp("app"), SELDOM)
            second = functions_host(model, store.url, app=app, listen=True, **shared)
            running["functions"] = await stack.enter_async_context(second)
        yield running
        everlasting = [key for key in await first.redis.keys("*") if await first.redis.ttl(key) == -1]
        assert not everlasting


@pytest.fixture(params=HOST_NAMES)
def host(request: pytest.FixtureRequest, hosts: dict[str, Host]) -> Host:
    """Run the test on each host."""
    name: str = request.param
    return hosts[name]


def functions_environment(redis_url: str, model: ModelServer, storage: str) -> dict[str, str]:
    """Return the settings of the Functions host."""
    return {
        **model.environment(),
        "REDIS_URL": redis_url,
        "GATEWAY_QUEUE": "azure-storage",
        "GATEWAY_QUEUE_NAME": JOBS,
        "GATEWAY_SWEEP_SCHEDULE": "* * * * * *",
        "AzureWebJobsStorage": storage,
    }
