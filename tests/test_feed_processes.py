"""One process's feed for streams that other processes start and run.

Also the error of a spent budget, in each format.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from gateway.client import Gateway
from tests.callers import ALICE, BOB, by_key, keys_file
from tests.hosts import until
from tests.support.model_server import ModelServer, script
from tests.support.processes import GatewayProcess
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.slow
BOUND_SECONDS = 60


@pytest.fixture
async def settings(tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    keys = tmp_path / "keys"
    keys.write_text(keys_file((ALICE, "alice"), (BOB, "bob")))
    async with ModelServer() as model, RedisServer() as store:
        keyed = {"GATEWAY_AUTH": "keys", "GATEWAY_KEYS_FILE": str(keys)}
        yield {"REDIS_URL": store.url, "GATEWAY_TOKEN_KEYS": "k" * 32, **keyed, **model.environment()}


async def test_one_process_tells_of_what_others_start_run_and_end(settings: dict[str, str]) -> None:
    async with asyncio.timeout(BOUND_SECONDS), AsyncExitStack() as stack:
        tells = await stack.enter_async_context(GatewayProcess("web", settings))
        starts = await stack.enter_async_context(GatewayProcess("web", settings))
        await stack.enter_async_context(GatewayProcess("worker", settings))
        reader = await stack.enter_async_context(Gateway(tells.url, key=ALICE))
        asker = await stack.enter_async_context(Gateway(starts.url, key=ALICE))
        other = await stack.enter_async_context(Gateway(starts.url, key=BOB))
        ids: list[str] = []
        seen: dict[str, list[str]] = {}

        async def follow() -> None:
            async for event in reader.feed():
                seen.setdefault(event.data["id"], []).append(event.type)
                if len(ids) == 3 and all(seen.get(one, [""])[-1] == "ended" for one in ids):
                    return

        following = asyncio.create_task(follow())
        for number in range(3):
            foreign = other.stream(user=script(["not yours"]))
            await foreign.result()
            stream = asker.stream(user=script([f"answer {number}"]))
            await stream.result()
            ids.append(stream.id)
        last = asker.stream(user=script(["so that the last end is not the last event"]))
        await last.result()
        await following
    assert [(seen[one].count("started"), seen[one].count("ended")) for one in ids] == [(1, 1)] * 3
    assert set(seen) <= {*ids, last.id}


async def test_a_budget_that_is_spent_is_told_in_the_words_of_each_format(settings: dict[str, str]) -> None:
    chat = {"role": "user", "content": "Who?"}
    part = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "Who?"}]}
    bodies = {
        "/threads/t/runs/wait": {"assistant_id": "chat", "input": {"messages": [chat]}},
        "/api/chat": {"id": "c", "trigger": "submit-message", "messages": [part]},
        "/v1/chat/completions": {"model": "chat", "messages": [chat]},
    }
    settings |= {"GATEWAY_MAX_OWNER_TOKENS_PER_DAY": "1"}
    async with asyncio.timeout(BOUND_SECONDS), GatewayProcess("all", settings) as process:
        headers = by_key(ALICE)
        async with (
            Gateway(process.url, key=ALICE) as gateway,
            httpx.AsyncClient(base_url=process.url, headers=headers, timeout=BOUND_SECONDS) as http,
        ):
            await gateway.stream(user=script(["a", "b"])).result()

            async def spent() -> int:
                return int((await http.get("/usage")).json()["day"]["total_tokens"])

            await until(spent, bool)
            for path, body in bodies.items():
                refused = await http.post(path, json=body)
                assert refused.status_code == 429, refused.text
                assert 0 < int(refused.headers["retry-after"]) <= 86_400
            shapes = {path: (await http.post(path, json=body)) for path, body in bodies.items()}
    assert "detail" in shapes["/threads/t/runs/wait"].json()
    assert shapes["/api/chat"].headers["content-type"].startswith("text/plain")
    assert "error" in json.loads(shapes["/v1/chat/completions"].text)
