"""What is an owner's is so at every process: two processes of each host on one store, and two owners.

One process starts, another one lists, feeds, joins, purges, signs, counts and is asked by the command line.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from standardwebhooks.webhooks import WebhookVerificationError

from gateway.client import Gateway
from tests.callers import ALICE, BOB, CAROL, by_key, keys_file
from tests.functions_host.client import FunctionsHost
from tests.hosts import EVENTS, HOST_NAMES, JSON, LIMIT_SECONDS, Wire, functions_environment, quick_app, until
from tests.support.azurite import Azurite
from tests.support.everything import keys_with
from tests.support.model_server import ModelServer, script
from tests.support.processes import REPOSITORY, GatewayProcess
from tests.support.receiver import Receiver
from tests.support.redis_server import RedisServer

pytest_plugins = ("tests.hosts",)
pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.slow,
    pytest.mark.timeout(300),  # the first one's time includes the start of all these processes
]
PLANS = {"plans": {"small": {"tokens_per_day": 5}}, "owners": {"key:carol": "small"}}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two processes of one host: `one` and `other` ask them."""

    one: httpx.AsyncClient
    other: httpx.AsyncClient
    redis: Redis
    store_url: str

    async def start(self, key: str = ALICE, **options: Any) -> str:
        """A stream that the one process has started; its id."""
        body = {"user": script(["a", "b"]), **options}
        answer = await self.one.post("/stream", json=body, headers=by_key(key))
        assert answer.status_code == 202, answer.text
        stream_id: str = answer.json()["id"]
        return stream_id

    async def finished(self, key: str = ALICE, **options: Any) -> str:
        """Likewise, at its end."""
        stream_id = await self.start(key, **options)
        answer = await self.other.get(f"/stream/{stream_id}", headers={**EVENTS, **by_key(key)})
        assert Wire(answer.content).events[-1] == "done"
        return stream_id


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pairs(
    model: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, Pair]]:
    """By the host's name, each pair on a store of its own."""
    folder = tmp_path_factory.mktemp("pairs")
    (folder / "keys").write_text(keys_file((ALICE, "alice"), (BOB, "bob"), (CAROL, "carol")))
    (folder / "plans").write_text(json.dumps(PLANS))
    common = {
        "GATEWAY_AUTH": "keys",
        "GATEWAY_KEYS_FILE": str(folder / "keys"),
        "GATEWAY_PLANS_FILE": str(folder / "plans"),
        "GATEWAY_TOKEN_KEYS": "t" * 40,
        "GATEWAY_WEBHOOK_KEYS": "w" * 40,
        "GATEWAY_WEBHOOK_LOOPBACK": "yes",
    }
    async with AsyncExitStack() as stack:
        enter, made = stack.enter_async_context, {}
        for name in HOST_NAMES:
            store = await enter(RedisServer())
            if name == "uvicorn":
                environment = {**model.environment(), "REDIS_URL": store.url, **common}
                processes = [await enter(GatewayProcess("all", environment)) for _ in range(2)]
                urls = [process.url for process in processes]
            else:
                connection = (await enter(Azurite())).connection
                environment = {**functions_environment(store.url, model, connection), **common}
                app = quick_app(folder, "00:00:00.5")
                hosts = [FunctionsHost(app, environment, listen=True, eager=True) for _ in range(2)]
                urls = [(await enter(host)).url for host in hosts]
            one, other = [await enter(httpx.AsyncClient(base_url=url, timeout=LIMIT_SECONDS)) for url in urls]
            made[name] = Pair(one, other, await enter(Redis.from_url(store.url)), store.url)
        yield made


@pytest.fixture(params=HOST_NAMES)
def pair(request: pytest.FixtureRequest, pairs: dict[str, Pair]) -> Pair:
    """Each in turn."""
    name: str = request.param
    return pairs[name]


async def listed(http: httpx.AsyncClient, key: str) -> set[str]:
    answer = await http.get("/streams?limit=100", headers=by_key(key))
    return {row["id"] for row in answer.json()["streams"]}


async def test_the_list(pair: Pair) -> None:
    made, theirs = {await pair.finished() for _ in range(3)}, await pair.start(BOB)
    assert made <= await listed(pair.other, ALICE)
    assert theirs not in await listed(pair.other, ALICE)
    assert theirs in await listed(pair.other, BOB)
    assert not made & await listed(pair.other, BOB)


async def test_the_feed(pair: Pair) -> None:
    async with Gateway(str(pair.other.base_url), key=ALICE) as gateway:
        feed, seen = gateway.feed(), []
        theirs = await pair.finished(BOB)
        first = await pair.start()
        async for event in feed:
            seen.append((event.type, event.data["id"]))
            if ("ended", first) in seen:
                break
        await feed.aclose()
    assert seen.count(("ended", first)) == 1
    assert seen.count(("started", first)) <= 1  # it may have ended before the feed began
    assert theirs not in {stream_id for _, stream_id in seen}


async def test_several_on_one_connection(pair: Pair) -> None:
    made = [await pair.start() for _ in range(20)]
    async with Gateway(str(pair.other.base_url), key=ALICE) as gateway:
        texts = dict.fromkeys(made, "")
        async for stream_id, event in gateway.follow_many(made):
            texts[stream_id] += event.text
    assert set(texts.values()) == {"ab"}
    query = "&".join(f"id={one}" for one in made)
    denied = await pair.other.get(f"/streams/events?{query}", headers=by_key(BOB))
    assert denied.status_code == 404


async def test_a_purge(pair: Pair, model: ModelServer) -> None:
    words = f"purged{uuid.uuid4().hex}"
    gate = f"two processes {words}"
    stream_id = await pair.start(
        user=script([words, "never"], canary=words, gate=gate, gate_at=1), metadata={"about": words}
    )
    where = f"/stream/{stream_id}"

    async def text() -> str:
        told = await pair.other.get(where, headers={**JSON, **by_key(ALICE)})
        return told.json()["text"] or ""

    await until(text, lambda told: words in told)
    denied = await pair.other.delete(f"{where}?purge=true", headers=by_key(BOB))
    assert denied.status_code == 404
    purged = await pair.other.delete(f"{where}?purge=true", headers=by_key(ALICE))
    assert purged.status_code == 204
    model.open_gate(gate)
    assert (await pair.one.get(where, headers={**JSON, **by_key(ALICE)})).status_code == 404

    async def left() -> set[str]:
        named = {key for key in await keys_with(pair.redis, stream_id) if not key.endswith(":starts")}
        return named | await keys_with(pair.redis, words)

    await until(left, lambda keys: not keys)  # the worker, too, has let go of it


async def test_a_webhook(pair: Pair) -> None:
    async with Receiver() as receiver:
        webhooks = {key: {"url": receiver.url(f"/{name}")} for name, key in (("a", ALICE), ("b", BOB))}
        made = {key: await pair.start(key, webhook=webhook) for key, webhook in webhooks.items()}
        await receiver.until(lambda: receiver.of("/a") and receiver.of("/b"))
        secrets = {
            key: (await pair.other.get("/webhooks/secret", headers=by_key(key))).json()["secret"]
            for key in made
        }
        told = receiver.of("/a")[0].verified(secrets[ALICE])
        assert (told["type"], told["data"]["id"]) == ("stream.done", made[ALICE])
        assert receiver.of("/b")[0].verified(secrets[BOB])["data"]["id"] == made[BOB]
        with pytest.raises(WebhookVerificationError):
            receiver.of("/a")[0].verified(secrets[BOB])
        assert len({one.id for one in receiver.received}) == 2


async def test_a_budget(pair: Pair) -> None:
    await pair.finished(CAROL)

    async def spent() -> int:
        told = await pair.other.get("/usage", headers=by_key(CAROL))
        assert told.json()["day"]["limit"] == 5
        return int(told.json()["day"]["total_tokens"])

    await until(spent, lambda total: total >= 5)
    for http in (pair.one, pair.other):
        refused = await http.post("/stream", json={"user": "more"}, headers=by_key(CAROL))
        assert (refused.status_code, refused.json()["code"]) == (429, "over_quota")
        assert 0 < int(refused.headers["retry-after"]) <= 86_400
        usage = await http.get("/usage", headers=by_key(BOB))
        assert usage.json()["day"]["limit"] is None
    assert await pair.finished(BOB)


async def test_tokens(pair: Pair) -> None:
    stream_id = await pair.finished()
    given = await pair.one.post(f"/stream/{stream_id}/token", headers=by_key(ALICE))
    url = f"/stream/{stream_id}?token={given.json()['token']}"
    assert (await pair.other.get(url, headers=EVENTS)).status_code == 200
    theirs = await pair.other.delete(f"/stream/{stream_id}/token", headers=by_key(BOB))
    assert theirs.status_code == 404
    ended = await pair.other.delete(f"/stream/{stream_id}/token", headers=by_key(ALICE))
    assert ended.status_code == 204
    for http in (pair.one, pair.other):
        assert (await http.get(url, headers=EVENTS)).status_code == 401


async def command(environment: dict[str, str], *words: str) -> tuple[int, str]:
    """The exit code and what it prints, with nothing of this process's settings."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *words),
        cwd=REPOSITORY,
        env=inherited | environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_the_command_line(pair: Pair) -> None:
    alice = {"GATEWAY_URL": str(pair.other.base_url), "GATEWAY_KEY": ALICE}
    stream_id = await pair.finished()
    code, out = await command(alice, "follow", "--json", stream_id)
    assert code == 0
    assert [json.loads(line)["type"] for line in out.splitlines()][-1] == "done"
    code, _ = await command(alice | {"GATEWAY_KEY": BOB}, "follow", stream_id)
    assert code != 0
    code, out = await command(alice, "ask", "--json", script(["asked"]))
    assert code == 0
    store = {"REDIS_URL": pair.store_url}
    code, out = await command(store, "usage", "--json")
    assert (code, "key:alice" in {one["owner"] for one in json.loads(out)["owners"]}) == (0, True)
    theirs = await pair.finished(BOB)
    code, out = await command(store, "purge", "--owner", "key:alice")
    assert (code, out.startswith("deleted: ")) == (0, True)
    assert await listed(pair.one, ALICE) == set()
    assert theirs in await listed(pair.one, BOB)
