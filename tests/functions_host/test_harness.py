"""Tests of the test host with a sample app, through a real socket."""

import asyncio
import json
import os
import select
import signal
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from .client import FunctionsHost, HostStartError
from .sample import FUNCTION_APP, write_app

pytestmark = pytest.mark.functions
LIMIT_S = 20
ENVIRONMENT = {"JOBS_QUEUE": "jobs", "SWEEP_SCHEDULE": "0 * * * * *"}


@pytest.fixture
def echo_file(tmp_path: Path) -> Path:
    return tmp_path / "echo.json"


@pytest.fixture
async def host(tmp_path: Path, echo_file: Path) -> AsyncIterator[FunctionsHost]:
    environment = {**ENVIRONMENT, "ECHO_FILE": str(echo_file)}
    async with FunctionsHost(write_app(tmp_path), environment) as running:
        yield running


@pytest.fixture
async def http(host: FunctionsHost) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=host.url, timeout=LIMIT_S) as client:
        yield client


def read_echo(echo_file: Path) -> dict[str, Any]:
    echo: dict[str, Any] = json.loads(echo_file.read_text("utf-8"))
    return echo


async def test_the_ready_line_names_routes_methods_and_levels(host: FunctionsHost) -> None:
    functions = {function["name"]: function for function in host.functions}
    assert functions["root"]["route"] == "/"
    assert functions["root"]["authLevel"] == "anonymous"
    assert functions["read_stream"]["methods"] == ["GET"]
    assert functions["read_stream"]["route"] == functions["delete_stream"]["route"]
    assert functions["delete_stream"]["authLevel"] == "function"
    assert functions["work"]["queueName"] == "jobs"
    assert functions["sweep"]["schedule"] == ENVIRONMENT["SWEEP_SCHEDULE"]


async def test_a_request_reaches_the_handler_and_its_answer_the_client(
    http: httpx.AsyncClient,
) -> None:
    answer = await http.post("/Echo/a%20b%2Fc?x=1&y=%C3%A4", content=b"hello")
    assert answer.status_code == 200
    assert answer.headers["x-sample"] == "yes"
    seen = answer.json()
    assert seen["id"] == "a b%2Fc"
    assert seen["query"] == {"x": "1", "y": "ä"}
    assert seen["body"] == "hello"
    assert seen["url"].startswith(str(http.base_url).rstrip("/"))


async def test_a_body_in_chunks_arrives_whole(http: httpx.AsyncClient) -> None:
    async def body() -> AsyncIterator[bytes]:
        for letter in b"abc":
            yield bytes([letter]) * 40_000

    answer = await http.post("/echo/1", content=body())
    assert len(answer.json()["body"]) == 3 * 40_000


async def test_hop_by_hop_headers_and_a_forged_invocation_id_stay_outside(
    http: httpx.AsyncClient,
) -> None:
    sent = {"connection": "close, x-hop", "x-hop": "1", "x-ms-invocation-id": "mine", "x-own": "2"}
    seen = (await http.get("/echo/1", headers=sent)).json()["headers"]
    assert "x-hop" not in seen
    assert seen["x-own"] == "2"
    assert seen["x-ms-invocation-id"] != "mine"


async def test_get_and_delete_share_a_path(http: httpx.AsyncClient) -> None:
    assert (await http.delete("/stream/7")).json() == {"deleted": "7"}


@pytest.mark.parametrize("method_path", ["GET /none", "PUT /stream/7", "GET /stream/7/8"])
async def test_no_route_and_a_wrong_method_are_404(http: httpx.AsyncClient, method_path: str) -> None:
    assert (await http.request(*method_path.split())).status_code == 404


async def test_the_root_is_slash_and_an_empty_route_is_the_functions_name(
    http: httpx.AsyncClient,
) -> None:
    assert (await http.get("/")).text == "the page"
    assert (await http.get("/nameless")).text == "empty route"


async def test_chunks_are_not_held_back(http: httpx.AsyncClient) -> None:
    """The second chunk exists only after the client has seen the first one."""
    async with asyncio.timeout(LIMIT_S), http.stream("GET", "/stream/s") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.aiter_lines()
        assert await anext(lines) == "data: 1"
        await http.post("/gates/s")
        assert [line async for line in lines if line] == ["data: 2"]


@pytest.mark.parametrize("path", ["/stream/g", "/custom/g"])
async def test_the_app_sees_that_the_client_has_gone(http: httpx.AsyncClient, path: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        async with http.stream("GET", path) as answer:
            assert await anext(answer.aiter_lines()) == "data: 1"
        assert (await http.get("/gates/g-ended")).status_code == 204


async def test_a_client_that_leaves_before_the_answer_harms_nothing(
    http: httpx.AsyncClient, host: FunctionsHost
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(host.url).port)
    writer.write(b"GET /gates/never HTTP/1.1\r\nhost: sample\r\n\r\n")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await http.get("/")).status_code == 200
    assert reader.at_eof()


async def test_a_handler_that_raises_is_500_without_its_text(http: httpx.AsyncClient) -> None:
    answer = await http.get("/raise")
    assert answer.status_code == 500
    assert "must not reach" not in answer.text


async def test_a_stream_that_breaks_ends_without_its_last_chunk(http: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get("/cut")


async def test_a_message_reaches_the_function_of_its_queue(host: FunctionsHost, echo_file: Path) -> None:
    assert await host.queue("jobs", '{"job": "ä"}'.encode(), dequeue_count=3) == {"ok": True}
    seen = read_echo(echo_file)
    assert seen["body"] == '{"job": "ä"}'
    assert seen["dequeue_count"] == 3
    assert seen["id"]
    assert seen["pop_receipt"]
    times = [datetime.fromisoformat(text) for text in seen["times"]]
    assert times == sorted(times)
    assert times[0].tzinfo is not None


async def test_a_failed_message_tells_the_exceptions_name(host: FunctionsHost) -> None:
    assert await host.queue("broken", b"x") == {"ok": False, "error_type": "LookupError"}


@pytest.mark.parametrize(
    ("queue", "body", "error_type"),
    [
        ("absent", b"x", "UnknownQueue"),
        ("jobs", b"\xff", "InvalidMessage"),
        ("jobs", b"x" * 65_537, "MessageTooLarge"),
    ],
)
async def test_what_no_queue_would_deliver_is_refused(
    host: FunctionsHost, queue: str, body: bytes, error_type: str
) -> None:
    assert await host.queue(queue, body) == {"ok": False, "error_type": error_type}


async def test_a_timer_runs_when_it_is_told(host: FunctionsHost, echo_file: Path) -> None:
    assert await host.timer("sweep") == {"ok": True}
    assert read_echo(echo_file) == {"past_due": False}


async def test_a_path_of_the_runtimes_own_server_hides_the_function(
    http: httpx.AsyncClient,
) -> None:
    """FastAPI's pages come before the runtime's catch-all; no function can have their paths."""
    answer = await http.get("/docs")
    assert answer.status_code == 200
    assert "swagger" in answer.text.lower()


async def test_sigterm_reaches_the_worker_which_may_end_by_it(host: FunctionsHost) -> None:
    host.terminate()
    assert await host.wait() == 128 + signal.SIGTERM  # the extension's own server: "exited with code 143"
    assert any(line.endswith(f"Started server process [{host.worker_pid}]") for line in host.console())


async def test_sigkill_follows_after_the_grace(tmp_path: Path) -> None:
    """The extension's own server waits without limit for a reader that stays connected."""
    async with (
        FunctionsHost(write_app(tmp_path), ENVIRONMENT, grace_s=0.1) as host,
        httpx.AsyncClient(base_url=host.url, timeout=LIMIT_S) as http,
        http.stream("GET", "/stream/open") as answer,
    ):
        assert await anext(answer.aiter_lines()) == "data: 1"
        host.terminate()
        assert await host.wait() == 128 + signal.SIGKILL


async def test_the_worker_is_a_process_of_its_own_and_ends_with_the_host(host: FunctionsHost) -> None:
    worker = os.pidfd_open(host.worker_pid)
    assert host.worker_pid != host.pid
    await host.kill()
    assert select.select([worker], [], [], LIMIT_S)[0]
    os.close(worker)


ORIGIN, OTHER = "https://page.example", "https://other.example"
WANTED = {"access-control-request-method": "DELETE", "access-control-request-headers": "x-functions-key"}


async def test_the_host_answers_preflights_and_no_function_hears_of_them(tmp_path: Path) -> None:
    cors = {"CORS_ALLOWED_ORIGINS": json.dumps([ORIGIN]), "CORS_SUPPORT_CREDENTIALS": "true"}
    async with (
        FunctionsHost(write_app(tmp_path), ENVIRONMENT | cors) as host,
        httpx.AsyncClient(base_url=host.url, timeout=LIMIT_S) as http,
    ):
        leave = await http.options("/nowhere", headers={"origin": ORIGIN, **WANTED})
        assert (leave.status_code, leave.headers["access-control-allow-methods"]) == (204, "DELETE")
        assert leave.headers["access-control-allow-headers"] == "x-functions-key"
        none = await http.options("/", headers={"origin": OTHER, **WANTED})
        assert (none.status_code, dict(none.headers)) == (204, {})
        for origin, given in ((ORIGIN, ORIGIN), (OTHER, None)):
            seen = await http.get("/", headers={"origin": origin})
            assert seen.headers.get("access-control-allow-origin") == given


async def test_without_the_setting_a_preflight_is_answered_all_the_same(http: httpx.AsyncClient) -> None:
    answer = await http.options("/", headers={"origin": ORIGIN, **WANTED})
    assert (answer.status_code, dict(answer.headers)) == (204, {})


async def test_an_app_that_does_not_index_fails_with_the_runtimes_words(tmp_path: Path) -> None:
    classic = FUNCTION_APP.replace("async def root(req: Request)", "async def root(req: func.HttpRequest)")
    with pytest.raises(HostStartError, match=r"cannot load the root function: .*HttpRequest"):
        async with FunctionsHost(write_app(tmp_path, classic), ENVIRONMENT):
            pytest.fail("it must not start")


async def test_a_missing_setting_keeps_its_function_from_loading_and_no_other(tmp_path: Path) -> None:
    async with FunctionsHost(write_app(tmp_path), {"SWEEP_SCHEDULE": "0 * * * * *"}) as host:
        names = {function["name"] for function in host.functions}
        assert "work" not in names
        assert {"root", "fail", "sweep"} <= names
        assert "The 'work' function is in error: '%JOBS_QUEUE%' does not resolve to a value" in host.stderr()
