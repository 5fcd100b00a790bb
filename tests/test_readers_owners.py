"""Readers' places by owner (fault 74): in the hub, and on sockets of a web process."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.protocol import ANONYMOUS
from gateway.protocol.errors import TooManyReaders
from gateway.relay.hub import Hub
from gateway.settings import Settings
from tests.callers import ALICE, BOB, CAROL, TOKEN_KEYS, by_key, keys_file
from tests.hosts import EVENTS, LIMIT_SECONDS, until, uvicorn_host
from tests.support.following import Stream, following
from tests.support.model_server import ModelServer, script
from tests.support.redis_server import RedisServer

pytest_plugins = ("tests.hosts",)
pytestmark = pytest.mark.asyncio(loop_scope="session")

MOST, MOST_OF_OWNER = 12, 4
QUESTION = "a question of who has no place"
RETRY_LINE = re.compile(rb"retry: ([0-9]+)\n")


def has_room(hub: Hub, owner: str) -> bool:
    try:
        hub.check_room(owner=owner)
    except TooManyReaders:
        return False
    return True


async def test_fault_74_an_owner_has_a_bound_over_all_its_streams(redis_url: str) -> None:
    async with following(redis_url, most=20, most_of_owner=3) as f:
        streams = [await Stream.create(f.log) for _ in range(4)]
        joined = [f.hub.join(stream.id, "key:a") for stream in streams[:3]]
        for _ in range(2):
            with pytest.raises(TooManyReaders):
                f.hub.join(streams[3].id, "key:a")
        assert not has_room(f.hub, "key:a")
        joined.append(f.hub.join(streams[0].id, "key:b"))
        f.hub.leave(*joined.pop(0))
        assert has_room(f.hub, "key:a")
        for feed, reader in joined:
            f.hub.leave(feed, reader)
        assert f.hub.readers == 0
        assert not f.hub._by_owner  # nothing is kept of who has left


@pytest.mark.parametrize("owners", [1, 2, 3, 8])
async def test_fault_74_however_few_owners_flood_there_is_a_place_for_another(
    redis_url: str, owners: int
) -> None:
    async with following(redis_url, most=40, most_of_owner=40) as f:
        stream = await Stream.create(f.log)
        for number in range(owners):
            while has_room(f.hub, f"key:{number}"):
                f.hub.join(stream.id, f"key:{number}")
        if owners < 5:  # 40 places: a half, a half of the rest, and so on
            f.hub.join(stream.id, "key:another")
        assert f.hub.readers <= 40


async def test_where_nobody_is_asked_all_callers_share_the_process_bound(redis_url: str) -> None:
    async with following(redis_url, most=6, most_of_owner=1) as f:
        streams = [await Stream.create(f.log) for _ in range(2)]
        for number in range(6):
            f.hub.join(streams[number % 2].id, ANONYMOUS)
        with pytest.raises(TooManyReaders):
            f.hub.join(streams[0].id, ANONYMOUS)


async def test_by_default_an_owner_has_half_of_a_process_and_no_less_than_one_stream() -> None:
    settings = Settings()
    assert settings.max_owner_readers * 2 == settings.max_readers
    assert settings.max_owner_readers >= settings.max_stream_readers


@asynccontextmanager
async def guarded(
    model: ModelServer, store: RedisServer, folder: Path
) -> AsyncIterator[tuple[httpx.AsyncClient, Mapping[str, Any]]]:
    (folder / "keys").write_text(keys_file((ALICE, "alice"), (BOB, "bob"), (CAROL, "carol")))
    settings = {
        "GATEWAY_AUTH": "keys",
        "GATEWAY_KEYS_FILE": str(folder / "keys"),
        "GATEWAY_TOKEN_KEYS": TOKEN_KEYS[0],
        "GATEWAY_QUEUE_NAME": "jobs-of-owners",
        "GATEWAY_MAX_READERS": str(MOST),
        "GATEWAY_MAX_OWNER_READERS": str(MOST_OF_OWNER),
    }
    limits = httpx.Limits(max_connections=50)
    async with (
        uvicorn_host(model, store.url, "all", **settings) as host,
        httpx.AsyncClient(base_url=host.http.base_url, timeout=LIMIT_SECONDS, limits=limits) as http,
    ):
        yield http, settings


async def test_fault_74_one_caller_leaves_places_for_others_with_keys_and_with_tokens(
    model: ModelServer, store: RedisServer, tmp_path: Path
) -> None:
    async with guarded(model, store, tmp_path) as (http, _), AsyncExitStack() as stack:

        async def start(key: str) -> str:
            body = {"user": script(["a", "b"], gate="owners", gate_at=1)}
            return str((await http.post("/stream", json=body, headers=by_key(key))).headers["location"])

        async def attach(where: str, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
            answer = await stack.enter_async_context(http.stream("GET", where, headers={**EVENTS, **headers}))
            chunks = answer.aiter_bytes()
            assert b"event: start" in await anext(chunks)
            return chunks

        one, two = await start(ALICE), await start(ALICE)
        token = (await http.post(f"{two}/token", headers=by_key(ALICE))).json()["stream"]
        held = [await attach(one, by_key(ALICE)) for _ in range(MOST_OF_OWNER - 1)]
        held.append(await attach(token, {}))

        for where, headers in ((one, by_key(ALICE)), (two, by_key(ALICE)), (token, {})):
            for kind in ({}, {"accept": "text/*"}):
                told = await http.get(where, headers={**headers, **kind})
                assert (told.status_code, told.json()["code"]) == (429, "too_many_readers")
            away = await http.get(where, headers={**EVENTS, **headers})  # an EventSource never gives up
            line = RETRY_LINE.fullmatch(away.content)
            assert away.status_code == 200
            assert line is not None
            assert 5000 <= int(line[1]) <= 15_000
        place = one.rpartition("/")[2]
        durable = await http.get(
            f"/durable/{place}", params={"offset": "-1", "live": "sse"}, headers=by_key(ALICE)
        )
        assert durable.status_code == 429
        posts = {
            "/stream": {"user": QUESTION},
            "/api/http_trigger": {"user": QUESTION},
            "/runs/stream": {"assistant_id": "chat", "input": {"messages": [QUESTION]}},
            "/runs/wait": {"assistant_id": "chat", "input": {"messages": [QUESTION]}},
            "/v1/chat/completions": {"model": "chat", "messages": [{"role": "user", "content": QUESTION}]},
            "/v1/responses": {"model": "chat", "input": QUESTION},
            "/agui/chat": {
                "threadId": "t",
                "runId": "r",
                "messages": [{"id": "u", "role": "user", "content": QUESTION}],
            },
            "/api/chat": {
                "id": "c",
                "messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": QUESTION}]}],
            },
        }
        for path, body in posts.items():
            told = await http.post(path, json=body, headers={**EVENTS, **by_key(ALICE)})
            assert told.status_code == 429, path
        asked = [request for request in model.requests if QUESTION in str(request["messages"])]
        assert asked == []  # nothing was started

        others = await start(BOB)
        held += [await attach(others, by_key(BOB)) for _ in range(MOST_OF_OWNER)]
        held.append(await attach(await start(CAROL), by_key(CAROL)))
        model.open_gate("owners")
        for chunks in held:
            assert b"event: done\n" in b"".join([chunk async for chunk in chunks])
        await stack.aclose()

        async def read() -> int:
            return (await http.get(one, headers={"accept": "text/*", **by_key(ALICE)})).status_code

        await until(read, lambda status: status == 200)  # the places are free again
