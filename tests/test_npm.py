"""The npm package, used from its tarball: in Node, with TypeScript, in Vite; its React hook in a browser."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import tarfile
import threading
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import pytest_asyncio
from redis.asyncio import Redis

import holdfast_gateway
from gateway.store.log import Log
from tests import hosts
from tests.hosts import NOBODY
from tests.support import npm
from tests.support.model_server import ModelServer, script
from tests.support.npm import Project
from tests.support.person import Person, browser, visit
from tests.support.processes import GatewayProcess
from tests.support.programs import NODE, run
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer

fixture = pytest_asyncio.fixture(scope="module", loop_scope="session")
pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

BESIDE = ("react", "react-dom", "@types/react")
OLDER = NODE / "node_modules" / "types-react18"
OLDER_TYPES = {"react": [str(OLDER)], "react/*": [f"{OLDER}/*"]}
COMPILER = str(NODE / "node_modules" / ".bin" / "tsc")
CUTS = 3
NOT_REACHED = "net::ERR_"
WORDS = [f"{number} wörd\n" for number in range(20)]


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return npm.pack(tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="module")
def project(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = npm.install(tarball, tmp_path_factory.mktemp("npm") / "project", BESIDE)
    made.write("readme.tsx", npm.program("tsx"))
    return made


@pytest.fixture(scope="module")
def built(project: Project) -> dict[str, Any]:
    """Build the pages with Vite, and return what the build script reports."""
    told: dict[str, Any] = json.loads(project.run("node", str(NODE / "npm_build.mjs"), str(project.folder)))
    return told


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def pages(project: Project, built: dict[str, Any]) -> Iterator[str]:
    """Serve the built pages, and yield their URL. Like a front end's, its origin is not the gateway's."""
    handler = functools.partial(Quiet, directory=str(project.folder / "dist"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@fixture
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer() as started:
        yield started


@fixture
async def url(redis_server: RedisServer, model: ModelServer, pages: str) -> AsyncIterator[str]:
    environment = {
        **model.environment(),
        "REDIS_URL": redis_server.url,
        "GATEWAY_CHAINS": "tests.support.killing",
        "GATEWAY_CORS_ORIGINS": pages,
    }
    async with GatewayProcess("all", environment) as gateway:
        yield gateway.url


@fixture
async def driver() -> AsyncIterator[Process]:
    async with browser() as process:
        yield process


async def ids(redis: RedisServer, stream_id: str) -> list[str]:
    """Return the ids of a stream's events, read from its log in Redis."""
    async with Redis.from_url(redis.url) as client:
        log: Any = await client.get(Log.keys(stream_id)[1])
    return [found.decode() for found in re.findall(rb"^id: (\S+)$", log, re.MULTILINE)]


def page(pages: str, gateway: str, react: str = "19", **options: str) -> str:
    return f"{pages}/{react}/?{urlencode({'gateway': gateway, **options})}"


def through(proxy: Proxy) -> str:
    """Return the gateway's URL behind a proxy. The proxy is made for Redis, but passes bytes of any kind."""
    return f"http://{urlsplit(proxy.url).netloc}"


async def starts(person: Person, content: str, **question: Any) -> str:
    """Start a stream with the hook, and return the stream's id."""
    return str(await person.does("run", f"stream.start({json.dumps({'user': content, **question})})"))


async def until(person: Person, condition: str) -> None:
    """Wait until the condition holds for the hook's state. If it never holds, the error shows the state."""
    try:
        await person.does("until", condition)
    except AssertionError as error:
        told = await person.does("run", "JSON.stringify({...stream, error: String(stream.error)})")
        raise AssertionError(f"{condition}: {told}") from error


async def test_it_holds_the_client_the_hook_and_their_types_of_one_version(tarball: Path) -> None:
    version = holdfast_gateway.__version__
    assert tarball.name == f"holdfast-client-{version}.tgz"
    with tarfile.open(tarball) as archive:
        inside = {member.name.removeprefix("package/"): member for member in archive.getmembers()}
        client = archive.extractfile(inside["client.js"])
        assert client is not None
        assert client.read() == (npm.ROOT / "web" / "client.js").read_bytes()
    assert set(inside) == {*npm.SOURCES, "client.js", "client.d.ts", "LICENSE"}
    told = json.loads((npm.PACKAGE / "package.json").read_text())
    assert (told["license"], told["sideEffects"], "dependencies" in told) == ("MIT", False, False)
    assert not [path for path in npm.PACKAGE.iterdir() if path.name not in npm.SOURCES]


async def test_the_program_of_the_readme_runs_in_node(project: Project, url: str) -> None:
    assert len(npm.program("js").splitlines()) <= 10
    project.write("readme.mjs", npm.aimed(url, script(["a", "b"])))
    said = await run("node", str(project.folder / "readme.mjs"))
    assert re.fullmatch(r"ab \d+\n", said.decode())


async def test_a_server_renders_the_hook_as_idle(project: Project) -> None:
    assert project.run("node", "server.js") == "<i>idle</i>\n"


async def test_what_ended_before_a_full_storage_and_an_unknown_id_are_followed_as_they_should(
    project: Project,
) -> None:
    assert project.run("node", "follower.js") == "as it should be\n"


@pytest.mark.parametrize(
    ("module", "resolution", "paths"),
    [("esnext", "bundler", {}), ("node16", "node16", OLDER_TYPES)],
    ids=["bundler and React 19", "node16 and React 18"],
)
async def test_its_types_resolve(
    project: Project, module: str, resolution: str, paths: dict[str, list[str]]
) -> None:
    options = {
        "strict": True,
        "noEmit": True,
        "target": "es2022",
        "lib": ["es2023", "dom", "dom.iterable"],
        "module": module,
        "moduleResolution": resolution,
        "jsx": "react-jsx",
        "types": [],
        "paths": paths,
    }
    files = ["use.ts", "readme.tsx"]
    project.write("tsconfig.json", json.dumps({"compilerOptions": options, "files": files}))
    project.run(COMPILER, "-p", ".")


async def test_vite_builds_it_and_leaves_out_what_is_not_used(built: dict[str, Any]) -> None:
    print(json.dumps(built["sizes"]))
    assert built["warnings"] == []
    sizes = {name: size["gzip"] / 1000 for name, size in built["sizes"].items()}
    assert sizes["decoder"] < sizes["client"] / 2
    sizes_told = re.search(
        r"`Gateway` is at most (\d+) kB, and with the hook at most (\d+) kB", npm.README.read_text()
    )
    assert sizes_told
    for name, told in zip(("client", "hook"), sizes_told.groups(), strict=True):
        assert int(told) - 1 < sizes[name] <= int(told), (name, sizes)


@pytest.mark.parametrize("react", ["19", "18"])
async def test_through_cuts_each_event_comes_once_and_one_job_is_run(
    driver: Process, pages: str, url: str, model: ModelServer, redis_server: RedisServer, react: str
) -> None:
    before = len(model.requests)
    async with Proxy(url) as proxy, visit(driver, page(pages, through(proxy), react)) as person:
        person.may_complain = through(proxy)
        assert await person.does("run", "stream.status") == "idle"
        stream_id = await starts(person, script(WORDS, gate=f"cuts {react}", gate_at=10))
        await until(person, f"stream.text === {json.dumps(''.join(WORDS[:10]))}")
        for _ in range(CUTS):
            accepted = proxy.accepted["commands"]
            assert proxy.cut("commands")
            await hosts.until(lambda: asyncio.sleep(0, proxy.accepted["commands"]), accepted.__lt__)
            await until(person, "stream.status === 'streaming'")
        model.open_gate(f"cuts {react}")
        await until(person, "stream.status === 'done'")
        told = await person.does("run", "({...stream, version, mounts, seen})")
    assert (told["version"][:2], told["mounts"]) == (react, 2)  # In strict mode, React begins effects twice.
    assert (told["id"], told["text"]) == (stream_id, "".join(WORDS))
    assert [stage["state"] for stage in told["stages"]] == ["finished"]
    assert told["seen"] == await ids(redis_server, stream_id)
    assert len(model.requests) == before + 1


async def test_it_comes_back_with_the_network_though_the_client_had_given_up(
    driver: Process, pages: str, url: str, model: ModelServer, redis_server: RedisServer
) -> None:
    async with visit(driver, page(pages, url, patience="0.3")) as person:
        person.may_complain = NOT_REACHED
        stream_id = await starts(person, script(["one ", "two"], gate="network", gate_at=1))
        await until(person, "stream.text === 'one ' && stream.status === 'streaming'")
        await person.does("network", False)
        await until(person, "stream.status === 'reconnecting' && stream.error?.name === 'Unreachable'")
        model.open_gate("network")
        await person.does("network", True)
        await until(person, "stream.status === 'done'")
        assert await person.does("run", "stream.text") == "one two"
        assert await person.does("run", "seen") == await ids(redis_server, stream_id)


async def test_a_silent_connection_is_given_up_when_the_tab_is_seen_again(
    driver: Process, pages: str, url: str, model: ModelServer, redis_server: RedisServer
) -> None:
    async with (
        Proxy(url) as proxy,
        visit(driver, page(pages, through(proxy))) as person,
    ):
        stream_id = await starts(person, script(["one ", "two"], gate="tab", gate_at=1))
        await until(person, "stream.text === 'one ' && stream.status === 'streaming'")
        seen = "document.dispatchEvent(new Event('visibilitychange'))"
        await person.does("run", seen)
        # An event has arrived a moment ago, so the hook does not reconnect.
        assert await person.does("run", "stream.status") == "streaming"
        proxy.hold("commands", "answers")
        model.open_gate("tab")
        await person.does("run", f"const now = Date.now; Date.now = () => now() + 60_000; {seen}")
        await until(person, "stream.status === 'reconnecting'")
        proxy.release()
        await until(person, "stream.status === 'done'")
        assert await person.does("run", "seen") == await ids(redis_server, stream_id)


async def test_a_remounted_component_and_a_reloaded_page_go_on_behind_the_last_event(
    driver: Process, pages: str, url: str, model: ModelServer, redis_server: RedisServer
) -> None:
    before = len(model.requests)
    async with visit(driver, page(pages, url, storageKey="answer")) as person:
        stream_id = await starts(person, script(["one ", "two"], gate="remount", gate_at=1))
        await until(person, "stream.text === 'one '")
        await person.does("run", "show(false)")
        await person.does("until", "!document.querySelector('pre')")
        await person.does("run", "stream = undefined; show(true)")
        await until(person, "stream?.text === 'one ' && stream.status === 'streaming'")
        await person.does("reload")
        await until(person, "stream.text === 'one ' && stream.status === 'streaming'")
        await person.does("run", "show(false)")
        await person.does("until", "!document.querySelector('pre')")
        model.open_gate("remount")  # A page that leaves does not end the stream.
        await person.does("run", "show(true)")
        await until(person, "stream.status === 'done'")
        logged = await ids(redis_server, stream_id)
        # In the second round, the page had already read the end before it was reloaded.
        for _ in range(2):
            told = await person.does("run", "({...stream, seen})")
            assert (told["id"], told["text"], told["seen"]) == (stream_id, "one two", logged)
            await person.does("reload")
            await until(person, "stream.status === 'done'")
    assert len(model.requests) == before + 1


async def test_where_the_storage_is_full_the_stream_is_read_from_its_beginning(
    driver: Process, pages: str, url: str, model: ModelServer
) -> None:
    full = """const put = Storage.prototype.setItem; Storage.prototype.setItem = function (name, text) {
        if (text.includes("one ")) throw new DOMException("full", "QuotaExceededError");
        put.call(this, name, text); }"""
    async with visit(driver, page(pages, url, storageKey="full")) as person:
        stream_id = await starts(person, script(["one ", "two"], gate="full", gate_at=1))
        await until(person, "stream.text === 'one '")
        await person.does("run", full)
        await person.does("reload")
        await until(person, "stream.text === 'one ' && stream.status === 'streaming'")
        model.open_gate("full")
        await until(person, "stream.status === 'done' && stream.text === 'one two'")
        assert await person.does("run", "stream.id") == stream_id


async def test_an_id_that_is_given_is_followed_and_an_unknown_one_is_told(
    driver: Process, pages: str, url: str, redis_server: RedisServer
) -> None:
    async with visit(driver, page(pages, url)) as person:
        stream_id = await starts(person, script(["one ", "two"]))
        await until(person, "stream.status === 'done'")
        await person.does("open", page(pages, url, id=stream_id))
        await until(person, "stream.status === 'done' && stream.text === 'one two'")
        assert await person.does("run", "seen") == await ids(redis_server, stream_id)
        await person.does("open", page(pages, url, id=NOBODY, storageKey="unknown"))
        person.may_complain = "404"
        await until(person, "stream.status === 'failed' && stream.error.status === 404")
        assert await person.does("run", "sessionStorage.getItem('unknown')") is None


async def test_a_question_is_answered_and_taken_back(driver: Process, pages: str, url: str) -> None:
    async with visit(driver, page(pages, url, storageKey="asked")) as person:
        chain = json.dumps({"chain": "asks-and-dies", "input": {"text": "q"}})
        first = await person.does("run", f"stream.start({chain})")
        await until(person, "stream.status === 'interrupted'")
        await person.does("reload")
        await until(person, "stream.status === 'interrupted' && stream.interrupts[0].value === 'first?'")
        second = await person.does("run", "stream.resume({[stream.interrupts[0].id]: 1})")
        await until(person, "stream.status === 'interrupted' && stream.interrupts[0].value === 'second?'")
        assert second == await person.does("run", "stream.id") != first
        await person.does("run", "stream.cancel()")
        await until(person, "stream.status === 'cancelled' && !stream.interrupts.length")


async def test_it_is_cancelled_refused_failed_and_tried_again(
    driver: Process, pages: str, url: str, model: ModelServer
) -> None:
    async with visit(driver, page(pages, url, storageKey="ended")) as person:
        first = await starts(person, script(["one ", "two"], gate="cancelled", gate_at=1))
        await until(person, "stream.text === 'one '")
        await person.does("run", "stream.cancel()")
        await until(person, "stream.status === 'cancelled' && stream.text === 'one '")
        person.may_complain = "422"
        refused = "stream.start({user: ''}).catch((error) => [error.name, error.code])"
        assert await person.does("run", refused) == ["Refused", "invalid"]
        await until(person, "stream.status === 'failed' && stream.error.status === 422 && stream.id === ''")
        # No stream is stored, so a reload requests nothing.
        assert await person.does("run", "sessionStorage.getItem('ended')") is None
        second = await starts(person, script(["kept"], status=400))
        await until(person, "stream.status === 'failed' && stream.error.name === 'StreamFailed'")
        third = await person.does("run", "stream.retry()")
        await until(person, "stream.status === 'failed' && stream.error.code === 'model_invalid_request'")
        assert len({first, second, third, await person.does("run", "stream.id")}) == 3
