"""`make dist-test`: what `make dist` has left, installed with its extras in empty folders, and used.

    python -m tests.dist_walk [new] [client] [node] [fastapi] [producer] [functions]

Packages come from the registry, so this takes minutes and is no part of the suite. Each way is: install, the
lines of the documentation, serve, stream, resume. What runs there cannot import anything of this checkout.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import venv
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.support import npm
from tests.support.azurite import Azurite
from tests.support.installed import ROOT, Installed
from tests.support.model_server import ModelServer, script
from tests.support.redis_server import RedisServer, free_port

START_SECONDS = 300.0
NODES = ("20", "22")
BESIDE = ("deepagents", "fastapi")  # packages whose newest versions `pip check` must accept
FASTAPI_APP = """
from fastapi import FastAPI
from holdfast_gateway.asgi import create_app

holdfast = create_app(owner=lambda request: request.headers.get("x-who"))
app = FastAPI(lifespan=holdfast.lifespan)
app.mount("/ai", holdfast)
"""
CLIENT = """
import sys
from holdfast_gateway import SyncGateway

with SyncGateway(sys.argv[1]) as gateway:
    first = gateway.stream(user=sys.argv[2])
    for event in first:
        if event.text:
            break
    rest = gateway.follow(first.id, after=event.id)
    print(event.text + "".join(one.text for one in rest), gateway.status(first.id)["status"])
assert not {"redis", "starlette", "langchain_core"} & set(sys.modules)
"""
PRODUCER = """
import asyncio
import sys
from holdfast_gateway import Producer


async def main():
    async with Producer.from_env() as producer:
        stream = await producer.open(chain="report", stages=("outline", "text"), key=sys.argv[1])
        print(stream.id, flush=True)
        async with stream.write("outline") as out:
            await out.text("one ")
        if sys.argv[2] == "dies":
            await asyncio.Event().wait()
        async with stream.write("text") as out:
            await out.text("two")
        await stream.done()

asyncio.run(main())
assert "langchain_core" not in sys.modules
"""
FUNCTIONS_APP = """
import azure.functions as func
import chains
import gateway
from holdfast_gateway.functions import classic, register

app = func.FunctionApp()


@app.route("where", auth_level=func.AuthLevel.ANONYMOUS)
@classic
def where(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(gateway.__file__)


streams = register(app)
"""


@dataclass
class Walk:
    """One run: its folder, the services that every path needs, and the duration of each step."""

    folder: Path
    wheel: Path
    model: ModelServer
    redis: RedisServer
    took: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str):  # type: ignore[no-untyped-def]
        began = time.monotonic()
        yield
        self.took.append((name, time.monotonic() - began))
        print(f"{name}: {self.took[-1][1]:.0f} s", flush=True)

    def installed(self, name: str, *asked: str) -> Installed:
        """Make a separate environment with these requirements, and an empty folder next to it."""
        made = Installed(self.folder / name / "venv", self.folder / name / "empty")
        made.folder.mkdir(parents=True)
        venv.create(made.venv, with_pip=True, symlinks=True)
        pip = (str(made.python), "-m", "pip", "--disable-pip-version-check")
        with self.step(f"{name}: pip install"):
            made.run(*pip, "install", "--quiet", "--find-links", str(self.wheel.parent), *asked)
        made.run(*pip, "check")
        return made

    def ours(self, extras: str) -> str:
        version = self.wheel.name.split("-")[1]
        return f"holdfast-gateway{extras}=={version}"

    @asynccontextmanager
    async def running(
        self, made: Installed, *command: str, cwd: Path, ready: Callable[[str], str | None], **more: str
    ) -> AsyncIterator[str]:
        """Run a command until the block ends; yield what `ready` found in a line of its output."""
        environment: Mapping[str, str] = {**made.environment, **self.model.environment(), **more}
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert process.stdout is not None
        said: list[str] = []
        draining: asyncio.Task[bytes] | None = None
        try:
            async with asyncio.timeout(START_SECONDS):
                while (found := ready(line := (await process.stdout.readline()).decode())) is None:
                    assert line, "".join(said)
                    said.append(line)
            draining = asyncio.create_task(process.stdout.read())
            yield found
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await process.wait()
            if draining is not None:
                await draining


def after(words: str) -> Callable[[str], str | None]:
    """Return the rest of the line that contains these words."""
    return lambda line: line.partition(words)[2].strip() if words in line else None


async def streamed(url: str, path: str, headers: Mapping[str, str] | None = None, **body: object) -> None:
    """Start a stream, read it, and read it again from its middle."""
    async with httpx.AsyncClient(base_url=url, timeout=START_SECONDS, headers=headers) as http:
        made = await http.post(f"{path}/stream", json={"user": script(["one ", "two"]), **body})
        assert made.status_code == 202, made.text
        where = made.headers["location"]
        assert where == f"{path}/stream/{made.json()['id']}"
        whole = (await http.get(where, headers={"accept": "text/event-stream"})).text
        assert "event: done" in whole, whole
        ids = [line[4:] for line in whole.splitlines() if line.startswith("id: ")]
        told = {"accept": "text/event-stream", "last-event-id": ids[2]}
        rest = (await http.get(where, headers=told)).text
        assert [line[4:] for line in rest.splitlines() if line.startswith("id: ")] == ids[3:]
        assert (await http.get(where, headers={"accept": "application/json"})).json()["text"] == "one two"


async def new(walk: Walk) -> None:
    """Run `holdfast new`, the new project's test, and `holdfast run`."""
    made = walk.installed("new", walk.ours("[server,worker,embedded]"), "pytest", *BESIDE)
    made.run("holdfast", "new", "trip", "--wheels", str(walk.wheel.parent))
    project = made.folder / "trip"
    pip = (str(made.python), "-m", "pip", "--disable-pip-version-check")
    made.run(*pip, "install", "--quiet", "-r", "requirements-dev.txt", cwd=project)
    with walk.step("new: pytest"):
        assert "1 passed" in made.run("pytest", "-q", cwd=project)
    with walk.step("new: holdfast run, a stream"):
        async with walk.running(
            made, "holdfast", "run", cwd=project, ready=after("Holdfast serves "), PORT="0"
        ) as url:
            await streamed(url, "", chain="trip")


async def fastapi(walk: Walk) -> None:
    """Mount the gateway as the documentation says. The client is in an environment with only the base
    install."""
    made = Installed(walk.folder / "new" / "venv", walk.folder / "fastapi")
    if not made.venv.exists():
        made = walk.installed("fastapi", walk.ours("[server,worker]"), *BESIDE)
    made.folder.mkdir(exist_ok=True)
    (made.folder / "app.py").write_text(FASTAPI_APP)
    with walk.step("fastapi: uvicorn, a stream below /ai"):
        async with walk.running(
            made,
            *("uvicorn", "app:app", "--port", "0", "--timeout-graceful-shutdown", "5"),
            cwd=made.folder,
            ready=after("Uvicorn running on "),
            REDIS_URL=walk.redis.url,
        ) as told:
            await streamed(told.split()[0], "/ai", {"x-who": "alice"})


async def producer(walk: Walk) -> None:
    """Run a program without LangChain that writes, is killed, and continues after a restart."""
    made = walk.installed("producer", walk.ours("[server]"))
    async with served(walk) as url:
        with walk.step("producer: written, killed, gone on with, read"):
            program = (str(made.python), "-c", PRODUCER, "one job")
            async with (
                walk.running(
                    made, *program, "dies", cwd=made.folder, ready=str.strip, REDIS_URL=walk.redis.url
                ) as stream_id,
                httpx.AsyncClient(base_url=url, timeout=START_SECONDS) as http,
            ):
                where = f"/stream/{stream_id}"
                events = {"accept": "text/event-stream"}
                async with http.stream("GET", where, headers=events) as answer:
                    async for line in answer.aiter_lines():
                        if line.startswith("id: "):
                            last = line[4:]
                        if "one " in line:
                            break
            again = {**made.environment, "REDIS_URL": walk.redis.url}
            process = await asyncio.create_subprocess_exec(
                *program, "ends", env=again, cwd=made.folder, stdout=asyncio.subprocess.PIPE
            )
            said, _ = await process.communicate()
            assert (process.returncode, said.decode().strip()) == (0, stream_id)
            async with httpx.AsyncClient(base_url=url, timeout=START_SECONDS) as http:
                rest = (await http.get(where, headers=events | {"last-event-id": last})).text
                told = (await http.get(where, headers={"accept": "application/json"})).json()
            assert "one " not in rest, rest
            assert "event: done" in rest, rest
            assert (told["status"], told["text"]) == ("done", "two"), told


async def client(walk: Walk) -> None:
    """Follow a stream of a gateway with the base install: from its start to its end, and from its middle."""
    made = walk.installed("client", walk.ours(""))
    packages = json.loads(made.run(str(made.python), "-m", "pip", "list", "--format=json").splitlines()[0])
    print("the base install:", " ".join(sorted(one["name"] for one in packages)))
    async with served(walk) as url:
        with walk.step("client: a stream"):
            command = (str(made.python), "-c", CLIENT, url, script(["one ", "two"]))
            said = await asyncio.to_thread(made.run, *command)
            assert said == "one two done\n", said


async def node(walk: Walk) -> None:
    """Install npm's tarball with the newest React, and run the README's program on each Node that npm has as
    a package."""
    (tarball,) = (ROOT / "dist").glob("holdfast-client-*.tgz")
    async with served(walk) as url:
        for version in NODES:
            with walk.step(f"node {version}: npm install, a stream"):
                folder = walk.folder / "node" / version
                folder.parent.mkdir(exist_ok=True)
                beside = (f"node@{version}", "react", "react-dom")
                project = await asyncio.to_thread(npm.install, tarball, folder, registry=beside)
                project.write("readme.mjs", npm.aimed(url, script(["one ", "two"])))
                program = str(folder / "node_modules" / ".bin" / "node")
                assert project.run(program, "--version").startswith(f"v{version}.")
                said = await asyncio.to_thread(project.run, program, "readme.mjs")
                assert said.startswith("one two "), said
                assert project.run(program, "server.js") == "<i>idle</i>\n"


@asynccontextmanager
async def served(walk: Walk) -> AsyncIterator[str]:
    """Serve a gateway from the wheel; yield its URL."""
    server = Installed(walk.folder / "new" / "venv", walk.folder / "served")
    if not server.venv.exists():
        server = walk.installed("server", walk.ours("[server,worker]"))
    server.folder.mkdir(parents=True, exist_ok=True)
    async with walk.running(
        server,
        *("uvicorn", "holdfast_gateway.asgi:app", "--port", "0", "--timeout-graceful-shutdown", "5"),
        cwd=server.folder,
        ready=after("Uvicorn running on "),
        REDIS_URL=walk.redis.url,
    ) as told:
        yield told.split()[0]


async def functions(walk: Walk) -> None:
    """Run the app of a new project, with an additional function, in Microsoft's runtime with Azurite."""
    made = walk.installed("functions", walk.ours("[azure]"), "azure-functions-runtime", "pytest")
    made.run("holdfast", "new", "trip")
    project = made.folder / "trip"
    checked = await asyncio.to_thread(
        made.run, sys.executable, "-m", "tests.infra.check", str(project / "infra" / "main.bicep"), cwd=ROOT
    )
    assert checked.strip().endswith("faults: 0"), checked
    with walk.step("functions: the host of make run-functions, a stream"):
        command = (sys.executable, "-m", "tests.functions_host.local", "--app", str(project))
        async with walk.running(
            made, *command, cwd=ROOT, ready=after("Holdfast serves "), PORT=str(free_port())
        ) as said:
            await streamed(said.split(",")[0], "", chain="trip")
    (project / "function_app.py").write_text(FUNCTIONS_APP)
    host = json.loads((project / "host.json").read_text())
    del host["extensions"]["http"]  # then the prefix is the host's default, /api
    host["extensions"]["queues"] |= {"maxPollingInterval": "00:00:00.5"}
    del host["extensions"]["queues"]["messageEncoding"]
    (project / "host.json").write_text(json.dumps(host))
    harness = made.folder / "harness"
    harness.mkdir()
    (harness / "tests").symlink_to(ROOT / "tests")  # for the stand-in of the Functions host, not the product
    with walk.step("functions: the host, a stream below /api"):
        async with (
            Azurite() as azurite,
            walk.running(
                made,
                *(str(made.python), "-m", "tests.functions_host", "--listen", "--app-dir", str(project)),
                cwd=harness,
                ready=lambda line: json.loads(line)["url"] if line.startswith('{"') else None,
                REDIS_URL=walk.redis.url,
                AzureWebJobsStorage=azurite.connection,
                GATEWAY_DIRECT_START="off",
            ) as url,
        ):
            async with httpx.AsyncClient(base_url=url, timeout=START_SECONDS) as http:
                assert (await http.get("/api/where")).text.startswith(str(made.venv))
            await streamed(url, "/api", chain="trip")


WAYS: Mapping[str, Callable[[Walk], Awaitable[None]]] = {
    "new": new,
    "client": client,
    "node": node,
    "fastapi": fastapi,
    "producer": producer,
    "functions": functions,
}


async def main(names: list[str]) -> int:
    (wheel,) = (ROOT / "dist").glob("*.whl")
    folder = Path(tempfile.mkdtemp(prefix="holdfast-dist-"))
    try:
        async with ModelServer() as model, RedisServer() as redis:
            walk = Walk(folder, wheel, model, redis)
            for name in names or WAYS:
                await WAYS[name](walk)
        print(f"{len(names or WAYS)} passed, 0 failed: " + ", ".join(f"{n} {s:.0f} s" for n, s in walk.took))
    finally:
        if not os.environ.get("KEEP"):
            shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
