"""The gateway inside another application.

It is mounted below a path, the application's lifespan runs it, and the application names the owners.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from langgraph_sdk import get_client
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from gateway.client import Gateway
from gateway.protocol import ANONYMOUS
from gateway.settings import Settings
from holdfast_gateway import Refused, Streams
from holdfast_gateway.asgi import Holdfast, create_app
from tests.hosts import EVENTS, JSON, Wire, until
from tests.support.model_server import ModelServer, script

OWNERS = {"a": "alice", "b": "bob", "odd": "ü" * 128, "long": "x" * 129, "nobody": ANONYMOUS, "empty": ""}


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        yield server


def settings_of(redis_url: str, model: ModelServer, **given: Any) -> Settings:
    return Settings.from_env({**model.environment(), "REDIS_URL": redis_url}, **given)


async def asked(request: Request) -> str | None:
    """Return the owner that the cookie `who` names."""
    if request.cookies.get("who") == "broken":
        raise LookupError("can" + "ary")
    if request.cookies.get("who") == "number":
        return 7  # type: ignore[return-value]
    return OWNERS.get(request.cookies.get("who", ""))


@asynccontextmanager
async def served(app: Any, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Serve an application with a real uvicorn in this process, and yield an HTTP client for it."""
    config = uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=5, **options)
    server = Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn only sets a flag
            await asyncio.sleep(0.01)
        assert server.started
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            yield http
    finally:
        server.should_exit = True
        await serving


class Server(uvicorn.Server):
    """A uvicorn server that leaves the signal handlers of the test process unchanged."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def within(holdfast: Holdfast, path: str = "/api/ai") -> FastAPI:
    """Return an application that mounts the gateway, with the three lines of the README."""
    app = FastAPI(lifespan=holdfast.lifespan)

    @app.get("/theirs")
    async def theirs() -> dict[str, bool]:
        return {"theirs": True}

    app.mount(path, holdfast)
    return app


async def test_a_stream_is_started_read_and_resumed_below_a_path(redis_url: str, model: ModelServer) -> None:
    holdfast = create_app(settings_of(redis_url, model), owner=asked)
    async with served(within(holdfast)) as http:
        assert (await http.get("/theirs")).json() == {"theirs": True}
        http.cookies.set("who", "a")
        made = await http.post("/api/ai/stream", json={"user": script(["a", "b"])})
        where = made.headers["location"]
        assert made.status_code == 202
        assert re.fullmatch(r"/api/ai/stream/[\w-]{24}", where)
        assert made.json()["stream"] == where
        whole = Wire((await http.get(where, headers=EVENTS)).content)
        assert whole.events == ["start", "stage", "message", "message", "stage", "done"]
        rest = await http.get(where, headers={**EVENTS, "last-event-id": whole.ids[2]})
        assert Wire(rest.content).ids == whole.ids[3:]
        token = (await http.post(f"{where}/token")).json()["stream"]
        assert token.startswith(f"{where}?token=")
        del http.cookies["who"]
        assert (await http.get(where)).status_code == 401
        assert Wire((await http.get(token, headers=EVENTS)).content).ids == whole.ids
        direct = await http.post(
            "/api/ai/stream", json={"user": script(["c"])}, headers={**EVENTS, "cookie": "who=b"}
        )
        assert direct.headers["location"] == f"/api/ai/stream/{direct.headers['x-stream-id']}"
        assert Wire(direct.content).events[-1] == "done"


async def test_the_clients_take_an_address_with_a_path(redis_url: str, model: ModelServer) -> None:
    holdfast = create_app(settings_of(redis_url, model), owner=lambda request: "everybody")
    async with served(within(holdfast)) as http:
        below = str(http.base_url.join("/api/ai"))
        async with Gateway(below) as gateway:
            stream = gateway.stream(user=script(["a", "b"]))
            assert (await stream.result()).text == "ab"
            assert (await gateway.follow(stream.id).result()).text == "ab"
        answer = await http.post(
            "/api/ai/v1/chat/completions",
            json={"model": "chat", "messages": [{"role": "user", "content": script(["c"])}]},
        )
        assert answer.headers["location"] == f"/api/ai/stream/{answer.headers['x-stream-id']}"
        # LangGraph's SDK appends a Location to its base URL, and the base URL already contains the path.
        async with get_client(url=below) as client:
            thread = (await client.threads.create())["thread_id"]
            content: dict[str, Any] = {"messages": [{"role": "user", "content": script(["d"])}]}
            told = await client.runs.wait(thread, "chat", input=content)
            assert told["messages"][-1]["content"] == "d"  # type: ignore[call-overload]
            run = {"assistant_id": "chat", "input": content}
            raw = await http.post(f"/api/ai/threads/{thread}/runs/stream", json=run)
            assert raw.headers["location"].startswith(f"/threads/{thread}/runs/")
            again = await client.runs.join(thread, raw.headers["x-stream-id"])
            assert again["messages"][-1]["content"] == "d"


async def test_what_it_says_of_itself_knows_the_path(redis_url: str, model: ModelServer) -> None:
    holdfast = create_app(settings_of(redis_url, model), owner=asked)
    async with served(within(holdfast, "/a.i+(1)"), root_path="/b") as http:
        document = (await http.get("/a.i+(1)/openapi.json")).json()
        assert document["servers"] == [{"url": "/b/a.i+(1)"}]
        body = {"user": script(["a"])}
        made = await http.post("/a.i+(1)/stream", json=body, headers={"cookie": "who=a"})
        assert made.headers["location"].startswith("/b/a.i+(1)/stream/")
        told = document["components"]
        for schema in (
            told["headers"]["Location"]["schema"],
            told["schemas"]["Created"]["properties"]["stream"],
        ):
            assert re.search(schema["pattern"], made.headers["location"])
            assert not re.search(schema["pattern"], made.headers["location"].replace("a.i", "axi"))
        page = await http.get("/a.i+(1)/", headers={"accept": "text/html"})
        assert 'src="web/page.js"' in page.text
        assert (await http.get("/a.i+(1)/web/page.js")).status_code == 200
        assert (await http.get("/a.i+(1)/web/vendor/marked.js")).status_code == 200
        assert (await http.get("/a.i+(1)/web/marked.js")).status_code == 404
        wrong = await http.put("/a.i+(1)/stream", headers={"cookie": "who=a"})
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST, OPTIONS")


async def test_the_owner_is_whom_the_application_names(
    redis_url: str, model: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    holdfast = create_app(settings_of(redis_url, model), owner=asked)
    async with served(within(holdfast)) as http:
        statuses = {}
        for who in ("a", "odd", "long", "nobody", "empty", "number", "broken", ""):
            body = {"user": script(["x"])}
            answer = await http.post("/api/ai/stream", json=body, headers={"cookie": f"who={who}"})
            statuses[who] = answer.status_code
            assert "canary" not in answer.text
        wrong = {"long": 500, "nobody": 500, "empty": 500, "number": 500, "broken": 500}
        assert statuses == {"a": 202, "odd": 202, **wrong, "": 401}
        assert "canary" not in caplog.text
        assert caplog.text.count("owner() must give a string of 1 to 128 characters") == 4
        where = (
            await http.post("/api/ai/stream", json={"user": script(["x"])}, headers={"cookie": "who=a"})
        ).headers["location"]
        for who, status in (("a", 200), ("b", 404), ("", 401)):
            answer = await http.get(where, headers={**JSON, "cookie": f"who={who}"})
            assert answer.status_code == status
        for free in ("health", "ready", "openapi.json"):
            assert (await http.get(f"/api/ai/{free}")).status_code == 200
        assert (await http.get("/api/ai/chains")).status_code == 401
        # For calls in the same process, the same name is the same owner.
        stream_id = where.rpartition("/")[2]
        assert (await holdfast.streams.status(stream_id, owner="alice"))["id"] == stream_id
        with pytest.raises(Refused) as caught:
            await holdfast.streams.status(stream_id, owner="bob")
        assert (caught.value.status, caught.value.code) == (404, "not_found")


async def test_without_its_lifespan_nothing_is_started_and_the_log_says_why(
    redis_url: str, model: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    holdfast = create_app(settings_of(redis_url, model), owner=asked)
    app = Starlette(routes=[Mount("/ai", holdfast)])
    async with served(app) as http:
        for path in ("/ai/stream", "/ai/v1/responses"):
            answer = await http.post(path, json={"user": "x"}, headers={"cookie": "who=a"})
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
        assert (await http.get("/ai/health")).status_code == 200
    assert [r.levelno for r in caplog.records if "FastAPI(lifespan=" in r.getMessage()] == [logging.ERROR]
    await holdfast.streams.close()


async def test_one_lifespan_at_a_time_and_a_store(redis_url: str, model: ModelServer) -> None:
    holdfast = create_app(settings_of(redis_url, model), owner=asked, worker=False)
    for _ in range(2):  # Two lifespans one after the other are accepted.
        async with holdfast.lifespan():
            with pytest.raises(RuntimeError, match="runs already"):
                async with holdfast.lifespan():
                    pass
    with pytest.raises(ValueError, match="REDIS_URL must be set"):
        async with create_app(Settings(), owner=asked).lifespan():
            pass


async def test_alone_it_brings_its_own_lifespan_and_runs_its_jobs(redis_url: str, model: ModelServer) -> None:
    async with served(create_app(settings_of(redis_url, model), page=False)) as http:
        made = await http.post("/stream", json={"user": script(["a"])})
        assert made.json()["stream"] == made.headers["location"]
        assert Wire((await http.get(made.headers["location"], headers=EVENTS)).content).events[-1] == "done"
        assert {(await http.get(path)).status_code for path in ("/", "/web/page.js")} == {404}
        elsewhere = await http.get("/health", headers={"host": "rebound.example"})
        assert elsewhere.status_code == 421


@pytest.mark.parametrize(
    ("given", "status"), [({}, 403), ({"auth": "none"}, 403), ({"auth": "none", "open_to_all": "yes"}, 200)]
)
async def test_where_nobody_is_asked_it_serves_this_machine_alone(given: dict[str, Any], status: int) -> None:
    holdfast = create_app(Settings(hosts="gateway.example", **given), worker=False)
    transport = httpx.ASGITransport(holdfast)
    async with httpx.AsyncClient(base_url="http://10.0.0.1", transport=transport) as http:
        answer = await http.get("/health", headers={"host": "gateway.example"})
    assert answer.status_code == status


async def test_the_applications_own_code_writes_streams_beside_the_chains(
    redis_url: str, model: ModelServer
) -> None:
    holdfast = create_app(settings_of(redis_url, model), owner=asked, worker=False)
    app = within(holdfast)

    @app.post("/notes")
    async def notes() -> dict[str, str]:
        stream = await holdfast.producer.open(chain="notes", stages=("draft", "text"), owner="alice")
        for stage, text in (("draft", "a"), ("text", "b")):
            async with stream.write(stage) as out:
                await out.text(text)
        await stream.done()
        return {"stream": stream.id}

    async with served(app) as http:
        http.cookies["who"] = "a"
        stream_id = (await http.post("/notes")).json()["stream"]
        read = Wire((await http.get(f"/api/ai/stream/{stream_id}", headers=EVENTS)).content)
        assert read.events[-1] == "done"
        told = (await http.get(f"/api/ai/stream/{stream_id}", headers=JSON)).json()
        assert (told["chain"], told["text"], told["status"]) == ("notes", "b", "done")
        http.cookies["who"] = "b"
        assert (await http.get(f"/api/ai/stream/{stream_id}", headers=EVENTS)).status_code == 404
    with pytest.raises(RuntimeError, match="or its application's lifespan"):
        await holdfast.producer.open(chain="notes")
    with pytest.raises(ValueError, match="REDIS_URL must be set"):
        _ = create_app(Settings(), owner=asked).producer


async def test_jobs_are_left_to_workers_where_it_has_none(redis_url: str, model: ModelServer) -> None:
    settings = settings_of(redis_url, model)
    web, worker = create_app(settings, worker=False), create_app(settings)
    async with web.lifespan():
        stream_id = await web.streams.start(user=script(["a"]))
        assert (await web.streams.status(stream_id))["status"] == "queued"
        async with worker.lifespan():
            events = [event async for event in web.streams.follow(stream_id)]
        assert events[-1].type == "done"


async def test_its_end_hands_a_running_job_over(redis_url: str, model: ModelServer) -> None:
    settings = settings_of(redis_url, model)
    first, second = create_app(settings), create_app(settings)
    async with second.lifespan():
        async with first.lifespan():
            stream_id = await first.streams.start(user=script(["a", "b"], gate="handed", gate_at=1))
            await until(lambda: second.streams.status(stream_id), lambda told: told["text"] == "a")
        model.open_gate("handed")
        events = [event async for event in second.streams.follow(stream_id)]
        assert (events[-1].type, (await second.streams.status(stream_id))["text"]) == ("done", "ab")
        assert isinstance(second.streams, Streams)
