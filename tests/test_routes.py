"""Routes, methods and content negotiation: the same on both hosts."""

import re
from typing import Any

import httpx
import pytest

from gateway import formats
from gateway.hosts.asgi import ROUTES
from tests.hosts import EVENTS, JSON, LIMIT_SECONDS, NOBODY, Host

pytest_plugins = ("tests.hosts",)
pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.functions
async def test_both_hosts_have_the_same_routes_methods_and_names(hosts: dict[str, Host]) -> None:
    ours = {(method, path, handler.__name__) for method, path, handler in ROUTES}
    theirs = {
        # The platform wants a name for each function; the leave to ask is one handler for all.
        (
            method,
            "/" + function["route"].removeprefix("/"),
            re.sub("^holdfast_((preflight|part)(?=_)|.*).*", r"\1", function["name"]),
        )
        for function in hosts["functions"].functions
        if function["type"] == "httpTrigger"
        for method in function["methods"]
    }
    assert theirs == ours
    assert len(ROUTES) == len(ours)


@pytest.mark.functions
async def test_what_tells_what_was_asked_needs_a_function_key(hosts: dict[str, Host]) -> None:
    levels = {
        (method, "/" + function["route"]): function["authLevel"]
        for function in hosts["functions"].functions
        if function["type"] == "httpTrigger"
        for method in function["methods"]
    }
    foreign = {(route.method, route.path) for route in formats.ROUTES if route.method != "OPTIONS"}
    free = {key for key in foreign if levels[key] == "anonymous"}
    assert free == {("GET", "/durable/{id}"), ("HEAD", "/durable/{id}")}
    assert {levels[key] for key in foreign - free} == {"function"}


async def test_health_says_that_the_process_is_alive(host: Host) -> None:
    answer = await host.http.get("/health")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"status": "ok", "model": "configured"}


async def test_ready_names_each_part_and_its_state(host: Host) -> None:
    answer = await host.http.get("/ready")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    told: dict[str, Any] = answer.json()
    assert told.pop("status") == "ready"
    assert told["queue"].pop("depth") >= 0
    assert told.pop("subscriber")["state"] in ("idle", "ok")
    states = {"store": "ok", "queue": "ok", "model": "configured", "workers": "seen"}
    assert told == {part: {"state": state} for part, state in states.items()}


async def test_metrics_are_an_unknown_path_unless_configured(host: Host) -> None:
    answer = await host.http.get("/metrics")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_route")


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/stream%2F",
        "/web/vendor%2Fmarked.js",
        "/stream/",
        "/stream/a/b",
        "/stream/%2e%2e/",
        "/health/",
        "/Health",
    ],
)
async def test_an_unknown_path_is_a_problem(hosts: dict[str, Host], path: str) -> None:
    answer = await hosts["uvicorn"].http.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "no_route")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/stream", {"POST", "OPTIONS"}),
        ("HEAD", "/stream", {"POST", "OPTIONS"}),
        ("PUT", f"/stream/{NOBODY}", {"GET", "HEAD", "DELETE", "OPTIONS"}),
        ("POST", f"/stream/{NOBODY}", {"GET", "HEAD", "DELETE", "OPTIONS"}),
        ("GET", "/api/http_trigger", {"POST", "OPTIONS"}),
        ("DELETE", "/health", {"GET", "HEAD"}),
        ("POST", "/", {"GET", "HEAD"}),
    ],
)
async def test_a_wrong_method_is_a_problem_that_names_the_right_ones(
    hosts: dict[str, Host], method: str, path: str, allowed: set[str]
) -> None:
    answer = await hosts["uvicorn"].http.request(method, path)
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == allowed
    assert answer.headers["content-type"] == "application/problem+json"
    if method != "HEAD":
        assert answer.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/embeddings", 404, "no_route"),
        ("DELETE", "/v1/responses", 405, "method_not_allowed"),
        ("GET", "/threads/a/b/c", 404, "no_route"),
        ("PUT", "/threads/a", 405, "method_not_allowed"),
        ("POST", "/runs/crons", 404, "no_route"),
    ],
)
async def test_where_no_route_is_the_refusal_has_the_shape_of_the_paths_format(
    hosts: dict[str, Host], method: str, path: str, status: int, code: str
) -> None:
    answer = await hosts["uvicorn"].http.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    told = answer.json()
    if path.startswith("/v1"):
        assert set(told["error"]) == {"message", "type", "param", "code"}
        assert (told["error"]["code"], told["error"]["type"]) == (code, "invalid_request_error")
    else:
        assert told == {"detail": told["detail"], "code": code}
        assert isinstance(told["detail"], str)
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(("method", "path"), [("PUT", f"/stream/{NOBODY}"), ("GET", "/nothing")])
async def test_what_no_function_takes_the_platform_answers_itself(
    hosts: dict[str, Host], method: str, path: str
) -> None:
    host = hosts.get("functions")
    assert host is None or (await host.http.request(method, path)).status_code == 404


async def test_fault_24_another_origin_is_given_no_leave(host: Host) -> None:
    where, _ = await host.finished([])
    for answer in (
        await host.http.get(where, headers={"origin": "https://elsewhere.example"}),
        await host.http.post("/stream", json={}, headers={"origin": "https://elsewhere.example"}),
        await host.http.options(where, headers={"origin": "null", "access-control-request-method": "DELETE"}),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/event-stream", "text/event-stream"),
        ("*/*", "text/event-stream"),
        ("text/*", "text/event-stream"),
        ("application/json, text/event-stream", "text/event-stream"),
        ("", "text/event-stream"),
        ("TEXT/Event-Stream; q=0.5", "text/event-stream"),
        ("application/json", "application/json"),
        ("application/json, */*;q=0.1", "application/json"),
        ("application/json;q=0.9, text/event-stream", "text/event-stream"),
        ("application/json, text/event-stream;q=0.9", "application/json"),
        ("application/*", "application/json"),
        ("text/event-stream;q=0, application/json", "application/json"),
        ("text/html", "application/problem+json"),
        ("text/event-stream;q=0", "application/problem+json"),
        ("application/json;q=0.0", "application/problem+json"),
    ],
)
async def test_accept_chooses_between_events_and_the_document(host: Host, accept: str, kind: str) -> None:
    where, _ = await host.finished([])
    answer = await host.http.get(where, headers={"accept": accept})
    assert answer.headers["content-type"] == kind
    assert answer.status_code == (406 if "problem" in kind else 200)


async def test_absent_accept_is_events(host: Host) -> None:
    where, _ = await host.finished([])
    async with httpx.AsyncClient(base_url=host.http.base_url, timeout=LIMIT_SECONDS) as plain:
        del plain.headers["accept"]
        assert (await plain.get(where)).headers["content-type"] == "text/event-stream"


GETS = sorted(
    {path for method, path, _ in ROUTES if method == "GET"} - {"/durable/{id}"}  # which has a HEAD of its own
)
POSTS = sorted({path for method, path, _ in ROUTES if method == "POST"})
OF_THE_MOMENT = {
    "date",
    "content-length",
    "transfer-encoding",
}  # the latter may be left out (RFC 9110, 9.3.2)


@pytest.mark.parametrize("path", GETS)
async def test_fault_51_head_is_answered_as_get_is_without_the_body(host: Host, path: str) -> None:
    where, _ = await host.finished(["one"])
    filled = {"id": where.rpartition("/")[2], "name": "page.js"}
    if path.startswith("/web/vendor"):
        filled["name"] = "marked.js"
    url = re.sub(r"\{(\w+)\}", lambda found: filled.get(found[1], "none"), path)
    headers = JSON if path == "/stream/{id}" else {}
    async with host.http.stream("GET", url, headers=headers) as got:
        pass  # a thread's stream stays open: its head is enough
    head = await host.http.head(url, headers=headers)
    assert head.content == b""
    assert head.status_code == got.status_code
    assert set(head.headers) | OF_THE_MOMENT == set(got.headers) | OF_THE_MOMENT
    assert head.headers.get("content-type") == got.headers.get("content-type")
    if "content-length" in got.headers and path not in ("/ready", "/metrics"):
        assert head.headers["content-length"] == got.headers["content-length"]


async def test_fault_51_head_of_a_stream_that_runs_opens_none(host: Host) -> None:
    where = await host.start(["one", "two"], gate="head")
    head = await host.http.head(where, headers=EVENTS)
    assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream")
    assert head.content == b""
    assert (await host.http.head(f"/stream/{NOBODY}", headers=EVENTS)).status_code == 404
    await host.http.delete(where)


@pytest.mark.parametrize("path", POSTS)
async def test_fault_53_an_encoded_body_is_refused_at_every_post(host: Host, path: str) -> None:
    url = re.sub(r"\{\w+\}", "none", path)
    is_json = {"content-type": "application/json"}
    for coding in ("gzip", "GZIP, identity", "x"):
        headers = {**is_json, "content-encoding": coding}
        answer = await host.http.post(url, content=b"{}", headers=headers)
        assert answer.status_code == 415, answer.text
        assert answer.headers["accept-encoding"] == "identity"
    plain = await host.http.post(url, content=b"{}", headers={**is_json, "content-encoding": "identity"})
    assert plain.status_code != 415


@pytest.mark.parametrize("name", ["a%2Fb", "%2f", f"{NOBODY}%2Ftoken"])
async def test_fault_55_an_encoded_slash_is_no_slash(hosts: dict[str, Host], name: str) -> None:
    answer = await hosts["uvicorn"].http.get(f"/stream/{name}", headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
