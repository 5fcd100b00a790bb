"""The gateway in somebody's Functions app, in Microsoft's own runtime: their routes, prefix and level."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import azure.functions as func
import pytest
import pytest_asyncio

from holdfast_gateway.functions import register
from holdfast_gateway.host_file import HostFile
from tests.hosts import EVENTS, Host, Wire, functions_host
from tests.support.model_server import ModelServer, script
from tests.support.processes import REPOSITORY
from tests.support.redis_server import RedisServer

APP = '''
import azure.functions as func

from holdfast_gateway.functions import classic, register

app = func.FunctionApp(http_auth_level=func.AuthLevel.ADMIN)


@app.route("hello/{name}", methods=["GET", "POST"], auth_level=func.AuthLevel.ANONYMOUS)
@classic
def hello(req: func.HttpRequest) -> func.HttpResponse:
    """As it stood before."""
    said = [req.method, req.route_params["name"], req.params.get("q"), req.get_body().decode()]
    told = "|".join(map(str, said))
    return func.HttpResponse(told, status_code=201, headers={"x-own": "1"}, mimetype="text/html")


@app.route("later", trigger_arg_name="request", auth_level="anonymous")
@classic
async def later(request: func.HttpRequest, context: func.Context) -> str:
    return f"{context.function_name} {request.url.rpartition('/')[2]}"


@app.route("start/{user}", auth_level="anonymous")
@classic
async def start(req: func.HttpRequest) -> str:
    return await streams.start(user=req.route_params["user"], owner="alice")


async def owner(request):
    return request.headers.get("x-who")


streams = register(app, prefix="ai", owner=owner, auth_level="function")
'''
HOST = {"version": "2.0", "functionTimeout": "00:30:00"}


def folder_of(where: Path, app: str, **host: object) -> Path:
    (where / "function_app.py").write_text(app)
    (where / "host.json").write_text(json.dumps({**HOST, **host}))
    return where


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Host]:
    folder = folder_of(tmp_path_factory.mktemp("app"), APP)
    async with (
        ModelServer() as model,
        RedisServer() as server,
        functions_host(model, server.url, app=folder, listen=True, PYTHONPATH=str(REPOSITORY)) as made,
    ):
        yield made


@pytest.mark.functions
@pytest.mark.asyncio(loop_scope="module")
async def test_their_functions_run_as_they_stood_beside_ours(host: Host) -> None:
    answer = await host.http.post("/api/hello/ann", params={"q": "1"}, content="body")
    assert (answer.status_code, answer.text) == (201, "POST|ann|1|body")
    assert (answer.headers["x-own"], answer.headers["content-type"]) == ("1", "text/html; charset=utf-8")
    assert (await host.http.get("/api/later")).text == "later later"
    names = {one["name"] for one in host.functions}
    assert names - {"hello", "later", "start"} == {name for name in names if name.startswith("holdfast_")}


@pytest.mark.functions
@pytest.mark.asyncio(loop_scope="module")
async def test_a_stream_below_their_prefix_is_run_by_the_queues_trigger(host: Host) -> None:
    who = {"x-who": "alice"}
    made = await host.http.post("/api/ai/stream", json={"user": script(["a", "b"])}, headers=who)
    where = made.headers["location"]
    assert made.status_code == 202
    assert where == made.json()["stream"] == f"/api/ai/stream/{made.json()['id']}"
    whole = Wire((await host.http.get(where, headers={**EVENTS, **who})).content)
    assert whole.events == ["start", "stage", "message", "message", "stage", "done"]
    rest = await host.http.get(where, headers={**EVENTS, **who, "last-event-id": whole.ids[1]})
    assert Wire(rest.content).ids == whole.ids[2:]
    token = (await host.http.post(f"{where}/token", headers=who)).json()["stream"]
    assert token.startswith(f"{where}?token=")
    assert Wire((await host.http.get(token, headers=EVENTS)).content).ids == whole.ids
    assert (await host.http.get(where, headers={"x-who": "bob"})).status_code == 404
    assert (await host.http.post("/api/ai/stream", json={"user": "x"})).status_code == 401


@pytest.mark.functions
@pytest.mark.asyncio(loop_scope="module")
async def test_one_of_their_functions_starts_a_stream(host: Host) -> None:
    stream_id = (await host.http.get("/api/start/hello")).text
    answer = await host.http.get(f"/api/ai/stream/{stream_id}", headers={**EVENTS, "x-who": "alice"})
    assert Wire(answer.content).events[-1] == "done"


@pytest.mark.functions
@pytest.mark.asyncio(loop_scope="module")
async def test_its_document_and_its_page_know_the_prefix(host: Host) -> None:
    document = (await host.http.get("/api/ai/openapi.json")).json()
    assert document["servers"] == [{"url": "/api/ai"}]
    assert "functionKey" in document["components"]["securitySchemes"]
    page = await host.http.get("/api/ai", params={"code": "k"})
    assert (page.status_code, page.headers["location"]) == (308, "/api/ai/?code=k")
    assert 'src="web/page.js"' in (await host.http.get("/api/ai/")).text
    assert (await host.http.get("/api/ai/web/vendor/marked.js")).status_code == 200
    levels = {one["name"]: one["authLevel"] for one in host.functions if one["type"] == "httpTrigger"}
    assert levels["holdfast_create"] == levels["holdfast_chains"] == "function"
    assert levels["holdfast_follow"] == levels["holdfast_health"] == "anonymous"


def refused(folder: Path, **environment: str) -> str:
    """The last line of what an app says that cannot be imported."""
    given = {
        "AzureWebJobsStorage": "UseDevelopmentStorage=true",
        "PYTHONPATH": str(REPOSITORY),
        **environment,
    }
    program = "import sys; sys.path.insert(0, '.'); import function_app"
    ran = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=folder,
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    return ran.stderr.strip().splitlines()[-1]


@pytest.mark.functions
@pytest.mark.slow
def test_a_function_that_the_runtime_would_not_load_is_named(tmp_path: Path) -> None:
    told = refused(folder_of(tmp_path, APP.replace("@classic\n", "", 1)))
    assert told.startswith("ValueError: hello: beside the gateway's functions the runtime loads none")
    assert "@classic" in told


@pytest.mark.functions
@pytest.mark.slow
def test_another_queue_than_the_triggers_is_refused(tmp_path: Path) -> None:
    assert "GATEWAY_QUEUE must be azure-storage" in refused(folder_of(tmp_path, APP), GATEWAY_QUEUE="redis")


@pytest.mark.parametrize("prefix", ["{ai}", "a//b", "a b", "ä"])
def test_a_prefix_that_is_no_path_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="the prefix must be a path"):
        register(func.FunctionApp(), prefix=prefix)


def test_an_encoding_of_messages_that_the_host_does_not_know_is_refused(tmp_path: Path) -> None:
    folder_of(tmp_path, "", extensions={"queues": {"messageEncoding": "utf8"}})
    with pytest.raises(ValueError, match="messageEncoding in"):
        HostFile.found([tmp_path])


def test_the_host_file_is_found_beside_the_app_or_above_it(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    with pytest.raises(ValueError, match=r"there is no host\.json in"):
        HostFile.found([tmp_path / "sub"])
    folder_of(tmp_path, "")
    assert HostFile.found([tmp_path / "sub"]) == HostFile(tmp_path, "api")
    folder_of(tmp_path, "", extensions={"http": {"routePrefix": "/v1/"}})
    assert HostFile.found([tmp_path]).prefix == "v1"
    folder_of(tmp_path, "", extensions={"http": {"routePrefix": ""}, "queues": {"messageEncoding": "none"}})
    assert HostFile.found([tmp_path]).prefix == ""


@pytest.mark.parametrize("prefix", ["{x}", 7, None])
def test_a_route_prefix_that_is_none_is_refused(tmp_path: Path, prefix: object) -> None:
    folder_of(tmp_path, "", extensions={"http": {"routePrefix": prefix}})
    with pytest.raises(ValueError, match="routePrefix in"):
        HostFile.found([tmp_path])


@pytest.mark.parametrize("text", ["", "{", "\udcff"])
def test_a_host_file_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "host.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"host\.json cannot be read"):
        HostFile.found([tmp_path])
