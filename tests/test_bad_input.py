"""Requests that are refused (`docs/protocol.md`, Errors).

Checked: the answer to each, and that none of their data is stored.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.store.log import Log
from gateway.streams.start import DEFAULT, MAX_METADATA_BYTES
from tests.hosts import EVENTS, HOST_NAMES, JSON, NOBODY, Host, functions_host, uvicorn_host
from tests.support.described import Described
from tests.support.model_server import ModelServer
from tests.support.redis_server import RedisServer

pytest_plugins = ("tests.hosts",)
pytestmark = pytest.mark.asyncio(loop_scope="session")

IS_JSON = {"content-type": "application/json"}
BOUND = 262144  # Bytes. The default of GATEWAY_MAX_BODY_BYTES.
HI = {"role": "user", "content": "hi"}


def filled(size: int) -> dict[str, str]:
    """Return metadata that is exactly `size` bytes long as JSON."""
    return {"a": "x" * (size - len(json.dumps({"a": ""}, separators=(",", ":"))))}


async def refused(host: Host, answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check the form of the problem document (RFC 9457) and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    problem: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "code"} <= set(problem)
    assert (problem["status"], problem["code"]) == (status, code)
    for leak in ("Traceback", "Error", "redis", "127.0.0.1", "test-key"):
        assert leak not in answer.text
    return problem


async def post(host: Host, body: bytes | str, headers: dict[str, str] | None = None) -> httpx.Response:
    """Send a POST /stream that must be refused, and check that nothing is stored or queued."""
    before = await host.stored()
    answer = await host.http.post("/stream", content=body, headers=headers or IS_JSON)
    assert await host.stored() == before
    return answer


NOT_JSON = [b"", b"{", b"'", b"{'user': 'x'}", b'{"user": "x"} x', b'{"user": "x",}', b"null null"]
NOT_JSON += [
    b'\xef\xbb\xbf{"user": "x"}',
    b'{"user": "\xff"}',
    b'{"user": "\xed\xa0\x80"}',
    b'{"user": "a\nb"}',
]
NOT_JSON += [b'{"input": NaN}', b'{"input": Infinity}', b'{"input": 1e999}', b'{"input": -1e999}']
NOT_JSON += [b'{"input": 0x1}', b'{"input": \xd9\xa1}', b'{"input": ' + b"9" * 5000 + b"}"]
NOT_JSON += ['{"user": "x"}'.encode("utf-16"), b'{"user": "a\nb"}']


@pytest.mark.parametrize("body", NOT_JSON, ids=lambda body: repr(body[:24]))
async def test_fault_19_what_is_not_json_is_400(host: Host, body: bytes) -> None:
    await refused(host, await post(host, body), 400, "malformed")


RULES: list[tuple[Any, str]] = [
    ([], "body"),
    (None, "body"),
    ("x", "body"),
    (1, "body"),
    ({}, "user, messages, input"),
    ({"user": "x", "input": "x"}, "user, messages, input"),
    ({"user": "x", "messages": [HI]}, "user, messages, input"),
    ({"user": ""}, "user"),
    ({"user": " \n\u2028"}, "user"),
    ({"user": None}, "user"),
    ({"user": ["x"]}, "user"),
    ({"messages": []}, "messages"),
    ({"messages": {}}, "messages"),
    ({"messages": [HI] * (DEFAULT.messages + 1)}, "messages"),
    ({"messages": [HI, "x"]}, "messages[1]"),
    ({"messages": [{"role": "user"}]}, "messages[0]"),
    ({"messages": [{**HI, "name": "x"}]}, "messages[0]"),
    ({"messages": [{**HI, "role": "root"}]}, "messages[0].role"),
    ({"messages": [{**HI, "role": ["user"]}]}, "messages[0].role"),
    ({"messages": [{**HI, "content": None}]}, "messages[0].content"),
    ({"messages": [{**HI, "content": []}]}, "messages[0].content"),
    ({"messages": [{**HI, "content": [1]}]}, "messages[0].content"),
    ({"user": "x", "chain": "nobody's"}, "chain"),
    ({"user": "x", "chain": ["chat"]}, "chain"),
    ({"user": "x", "chain": None}, "chain"),
    ({"user": "x", "params": []}, "params"),
    ({"user": "x", "params": None}, "params"),
    ({"user": "x", "metadata": []}, "metadata"),
    ({"user": "x", "metadata": filled(MAX_METADATA_BYTES + 1)}, "metadata"),
    ({"user": "x", "model": "gpt"}, "model"),
    ({"user": "x", "\r\n\0\ud800": 1}, "????"),
    ({"user": "x", "y" * 1000: 1}, "y" * 64),
]


@pytest.mark.parametrize(("body", "field"), RULES, ids=lambda part: str(part)[:40].encode("ascii", "replace"))
async def test_fault_19_a_broken_rule_is_422_with_field_and_rule(host: Host, body: Any, field: str) -> None:
    problem = await refused(host, await post(host, json.dumps(body)), 422, "invalid")
    assert problem["field"] == field
    assert problem["rule"]


@pytest.mark.parametrize("depth", [DEFAULT.depth, 2_000, 100_000])
@pytest.mark.parametrize("way", ["[]", "{}"])
async def test_fault_19_a_body_too_deep_is_422(host: Host, depth: int, way: str) -> None:
    opening, closing = ("[", "]") if way == "[]" else ('{"a":', "}")
    depth = min(depth, BOUND // 8)
    body = '{"input": ' + opening * depth + "1" + closing * depth + "}"
    problem = await refused(host, await post(host, body), 422, "invalid")
    assert problem["field"] == "body"


async def test_fault_19_a_million_messages_are_413(host: Host) -> None:
    body = b'{"messages": [' + b",".join([b"{}"] * 1_000_000) + b"]}"
    await refused(host, await post(host, body), 413, "too_large")


async def test_fault_19_a_body_over_the_bound_is_413_also_without_a_length(host: Host) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"user": "'
        for _ in range(BOUND // 4096):
            yield b"x" * 4096
        yield b'"}'

    before = await host.stored()
    answer = await host.http.post("/stream", content=pieces(), headers=IS_JSON)
    await refused(host, answer, 413, "too_large")
    assert await host.stored() == before


async def test_the_bounds_themselves_are_allowed(host: Host) -> None:
    body = {"input": 1, "chain": "mirror", "metadata": filled(MAX_METADATA_BYTES)}
    deep = '{"chain": "mirror", "input": ' + "[" * (DEFAULT.depth - 1) + "]" * (DEFAULT.depth - 1) + "}"
    many = json.dumps({"chain": "mirror", "messages": [HI] * DEFAULT.messages})
    full = '{"chain": "mirror", "user": "' + "x" * (BOUND - 31) + '"}'
    assert len(full) == BOUND
    for text in (json.dumps(body), deep, many, full):
        answer = await host.http.post("/stream", content=text, headers=IS_JSON)
        assert answer.status_code == 202, answer.text
        assert (await host.read(answer.headers["location"])).events[-1] == "done"


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
async def test_a_body_that_does_not_say_that_it_is_json_is_415(host: Host, kind: str) -> None:
    await refused(host, await post(host, b'{"user": "x"}', {"content-type": kind}), 415, "not_json")


CURSORS = ["words", "7", "00", "-1", "1e3", "1e3-abcd", "-1-abcd", "1 -abcd", "1- abcd", "1-abcd,2-abcd"]
CURSORS += ["1-abc", "1-abcde", "1-ABCD", "1-abcg", "1-abcd-", "12345678901-abcd", "0x1-abcd", "(1-abcd"]
CURSORS += [
    "$",
    "*",
    "+",
    "\u0661-abcd",
    "\uff11-abcd",
    "1-\uff41bcd",
    "1\u2013abcd",
    "1-abcd\t1-abcd",
    "9" * 10_240,
]


@pytest.mark.parametrize("cursor", CURSORS, ids=lambda c: c[:16].encode("ascii", "replace").decode())
async def test_fault_21_a_cursor_of_another_form_is_400_and_never_at_redis(host: Host, cursor: str) -> None:
    where = f"/stream/{NOBODY}"
    headers = httpx.Headers([(b"last-event-id", cursor.encode()), (b"accept", b"text/event-stream")])
    await host.redis.config_resetstat()
    for answer in (
        await host.http.get(where, headers=headers),
        await host.http.get(where, params={"last_event_id": cursor}),
        await host.http.post("/stream", json={"user": "x"}, headers=headers),
    ):
        await refused(host, answer, 400, "malformed")
    asked = set(await host.redis.info("commandstats"))
    assert not asked & {f"cmdstat_{name}" for name in ("hgetall", "getrange", "strlen", "evalsha")}


@pytest.mark.parametrize("cursor", [" 1-abcd", "1-abcd ", "1-abcd\n", "1-abcd\0", "\t0"])
async def test_fault_21_a_cursor_with_blanks_in_the_query_is_400(host: Host, cursor: str) -> None:
    answer = await host.http.get(f"/stream/{NOBODY}", params={"last_event_id": cursor})
    await refused(host, answer, 400, "malformed")


async def test_fault_21_a_cursor_given_twice_is_400(host: Host) -> None:
    where, wire = await host.finished([])
    twice = [("last-event-id", wire.ids[0])] * 2
    await refused(host, await host.http.get(where, headers=twice), 400, "malformed")
    query = {"last_event_id": ["0", "0"]}
    await refused(host, await host.http.get(where, params=query), 400, "malformed")


@pytest.mark.parametrize("headers", [EVENTS, JSON])
async def test_what_nobody_foresaw_is_500_without_a_word_of_it(host: Host, headers: dict[str, str]) -> None:
    where, _ = await host.finished([])
    job = Log.keys(where.rpartition("/")[2])[0]
    await host.redis.set(job, "not a record", ex=60)  # Redis now answers WRONGTYPE for this key.
    problem = await refused(host, await host.http.get(where, headers=headers), 500, "internal")
    assert "WRONGTYPE" not in json.dumps(problem)


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=HOST_NAMES)
async def abandoned(request: pytest.FixtureRequest, model: ModelServer) -> AsyncIterator[Host]:
    """Yield a host whose store has been killed."""
    async with RedisServer() as redis:
        host = uvicorn_host(model, redis.url, "web") if request.param == "uvicorn" else None
        async with host or functions_host(model, redis.url) as running:
            assert (await running.http.get(f"/stream/{NOBODY}", headers=JSON)).status_code == 404
            await redis.kill()
            yield running


async def test_with_the_store_away_a_json_client_gets_503(abandoned: Host) -> None:
    http, body = abandoned.http, {"user": "x"}
    for answer in (
        await http.get(f"/stream/{NOBODY}", headers=JSON),
        await http.delete(f"/stream/{NOBODY}"),
        await http.post("/stream", json=body),
        await http.post("/api/http_trigger", json=body),
    ):
        await refused(abandoned, answer, 503, "store_unavailable")
        assert int(answer.headers["retry-after"]) > 0
    assert (await http.get("/health")).status_code == 200


async def test_with_the_store_away_all_is_answered_as_described(abandoned: Host) -> None:
    described = await Described.of(abandoned.http)
    for method, path, body in (
        ("GET", "/stream/{id}", None),
        ("DELETE", "/stream/{id}", None),
        ("POST", "/stream/{id}/resume", {"responses": []}),
        ("POST", "/stream/{id}/retry", {}),
        ("POST", "/stream/{id}/token", None),
        ("POST", "/stream", {"user": "x"}),
        ("POST", "/api/http_trigger", {"user": "x"}),
    ):
        answer = await described.ask(method, path, NOBODY, headers=JSON, json=body)
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert (await described.ask("GET", "/stream/{id}", NOBODY, headers=EVENTS)).status_code == 200


async def test_with_the_store_away_an_event_stream_client_gets_retry_and_a_clean_close(
    abandoned: Host,
) -> None:
    for headers in (EVENTS, {"accept": "*/*"}, {**EVENTS, "last-event-id": "5-abcd"}):
        answer = await abandoned.http.get(f"/stream/{NOBODY}", headers=headers)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.content.startswith(b"retry: ")
        assert answer.content.count(b"\n") == 1
