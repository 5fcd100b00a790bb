"""GET /openapi.json is valid and complete, and both hosts answer as it describes.

These tests request each kind of answer once. `tests.contract` sends random requests.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import httpx
import pytest
import pytest_asyncio
from openapi_spec_validator import validate

from gateway import formats
from gateway.hosts.asgi import ROUTES
from gateway.settings import Settings
from gateway.web.openapi.basics import NOT_BLANK
from gateway.web.openapi.document import document
from gateway.web.openapi.responses import tree
from tests.callers import ALICE, BOB, MOST_STREAMS, ORIGIN, Guarded, by_key, flooding
from tests.hosts import EVENTS, JSON, NOBODY, Host
from tests.support.described import Described
from tests.support.model_server import script

pytest_plugins = ("tests.hosts", "tests.callers")
pytestmark = pytest.mark.asyncio(loop_scope="session")

CHAINS: dict[str, dict[str, Any] | None] = {"chat": {"type": ["string", "array"]}, "mirror": None}
SECRET = {"token_keys": "k" * 32, "redis_url": "redis://127.0.0.1:1"}
MODES: dict[str, dict[str, Any]] = {
    "none": {},
    "keys": {"auth": "keys", "keys_file": "keys", **SECRET},
    "jwt": {"auth": "jwt", "jwt_issuer": "https://issuer.example", "jwt_audience": "a", **SECRET},
    "scope": {
        "auth": "jwt",
        "jwt_issuer": "https://issuer.example",
        "jwt_audience": "a",
        "jwt_required_scope": "ask",
        **SECRET,
    },
    "easyauth": {"auth": "easyauth", "website_auth": "True", **SECRET},
    "cors": {"cors_origins": ORIGIN},
}
# Error codes of no answer. `log_lost` becomes a `reset` event. Instead of `thread_refused`, the codes of
# its subclasses are sent. After `thread_moved`, the start is tried again.
NEVER_TOLD = {"log_lost", "thread_refused", "thread_moved"}
METHODS = ("get", "post", "delete", "options")


def operations(described: dict[str, Any]) -> set[tuple[str, str]]:
    """Return every method and path that the document describes."""
    return {
        (method.upper(), path)
        for path, item in described["paths"].items()
        for method in METHODS
        if method in item
    }


# A function key adds the same scheme and the same 401 in every mode. So it is tested only with the mode that
# has the fewest schemes and with the mode that has the most.
@pytest.mark.parametrize(
    ("mode", "function_key"), [*((mode, False) for mode in MODES), ("none", True), ("scope", True)]
)
async def test_the_document_is_openapi(mode: str, function_key: bool) -> None:
    described = document(Settings(**MODES[mode]), CHAINS, function_key=function_key)
    validate(described)
    # The routes of foreign formats are described by the owners of these formats.
    foreign = {(route.method, route.path) for route in formats.ROUTES}
    assert (
        operations(described) == {(method, path) for method, path, _ in ROUTES if method != "HEAD"} - foreign
    )


async def test_every_error_is_in_it() -> None:
    open_to_all = Settings(auth="none", open_to_all="yes")
    described = str([document(settings, CHAINS) for settings in (Settings(**MODES["scope"]), open_to_all)])
    codes = set(re.findall(r"'([a-z_]+)'", " ".join(re.findall(r"'code': {'enum': \[([^]]+)\]", described))))
    foreign = {code for code, error in tree().items() if error.__module__.startswith("gateway.formats.")}
    assert codes == {code for code in tree() if not code.startswith("scripted")} - NEVER_TOLD - foreign


@pytest.mark.parametrize(
    ("mode", "schemes", "who", "codes"),
    [
        ("none", {"streamToken", "writeToken"}, [{}], set()),
        (
            "keys",
            {"streamToken", "writeToken", "apiKey", "bearer"},
            [{"apiKey": []}, {"bearer": []}],
            {"401"},
        ),
        ("jwt", {"streamToken", "writeToken", "bearer"}, [{"bearer": []}], {"401"}),
        ("easyauth", {"streamToken", "writeToken", "signIn"}, [{"signIn": []}], {"401"}),
    ],
)
async def test_it_says_how_to_say_who_asks(
    mode: str, schemes: set[str], who: list[dict[str, list[str]]], codes: set[str]
) -> None:
    described = document(Settings(**MODES[mode]), CHAINS)
    assert set(described["components"]["securitySchemes"]) == schemes
    one = described["paths"]["/stream/{id}"]
    assert one["delete"]["security"] == described["paths"]["/stream"]["post"]["security"] == who
    assert one["get"]["security"] == [*who, {"streamToken": []}]
    assert one["delete"]["responses"].keys() & {"401"} == codes
    assert "401" in one["get"]["responses"]  # A stream token may be invalid in any mode.


async def test_it_says_the_bounds_that_are_set() -> None:
    described = document(Settings(max_body=1234, max_messages=7, max_depth=5, token_seconds=77), CHAINS)
    body = described["paths"]["/stream"]["post"]["requestBody"]
    assert (body["x-max-bytes"], body["description"]) == (1234, "At most 1234 bytes.")
    schemas = described["components"]["schemas"]
    assert schemas["StartMessages"]["properties"]["messages"]["maxItems"] == 7
    assert schemas["StartUser"]["properties"]["chain"]["enum"] == ["chat", "mirror"]
    assert "5 deep" in schemas["Start"]["description"]
    assert "77 seconds" in described["paths"]["/stream/{id}/token"]["post"]["summary"]


async def test_a_blank_is_what_the_product_strips() -> None:
    pattern = re.compile(NOT_BLANK)
    for point in range(sys.maxunicode + 1):
        assert bool(pattern.search(chr(point))) == bool(chr(point).strip()), hex(point)


async def test_each_host_serves_its_own_to_everybody(guarded: Guarded) -> None:
    answer = await guarded.http.get("/openapi.json")
    assert answer.status_code == 200
    described = answer.json()
    validate(described)
    # The routes of foreign formats are described by the owners of these formats.
    foreign = {(route.method, route.path) for route in formats.ROUTES}
    assert (
        operations(described) == {(method, path) for method, path, _ in ROUTES if method != "HEAD"} - foreign
    )
    assert set(described["components"]["securitySchemes"]) == {
        *("streamToken", "writeToken", "apiKey", "bearer", "metricsKey")
    }


async def test_where_the_platform_asks_for_a_key_it_is_said(hosts: dict[str, Host]) -> None:
    for name, host in hosts.items():
        described = (await host.http.get("/openapi.json")).json()
        asked: list[dict[str, list[str]]] = [{"functionKey": []}] if name == "functions" else [{}]
        assert described["paths"]["/stream"]["post"]["security"] == asked
        assert described["paths"]["/stream/{id}"]["get"]["security"] == [{}, {"streamToken": []}]


async def test_an_id_with_a_line_feed_is_an_id_that_nobody_has(host: Host) -> None:
    for method, path in (("GET", "/stream/a%0Ab"), ("DELETE", "/stream/%0A"), ("POST", "/stream/%0A/token")):
        answer = await host.http.request(method, path, headers=JSON)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest_asyncio.fixture(loop_scope="session")
async def described(guarded: Guarded) -> Described:
    return await Described.of(guarded.http)


async def test_what_a_stream_is_answered_is_as_described(guarded: Guarded, described: Described) -> None:
    alice, one = by_key(ALICE), "/stream/{id}"
    question = {"user": script(["a", "b"]), "metadata": {"a": [1]}}
    key = {"idempotency-key": f"described {guarded.name}"}
    created = await described.ask("POST", "/stream", json=question, headers={**alice, **key})
    assert created.status_code == 202
    place = created.json()["id"]
    events = await described.ask("GET", one, place, headers={**alice, **EVENTS})
    assert b"event: done" in events.content
    status = (await described.ask("GET", one, place, headers={**alice, **JSON})).json()
    seen = {"last-event-id": status["last_event_id"]}
    lost = await described.ask("GET", one, place, headers={**alice, "last-event-id": "7-beef"})
    assert b"log_lost" in lost.content
    assert (await described.ask("GET", one, place, headers={**alice, **seen})).status_code == 204
    again = {**alice, **key, **EVENTS}
    assert (await described.ask("POST", "/stream", json=question, headers=again)).status_code == 200
    again |= seen
    assert (await described.ask("POST", "/stream", json=question, headers=again)).status_code == 204
    reused = await described.ask("POST", "/stream", json={"user": "x"}, headers={**alice, **key})
    assert reused.json()["code"] == "idempotency_key_reused"
    token = await described.ask("POST", "/stream/{id}/token", place, headers=alice)
    assert token.status_code == 201
    by_token = {"params": {"token": token.json()["token"]}, "headers": JSON}
    shown = (await described.ask("GET", one, place, **by_token)).json()
    assert shown == {name: value for name, value in status.items() if name != "metadata"}
    await guarded.redis.delete(f"{{{place[:2]}}}:log:{place}")
    assert (await described.ask("GET", one, place, headers={**alice, **JSON})).status_code == 410


async def test_several_streams_at_once_are_as_described(guarded: Guarded, described: Described) -> None:
    alice, question = by_key(ALICE), {"user": script(["a", "b"])}
    places = [(await guarded.http.post("/stream", json=question, headers=alice)).json()["id"] for _ in "12"]
    one: dict[str, Any] = {"params": {"id": places[0]}, "headers": {**alice, **EVENTS}}
    events = await described.ask("GET", "/streams/events", **one)
    assert b"event: done" in events.content
    body = {"streams": [{"id": place} for place in places]}
    both = await described.ask("POST", "/streams/events", json=body, headers=alice)
    assert both.content.count(b"event: done") == len(places)
    await guarded.redis.delete(f"{{{places[0][:2]}}}:log:{places[0]}")
    body["streams"][0]["last_event_id"] = "7-beef"
    lost = await described.ask("POST", "/streams/events", json=body, headers=alice)
    assert lost.status_code == 410 or b"log_lost" in lost.content


@pytest.mark.parametrize("position", ["", "7-beef"])
async def test_the_feed_is_as_described(guarded: Guarded, described: Described, position: str) -> None:
    alice, taken = by_key(ALICE), b""
    place = (await guarded.http.post("/stream", json={"user": script(["a"])}, headers=alice)).json()["id"]
    behind = {"last-event-id": position} if position else {}
    async with guarded.http.stream("GET", "/streams", headers={**alice, **EVENTS, **behind}) as feed:
        async for chunk in feed.aiter_bytes():
            taken += chunk
            ended = [frame for frame in taken.split(b"\n\n") if b"event: ended" in frame]
            if any(place.encode() in frame for frame in ended) and taken.endswith(b"\n\n"):
                break
    answer = httpx.Response(200, headers=feed.headers, content=taken, request=feed.request)
    answer.elapsed = feed.elapsed
    described.hold("GET", "/streams", answer)
    assert (b"event: reset" in taken) == bool(position)


async def test_how_a_stream_ends_is_as_described(guarded: Guarded, described: Described) -> None:
    alice = {**by_key(ALICE), **EVENTS}
    failing = {"user": script([], status=400)}
    failed = await described.ask("POST", "/stream", json=failing, headers=alice)
    assert b"event: failed" in failed.content
    place, retry = failed.headers["x-stream-id"], "/stream/{id}/retry"
    again = await described.ask("POST", retry, place, headers=by_key(ALICE))
    assert (again.status_code, again.json()["retries"], again.json()["from"]) == (202, place, "chat")
    followed = await described.ask("POST", retry, place, json={"from": "chat"}, headers=alice)
    assert b'"retries":"%b"' % place.encode() in followed.content
    status = await described.ask("GET", "/stream/{id}", again.json()["id"], headers={**by_key(ALICE), **JSON})
    assert status.json()["retries"] == place
    sample = await described.ask("POST", "/api/http_trigger", json={"user": "x"}, headers=alice)
    assert b"event: done" in sample.content
    where = await guarded.start(ALICE, gate=f"described {guarded.name}")
    place = where.rpartition("/")[2]
    running = await described.ask("POST", retry, place, headers=by_key(ALICE))
    assert (running.status_code, running.json()["code"]) == (409, "running")
    live = await described.ask("GET", "/stream/{id}", place, headers={**by_key(ALICE), **JSON})
    assert live.json()["ended_at"] is None
    ended = await described.ask("DELETE", "/stream/{id}", place, headers=by_key(ALICE))
    assert ended.json()["status"] == "cancelled"
    ended = await described.ask("POST", retry, place, headers=by_key(ALICE))
    assert (ended.status_code, ended.json()["code"]) == (409, "not_failed")


async def test_what_is_refused_is_as_described(guarded: Guarded, described: Described) -> None:
    alice = {"headers": by_key(ALICE)}
    one, token, resume = "/stream/{id}", "/stream/{id}/token", "/stream/{id}/resume"
    is_json = {"headers": {**by_key(ALICE), "content-type": "application/json"}}
    asked: list[tuple[str, str, str, dict[str, Any], str]] = [
        ("POST", "/stream", "", {"json": {"user": "x"}}, "unauthorized"),
        ("GET", one, NOBODY, {"params": {"token": "x"}}, "unauthorized"),
        ("GET", one, NOBODY, alice, "not_found"),
        ("DELETE", one, NOBODY, alice, "not_found"),
        ("POST", token, NOBODY, alice, "not_found"),
        ("POST", resume, NOBODY, {"json": {"responses": []}, **alice}, "not_found"),
        ("POST", resume, NOBODY, {"json": {"responses": 1}, **alice}, "invalid"),
        ("POST", f"{one}/retry", NOBODY, alice, "not_found"),
        ("POST", f"{one}/retry", NOBODY, {"json": {"form": ""}, **alice}, "invalid"),
        ("POST", f"{one}/retry", NOBODY, {"content": b"x", **alice}, "not_json"),
        ("GET", one, NOBODY, {"headers": {**by_key(ALICE), "accept": "text/html"}}, "not_acceptable"),
        ("GET", one, NOBODY, {**alice, "params": {"last_event_id": "x"}}, "malformed"),
        ("POST", "/stream", "", {"content": b"{", **is_json}, "malformed"),
        ("POST", "/stream", "", {"content": b"{}", **alice}, "not_json"),
        ("POST", "/stream", "", {"content": b" " * 300_000, **is_json}, "too_large"),
        ("POST", "/stream", "", {"json": {}, **alice}, "invalid"),
        ("POST", "/api/http_trigger", "", {"json": {"user": ""}, **alice}, "invalid"),
    ]
    for method, path, place, options, code in asked:
        answer = await described.ask(method, path, place, **options)
        assert answer.json()["code"] == code
    for path in ("/health", "/ready", "/openapi.json", "/"):
        assert (await described.ask("GET", path)).status_code == 200
    leave = {"origin": ORIGIN, "access-control-request-method": "DELETE"}
    for path in ("/stream", one, resume, token, f"{one}/retry", "/api/http_trigger", "/chains"):
        # The platform of Azure Functions answers preflights itself, and differently.
        if guarded.name == "functions":
            assert (await guarded.http.options(path.replace("{id}", "x"), headers=leave)).status_code == 204
            continue
        assert (await described.ask("OPTIONS", path, "x", headers=leave)).status_code == 204


async def test_what_is_refused_for_its_number_is_as_described(guarded: Guarded, described: Described) -> None:
    gate = f"described full {guarded.name}"
    carol = flooding("openapi", guarded.name)
    held = [await guarded.start(carol, gate=gate) for _ in range(MOST_STREAMS)]
    for path in ("/stream", "/api/http_trigger"):
        answer = await described.ask("POST", path, json={"user": "x"}, headers=by_key(carol))
        assert answer.json()["code"] == "over_quota"
    for where in held:
        await guarded.http.delete(where, headers=by_key(carol))


async def test_a_malformed_cursor_is_refused_wherever_it_stands(guarded: Guarded) -> None:
    where = await guarded.finished(BOB)
    for accept in (EVENTS, JSON):
        wrong: tuple[dict[str, dict[str, str]], ...] = (
            {"headers": {"last-event-id": "x"}},
            {"params": {"last_event_id": "x"}},
            {"headers": {"last-event-id": "0"}, "params": {"last_event_id": "x"}},
        )
        for options in wrong:
            headers = {**by_key(BOB), **accept, **options.get("headers", {})}
            params = options.get("params", {})
            for method, path, body in (("GET", where, None), ("POST", "/stream", {"user": "x"})):
                answer = await guarded.http.request(method, path, headers=headers, params=params, json=body)
                assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
