"""Clients that we did not write: npm `eventsource` and `@microsoft/fetch-event-source`, `httpx-sse`, curl.

Through a server that rotates, and through cuts at any byte.
"""

import json
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio
from httpx_sse import aconnect_sse

from tests.hosts import EVENTS, TEXTS, Host, Wire, triples, uvicorn_host
from tests.support.cutter import Cutter
from tests.support.model_server import ModelServer, script
from tests.support.programs import node, run, talking
from tests.support.redis_server import RedisServer

pytest_plugins = ("tests.hosts",)
pytestmark = pytest.mark.asyncio(loop_scope="session")

MAX_AGE_SECONDS = 0.4
SLOW = [f"{number} {text}" for number, text in enumerate(TEXTS * 3)]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rotating(model: ModelServer, store: RedisServer, hosts: dict[str, Host]) -> AsyncIterator[Host]:
    """One more instance beside the others, which closes each connection after about a third of a second."""
    age = {"GATEWAY_STREAM_MAX_AGE_SECONDS": str(MAX_AGE_SECONDS)}
    async with uvicorn_host(model, store.url, **age) as host:
        yield host


async def event_source(url: str, *fast: str) -> list[dict[str, Any]]:
    """What npm's `eventsource` says of a URL until it is stopped."""
    return await node("follow.mjs", url, *fast)


def texts(events: list[tuple[str, str, str]]) -> list[str]:
    return [json.loads(data)["delta_content"] for _, kind, data in events if kind == "message"]


async def test_event_source_sees_each_event_once_and_is_stopped_by_204(host: Host) -> None:
    where, wire = await host.finished(TEXTS)
    said = await event_source(str(host.http.base_url.join(where)))
    seen = [(line["id"], line["kind"], line["data"]) for line in said if "kind" in line]
    assert seen == triples(wire)
    assert texts(seen) == TEXTS
    assert [line for line in said if "kind" not in line] == [{"open": True}, {"closed": 204}]


@pytest.mark.slow
async def test_event_source_resumes_through_the_servers_rotation(rotating: Host, model: ModelServer) -> None:
    where = await rotating.start(SLOW, gate="rotated", gate_at=2, pace=0.05)
    async with talking("follow.mjs", str(rotating.http.base_url.join(where))) as talk:
        await talk.until(lambda said: said.count({"open": True}) > 1)
        model.open_gate("rotated")
        said = await talk.end()
    seen = [(line["id"], line["kind"], line["data"]) for line in said if "kind" in line]
    assert seen == triples(Wire(await rotating.log(where)))
    assert texts(seen) == SLOW
    assert said[-1] == {"closed": 204}


async def test_rotation_closes_cleanly_and_the_connections_joined_are_the_log(
    rotating: Host, model: ModelServer
) -> None:
    where = await rotating.start(SLOW, gate="rotates", gate_at=2, pace=0.05)
    frames, cursor, connections = b"", "", 0
    while True:
        answer = await rotating.http.get(where, headers={**EVENTS, "last-event-id": cursor})
        if answer.status_code == 204:
            break
        wire = Wire(answer.content)  # whole frames, in a body that was ended and not cut
        assert wire.kinds.count("retry") == (1 if wire.ids else 0)
        frames, cursor = frames + wire.frames, wire.ids[-1] if wire.ids else cursor
        connections += 1
        if connections > 2:
            model.open_gate("rotates")
    assert frames == await rotating.log(where)


async def test_httpx_sse_sees_each_event_once(host: Host) -> None:
    async with aconnect_sse(host.http, "POST", "/stream", json={"user": script(TEXTS)}) as source:
        seen = [event async for event in source.aiter_sse()]
    wire = Wire(await host.log(source.response.headers["location"]))
    assert [(event.id, event.event, event.data) for event in seen] == triples(wire)
    assert 500 <= (seen[0].retry or 0) <= 2000
    assert {event.retry for event in seen[1:]} == {None}


async def test_httpx_sse_resumes_through_the_servers_rotation(rotating: Host) -> None:
    """Its reconnecting is its user's: the last id goes into the next request, until 204."""
    where, cursor, seen = await rotating.start(SLOW, pace=0.05), "", []
    while True:
        headers = {"last-event-id": cursor} if cursor else {}
        async with aconnect_sse(rotating.http, "GET", where, headers=headers) as source:
            if source.response.status_code == httpx.codes.NO_CONTENT:
                break
            async for event in source.aiter_sse():
                cursor = event.id
                seen.append((event.id, event.event, event.data))
    assert seen == triples(Wire(await rotating.log(where)))


Triples = list[tuple[str, str, str]]


async def by_event_source(url: str, host: Host) -> tuple[str, Triples]:
    """A stream's location and events, as npm's `eventsource` has seen them at `url`."""
    where = await host.start(SLOW, pace=0.005)
    said = await event_source(url + where, "fast")
    return where, [(line["id"], line["kind"], line["data"]) for line in said if "kind" in line]


async def by_fetch_event_source(url: str, host: Host) -> tuple[str, Triples]:
    where = await host.start(SLOW, pace=0.005)
    said = await node("fetch_event_source.mjs", url + where)
    return where, [(line["id"], line["kind"], line["data"]) for line in said if "kind" in line]


async def by_fetch_event_source_posting(url: str, host: Host) -> tuple[str, Triples]:
    body = json.dumps({"user": script(SLOW, pace=0.005)})
    said = await node("fetch_event_source.mjs", f"{url}/stream", body)
    [stream_id] = {line["stream"] for line in said if "open" in line}
    return f"/stream/{stream_id}", [
        (line["id"], line["kind"], line["data"]) for line in said if "kind" in line
    ]


async def by_httpx_sse(url: str, host: Host) -> tuple[str, Triples]:
    where, cursor = await host.start(SLOW, pace=0.005), ""
    seen: Triples = []
    async with httpx.AsyncClient(base_url=url) as http:
        while not (seen and seen[-1][1] == "done"):
            headers = {"last-event-id": cursor} if cursor else {}
            try:
                async with aconnect_sse(http, "GET", where, headers=headers) as source:
                    async for event in source.aiter_sse():
                        cursor = event.id
                        seen.append((event.id, event.event, event.data))
            except httpx.TransportError:
                continue  # cut; the cuts are counted
    return where, seen


@pytest.mark.parametrize(
    "client", [by_event_source, by_fetch_event_source, by_fetch_event_source_posting, by_httpx_sse]
)
async def test_through_cuts_at_random_bytes_to_the_exact_text(
    host: Host, client: Callable[[str, Host], Awaitable[tuple[str, Triples]]]
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    bounds = [0, rng.randrange(1, 200), *(rng.randrange(400, 800) for _ in range(10))]
    before = len(host.model.requests)
    async with Cutter(str(host.http.base_url).rstrip("/"), bounds) as cutter:
        where, seen = await client(cutter.url, host)
    assert cutter.cuts >= 5
    assert texts(seen) == SLOW
    assert seen == triples(Wire(await host.log(where)))
    assert len(host.model.requests) == before + 1


async def test_curl_prints_the_log_behind_one_retry_line(host: Host) -> None:
    where, _ = await host.finished(TEXTS)
    printed = await run("curl", "-sSN", str(host.http.base_url.join(where)))
    retry, frames = printed.split(b"\n", 1)
    assert re.fullmatch(rb"retry: [0-9]+", retry)
    assert frames == await host.log(where)


async def test_curl_as_in_the_readme_starts_and_follows(host: Host) -> None:
    url = str(host.http.base_url.join("/stream"))
    body = json.dumps({"user": script(["a", "b"])})
    asks = ["-H", "Accept: text/event-stream", "-H", "Content-Type: application/json", "-d", body]
    wire = Wire(await run("curl", "-sSN", url, *asks))
    assert texts(triples(wire)) == ["a", "b"]
    assert wire.events[-1] == "done"


async def test_http_1_0_is_answered_until_the_close(host: Host) -> None:
    where, wire = await host.finished(["a"])
    printed = await run("curl", "-sSN", "--http1.0", str(host.http.base_url.join(where)))
    assert Wire(printed).frames == wire.frames
