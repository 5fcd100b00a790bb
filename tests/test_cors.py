"""The headers for browsers, on both hosts.

Checked: which pages may send requests (fault 24), and what our own page may do.
"""

from __future__ import annotations

import re

import httpx
import pytest

from tests.callers import ALICE, ORIGIN, Guarded, by_key
from tests.hosts import EVENTS, JSON, NOBODY, Host
from tests.support.model_server import script

pytest_plugins = ("tests.hosts", "tests.callers")
pytestmark = pytest.mark.asyncio(loop_scope="session")

SHOWN = (
    "content-location, location, retry-after, x-error-code, x-stream-id, "
    "etag, stream-closed, stream-cursor, stream-next-offset, stream-up-to-date, "
    "x-workflow-run-id, x-workflow-stream-tail-index, mcp-session-id"
)
ELSEWHERE = (
    "https://elsewhere.example",
    "http://app.example",
    "https://app.example:8443",
    "https://app.example.evil.example",
    "https://evil.app.example",
    "https://app.example/",
    "HTTPS://APP.EXAMPLE",
    "http://localhost:3001",
    f"{ORIGIN} http://localhost:3000",
    "null",
    "*",
    "",
)
ASKS = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}


def allowed(answer: httpx.Response) -> dict[str, str]:
    """Return the answer's headers for other origins (CORS)."""
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


async def answers(host: Guarded, origin: dict[str, str]) -> dict[str, httpx.Response]:
    """Return one answer of each kind, requested by a page of this origin."""
    known, http = {**by_key(ALICE), **origin}, host.http
    created = await http.post("/stream", json={"user": script(["a"])}, headers=known)
    where = created.headers["location"]
    events = await http.get(where, headers={**EVENTS, **known})
    token = await http.post(f"{where}/token", headers=known)
    last = re.findall("id: (.*)\n", events.text)[-1]
    return {
        "202": created,
        "events": events,
        "started events": await http.post("/stream", json={"user": "x"}, headers={**EVENTS, **known}),
        "sample": await http.post("/api/http_trigger", json={"user": script(["a"])}, headers=known),
        "201": token,
        "events by token": await http.get(token.json()["stream"], headers=origin),
        "204": await http.get(where, headers={**known, "last-event-id": last}),
        "document": await http.get(where, headers={**JSON, **known}),
        "cancelled": await http.delete(where, headers=known),
        "400": await http.post(
            "/stream", content=b"{", headers={**known, "content-type": "application/json"}
        ),
        "401": await http.get(where, headers=origin),
        "401 by token": await http.get(f"{where}?token=x", headers=origin),
        "404": await http.get(f"/stream/{NOBODY}", headers=known),
        "406": await http.get(where, headers={**known, "accept": "text/html"}),
        "415": await http.post("/stream", content=b"{}", headers=known),
        "422": await http.post("/stream", json={}, headers=known),
        "health": await http.get("/health", headers=origin),
    }


@pytest.mark.parametrize("origin", [ORIGIN, "http://localhost:3000"])
async def test_a_listed_origin_is_given_exactly_itself_by_every_answer(guarded: Guarded, origin: str) -> None:
    for kind, answer in (await answers(guarded, {"origin": origin})).items():
        assert allowed(answer) == {
            "access-control-allow-origin": origin,
            "access-control-allow-credentials": "true",
            "access-control-expose-headers": SHOWN,
        }, kind
        # The platform adds this header itself if several origins are configured.
        assert set(answer.headers.get_list("vary", split_commas=True)) == {"Origin"}, kind
        status = kind.partition(" ")[0]
        assert not status.isdigit() or answer.status_code == int(status), kind


@pytest.mark.parametrize("origin", [{}, {"origin": ELSEWHERE[0]}], ids=["none", "elsewhere"])
async def test_fault_24_any_other_origin_is_given_nothing_by_any_answer(
    guarded: Guarded, origin: dict[str, str]
) -> None:
    for kind, answer in (await answers(guarded, origin)).items():
        assert not allowed(answer), kind
        # A cache must not return this answer to a page of an allowed origin.
        assert answer.headers["vary"] == "Origin", kind


@pytest.mark.parametrize("origin", ELSEWHERE)
async def test_fault_24_what_only_looks_like_a_listed_origin_is_another(
    guarded: Guarded, origin: str
) -> None:
    for method in ("GET", "OPTIONS"):
        answer = await guarded.http.request(method, f"/stream/{NOBODY}", headers={"origin": origin, **ASKS})
        assert not allowed(answer)


@pytest.mark.parametrize(
    "path", ["/stream", f"/stream/{NOBODY}", f"/stream/{NOBODY}/token", "/api/http_trigger", "/chains"]
)
async def test_a_preflight_needs_no_key_and_names_what_may_be_sent(guarded: Guarded, path: str) -> None:
    answer = await guarded.http.options(path, headers={"origin": ORIGIN, **ASKS})
    assert (answer.status_code, answer.content) == (204, b"")
    said = allowed(answer)
    assert said["access-control-allow-origin"] == ORIGIN
    if guarded.name == "functions":  # The platform answers and allows exactly what was requested.
        assert said["access-control-allow-methods"] == ASKS["access-control-request-method"]
        assert said["access-control-allow-headers"] == ASKS["access-control-request-headers"]
        return
    assert set(said["access-control-allow-methods"].split(", ")) == {"GET", "POST", "DELETE"}
    assert {"authorization", "content-type", "idempotency-key", "last-event-id", "x-api-key"} <= set(
        said["access-control-allow-headers"].split(", ")
    )
    assert "*" not in "".join(said.values())
    assert answer.headers["vary"] == "Origin"


async def test_without_the_setting_nothing_is_said_of_origins(host: Host) -> None:
    where, _ = await host.finished(["a"])
    for answer in (
        await host.http.get(where, headers={"origin": ORIGIN}),
        await host.http.get(f"/stream/{NOBODY}", headers={"origin": ORIGIN}),
        await host.http.options(where, headers={"origin": ORIGIN, **ASKS}),
    ):
        assert not allowed(answer)
        assert "vary" not in answer.headers


async def test_every_answer_is_taken_as_what_it_says_and_tells_nobody_where_it_was(guarded: Guarded) -> None:
    known = by_key(ALICE)
    where = await guarded.finished(ALICE)
    for answer in (
        await guarded.http.get(where, headers=known),
        await guarded.http.get(where, headers={**JSON, **known}),
        await guarded.http.get(where),
        await guarded.http.post(f"{where}/token", headers=known),
        await guarded.http.options(where),
        await guarded.http.get("/health"),
        await guarded.http.get("/"),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
