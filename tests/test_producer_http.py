"""Producers by HTTP: write tokens, positions, take-overs, ends; each line once, whatever is sent again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from gateway.hosts.asgi import app
from gateway.protocol.errors import StoreUnavailable
from gateway.settings import Settings
from gateway.store.log import Log
from gateway.streams.service import Gateway
from tests.support.jobs import eventually
from tests.support.producing import fold, messages, producer, raising, told
from workers.delivery.sweeper import Sweeper

LINES = {"content-type": "application/x-ndjson"}


def begun(stage: str) -> dict[str, Any]:
    return {"type": "stage", "name": stage, "state": "started"}


def ended(stage: str, **result: Any) -> dict[str, Any]:
    return {"type": "stage", "name": stage, "state": "finished", **result}


def text(stage: str, said: str) -> dict[str, Any]:
    return {"type": "text", "stage": stage, "text": said}


def tool(call_id: str, state: str, **told: Any) -> dict[str, Any]:
    return {"type": "tool", "stage": "c", "name": "search", "call_id": call_id, "state": state, **told}


def body_of(lines: tuple[dict[str, Any], ...]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@dataclass
class Client:
    """A producer as another language has it: it knows its token, and how many lines it has sent."""

    http: httpx.AsyncClient
    opened: dict[str, Any]
    sent: int = 0
    token: str = field(init=False)

    def __post_init__(self) -> None:
        self.id, self.token = self.opened["id"], self.opened["write_token"]

    async def ask(
        self, *lines: dict[str, Any], position: int | None = None, raw: bytes = b""
    ) -> httpx.Response:
        return await self.http.post(
            f"/stream/{self.id}/events",
            params={"position": self.sent if position is None else position},
            content=raw or body_of(lines),
            headers={**LINES, "x-write-token": self.token},
        )

    async def send(self, *lines: dict[str, Any]) -> str:
        """Send these; the stream's status."""
        answer = await self.ask(*lines)
        assert answer.status_code == 200, answer.text
        self.sent += len(lines)
        assert answer.json()["position"] == self.sent
        status: str = answer.json()["status"]
        return status


@dataclass
class Web:
    """A gateway in this process."""

    gateway: Gateway
    http: httpx.AsyncClient

    async def open(self, key: str = "", **given: Any) -> Client:
        headers = {"idempotency-key": key} if key else {}
        answer = await self.http.post(
            "/stream", json={"producer": True, "chain": "c", **given}, headers=headers
        )
        assert answer.status_code == 201, answer.text
        assert answer.headers["location"] == answer.json()["stream"] == f"/stream/{answer.json()['id']}"
        return Client(self.http, answer.json())


@pytest.fixture
async def web(redis_url: str) -> AsyncIterator[Web]:
    async with served(redis_url) as made:
        yield made


@asynccontextmanager
async def served(redis_url: str, **settings: Any) -> AsyncIterator[Web]:
    gateway = Gateway(replace(Settings(redis_url=redis_url), **settings), {"chat": ["chat"]})
    transport = httpx.ASGITransport(app(gateway))
    async with httpx.AsyncClient(base_url="http://localhost", transport=transport) as http:
        yield Web(gateway, http)
    await gateway.close()


async def test_lines_become_the_events_that_readers_get(web: Web, redis: Redis) -> None:
    client = await web.open(stages=["a", "c"], metadata={"ticket": 7})
    assert client.opened == {
        **{name: client.opened[name] for name in ("id", "created_at", "write_token", "stream")},
        "status": "running",
        "chain": "c",
        "position": 0,
        "stages": [
            {"name": "a", "state": "open", "result": None},
            {"name": "c", "state": "open", "result": None},
        ],
    }
    assert await client.send() == "running"
    assert await client.send(begun("a"), text("a", "Hel"), text("a", "lo"), ended("a")) == "running"
    assert await client.send(begun("c"), tool("c1", "started", input={"q": 1})) == "running"
    assert await client.send(tool("c1", "finished", output=["x"]), tool("c2", "failed")) == "running"
    custom = {"type": "custom", "stage": "c", "name": "note", "data": {"a": [1]}}
    assert await client.send(custom, ended("c", result={"n": 1})) == "running"
    assert await client.send({"type": "done", "usage": {"input_tokens": 3}}) == "done"
    assert await told(redis, client.id) == [
        *(
            "start",
            "+a",
            "Hel",
            "lo",
            "-a",
            "+c",
            "c1:started",
            "c1:finished",
            "c2:failed",
            "custom",
            "-c",
            "done",
        )
    ]
    whole = await fold(redis, client.id)
    assert (whole.stages[0].text, whole.usage) == ("Hello", {"input_tokens": 3})
    status = (await web.http.get(client.opened["stream"], headers={"accept": "application/json"})).json()
    assert (status["status"], status["metadata"], status["attempt"]) == ("done", {"ticket": 7}, 1)


async def test_a_stage_that_stands_in_process_and_by_http_is_the_same(
    web: Web, redis_url: str, redis: Redis
) -> None:
    async with producer(redis_url) as made:
        stream = await made.open(chain="c", stages=("a", "c"), key="k")
        async with stream.write("a") as out:
            await out.text("x")
        with raising(ZeroDivisionError):
            async with stream.write("c") as out:
                await out.text("y")
                raise ZeroDivisionError
        client = await web.open("k", stages=["a", "c"])
        assert client.id == stream.id
        assert client.opened["stages"] == [
            {"name": "a", "state": "finished", "result": "x"},
            {"name": "c", "state": "open", "result": None},
        ]
        await client.send(begun("c"), text("c", "y"))
        assert await told(redis, stream.id) == ["start", "+a", "x", "-a", "+c", "y"]
        await client.send(text("c", "z"), ended("c"))
        again = await made.open(chain="c", stages=("a", "c"), key="k")
        async with again.write("c") as out:
            assert (out.finished, out.result) == (True, "yz")
        await again.done()
        answer = await client.ask(text("c", "late"))
        assert (answer.status_code, answer.json()["code"]) == (409, "stream_ended")


@pytest.mark.parametrize("together", [1, 2, 3, 7])
async def test_a_take_over_says_it_again_without_a_seam(web: Web, redis: Redis, together: int) -> None:
    said = [
        *(begun("c"), text("c", "a"), tool("ID", "started", input=1), text("c", "b")),
        *(tool("ID", "finished", output=2), text("c", "d"), ended("c")),
    ]

    def named(call_id: str) -> list[dict[str, Any]]:
        return [{**line, "call_id": call_id} if "call_id" in line else line for line in said]

    first = await web.open("k")
    await first.send(*named("one")[:4])
    second = await web.open("k")
    assert (second.id, second.token == first.token) == (first.id, False)
    answer = await first.ask(text("c", "c"))
    assert (answer.status_code, answer.json()["code"]) == (409, "stream_taken")
    lines = named("two")
    for at in range(0, len(lines), together):
        await second.send(*lines[at : at + together])
    assert await second.send({"type": "done"}) == "done"
    assert await told(redis, first.id) == [
        *("start", "+c", "a", "one:started", "b", "one:finished", "d", "-c", "done")
    ]


@pytest.mark.parametrize("together", [1, 3])
async def test_another_answer_costs_one_reset(web: Web, redis: Redis, together: int) -> None:
    first = await web.open("k")
    await first.send(begun("c"), text("c", "a"), tool("x", "started", input=1), text("c", "b"))
    second = await web.open("k")
    lines = [begun("c"), text("c", "a"), tool("y", "started", input=1), text("c", "B"), ended("c")]
    for at in range(0, len(lines), together):
        await second.send(*lines[at : at + together])
    assert await told(redis, first.id) == [
        *("start", "+c", "a", "x:started", "b", "reset", "a", "y:started", "B", "-c")
    ]
    third = await web.open("k")
    assert third.opened["stages"] == [{"name": "c", "state": "finished", "result": "aB"}]
    await third.send(begun("c"), text("c", "dropped"), ended("c"))  # lines of a finished stage are dropped
    await third.send({"type": "failed", "code": "no_paper"})
    assert (await told(redis, first.id))[-2:] == ["-c", "failed"]


async def test_what_is_sent_again_is_counted_once(web: Web, redis: Redis) -> None:
    client = await web.open()
    lines = (begun("c"), text("c", "a"), text("c", "b"))
    for _ in range(3):
        answer = await client.ask(*lines, position=0)
        assert (answer.status_code, answer.json()) == (200, {"position": 3, "status": "running"})
    answer = await client.ask(*lines, text("c", "c"), position=0)  # the same again, and one more
    assert answer.json() == {"position": 4, "status": "running"}
    answer = await client.ask(text("c", "e"), position=5)
    assert (answer.status_code, answer.json()["code"], answer.json()["position"]) == (
        409,
        "wrong_position",
        4,
    )
    whole = (*lines, text("c", "c"), ended("c"), {"type": "done"})
    for position in (4, 0, 5):
        answer = await client.ask(*whole[position:], position=position)
        assert answer.json() == {"position": 6, "status": "done"}, answer.text
    assert await told(redis, client.id) == ["start", "+c", "a", "b", "c", "-c", "done"]
    for late in ((), (text("c", "x"),), ({"type": "failed", "code": "x"},)):
        answer = await client.ask(*late, position=6)
        assert (answer.status_code, answer.json()["code"]) == (409, "stream_ended")
        assert answer.json()["stream_status"] == "done"


@pytest.mark.parametrize("attempt", [1, 2])
async def test_many_at_once_count_each_line_once(web: Web, redis: Redis, attempt: int) -> None:
    lines = [begun("c"), *(text("c", f"{number} ") for number in range(12))]
    if attempt == 2:
        await (await web.open("k")).send(*lines)
    client = await web.open("k")
    asked = [client.ask(*lines[:size], position=0) for size in range(1, len(lines) + 1)]
    answers = await asyncio.gather(*asked, *(client.ask(*lines, position=0) for _ in range(4)))
    assert {answer.status_code for answer in answers} <= {200, 503}
    for answer in answers[-4:]:
        assert answer.status_code == 503 or answer.json()["position"] == len(lines)
    assert (await client.ask(*lines, position=0)).json()["position"] == len(lines)
    assert await told(redis, client.id) == ["start", "+c", *(f"{number} " for number in range(12))]


async def test_an_end_again_by_a_take_over_is_no_error(web: Web) -> None:
    first = await web.open("k")
    await first.send({"type": "done"})
    second = await web.open("k")
    assert second.opened["status"] == "done"
    assert (await second.ask({"type": "done"})).json() == {"position": 1, "status": "done"}
    answer = await second.ask(begun("c"))
    assert (answer.status_code, answer.json()["stream_status"]) == (409, "done")


async def test_a_cancel_is_told_at_the_next_request(web: Web, redis: Redis) -> None:
    client = await web.open()
    await client.send(begun("c"))
    await web.http.delete(client.opened["stream"])
    for lines in ((), (text("c", "a"),)):
        answer = await client.ask(*lines)
        assert (answer.status_code, answer.json()["code"]) == (409, "stream_ended")
        assert answer.json()["stream_status"] == "cancelled"
    assert await told(redis, client.id) == ["start", "+c", "cancelled"]


async def test_only_its_own_write_token_writes(web: Web, redis: Redis) -> None:
    client, other = await web.open(), await web.open()
    chat = await web.http.post("/stream", json={"user": "x"})
    token = client.token
    before = await told(redis, client.id)
    wrong = [other.token, "", "x", token[:-1], token[:-1] + ("A" if token[-1] != "A" else "B"), token.upper()]
    for shown in wrong:
        headers = {**LINES, "x-write-token": shown, "authorization": "Bearer x"}
        answer = await web.http.post(f"/stream/{client.id}/events?position=0", content=b"", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    for path in (chat.headers["location"], "/stream/" + "00" + "A" * 22, "/stream/x"):
        answer = await web.http.post(f"{path}/events?position=0", headers={**LINES, "x-write-token": token})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert await told(redis, client.id) == before
    for shown in (client.opened["stream"], "/openapi.json"):
        told_by = await web.http.get(shown, headers={"accept": "application/json"})
        assert token not in told_by.text
        assert token[:32] not in told_by.text


WRONG: list[tuple[bytes, str]] = [
    (b"x", "line 1"),
    (b"\n", "line 1"),
    (b'{"type":"text"}\xff', "line 1"),
    (b'{"type":"start"}', "line 1: type"),
    (b"[]", "line 1: type"),
    (b'{"type":[]}', "line 1: type"),
    (body_of((begun("other"),)), "line 1: stage"),
    (body_of((text("c", "x"),)), "line 1: stage"),
    (body_of((begun("c"), begun("c"))), "line 2: stage"),
    (body_of((begun("c"), text("d", "x"))), "line 2: stage"),
    (body_of((begun("c"), {"type": "text", "stage": "c", "text": 1})), "line 2: text"),
    (body_of((begun("c"), {"type": "text", "stage": "c"})), "line 2: text"),
    (body_of((begun("c"), {**text("c", "x"), "more": 1})), "line 2: more"),
    (body_of((begun("c"), tool("", "started"))), "line 2: call_id"),
    (body_of((begun("c"), tool("x", "begun"))), "line 2: state"),
    (body_of((begun("c"), tool("x", "started", output=1))), "line 2: output"),
    (body_of((begun("c"), tool("x", "failed", input=1))), "line 2: input"),
    (body_of((begun("c"), {"type": "custom", "stage": "c", "name": "a\nb", "data": 1})), "line 2: name"),
    (body_of(({**begun("c"), "state": "over"},)), "line 1: state"),
    (body_of(({**begun("c"), "result": 1},)), "line 1: result"),
    (body_of((ended("c"),)), "line 1: name"),
    (body_of((begun("c"), {"type": "done"})), "line 2: stage"),
    (body_of(({"type": "done", "usage": {"a": "b"}},)), "line 1: usage"),
    (body_of(({"type": "done", "finish_reason": "A b"},)), "line 1: finish_reason"),
    (body_of(({"type": "done"}, begun("c"))), "line 2"),
    (body_of(({"type": "failed", "code": "A b"},)), "line 1: code"),
    (body_of(({"type": "failed", "code": "a", "message": "x" * 2001},)), "line 1: message"),
    (body_of(({"type": "failed", "code": "a", "retryable": 1},)), "line 1: retryable"),
    (body_of((begun("c"), text("c", "x" * 3000))), "line 2: event"),
    (body_of((begun("c"), ended("c", result="x" * 3000))), "line 2"),
    (b'{"type":"stage"}\n' * 60, "body"),
    (b'{"type":"custom","stage":"c","name":"n","data":' + b"[" * 40 + b"]" * 40 + b"}", "line 1: body"),
]


@pytest.mark.parametrize(("raw", "where"), WRONG, ids=[f"{where} {raw[-30:]!r}" for raw, where in WRONG])
async def test_a_bad_line_is_named_and_nothing_is_written(
    redis_url: str, redis: Redis, raw: bytes, where: str
) -> None:
    async with served(redis_url, max_event=2000, max_checkpoints=2000, max_items=50) as web:
        client = await web.open()
        before = await redis.hgetall(Log.keys(client.id)[0])
        answer = await client.ask(raw=raw)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), answer.text
        assert answer.json()["field"] == where
        assert await redis.hgetall(Log.keys(client.id)[0]) == before
        assert await told(redis, client.id) == ["start"]


async def test_how_a_request_itself_may_be_wrong(web: Web) -> None:
    client = await web.open()
    url, token = f"/stream/{client.id}/events", {"x-write-token": client.token}
    for query in ("", "?position=-1", "?position=x", "?position=1&position=1", "?position=99999999999"):
        answer = await web.http.post(url + query, headers={**LINES, **token})
        assert (answer.status_code, answer.json()["field"]) == (422, "position")
    answer = await web.http.post(f"{url}?position=0", json={}, headers=token)
    assert (answer.status_code, answer.json()["code"]) == (415, "not_ndjson")
    answer = await client.ask(raw=b"x" * 300_000)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    for given in ({"producer": False}, {"user": "x"}, {"stages": "ab"}, {"stages": ["a", "a"]}, {"chain": 7}):
        answer = await web.http.post("/stream", json={"producer": True, "chain": "c", **given})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert (await web.http.post("/stream", json={"producer": True})).json()["field"] == "chain"


async def test_a_key_that_came_with_another_request_is_refused(web: Web) -> None:
    await web.open("k")
    key = {"idempotency-key": "k"}
    for given in ({"chain": "d"}, {"chain": "c", "stages": ["x"]}, {"chain": "c", "metadata": {"a": 1}}):
        answer = await web.http.post("/stream", json={"producer": True, **given}, headers=key)
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    answer = await web.http.post("/stream", json={"user": "x"}, headers=key)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_log_past_its_bound_ends_the_stream(redis_url: str, redis: Redis) -> None:
    async with served(redis_url, max_log=3000) as web:
        client = await web.open()
        lines = (begun("c"), *(text("c", "x" * 100) for _ in range(30)))
        for _ in range(2):
            answer = await client.ask(*lines)
            assert (answer.status_code, answer.json()["stream_status"]) == (409, "failed"), answer.text
        assert await told(redis, client.id) == ["start", "failed"]
        assert json.loads((await messages(redis, client.id))[-1].data)["code"] == "too_long"


async def test_a_producer_that_falls_silent_is_told(redis_url: str, redis: Redis) -> None:
    async with served(redis_url, producer_grace=1.0) as web:
        sweeper = Sweeper(web.gateway.parts.log, web.gateway.parts.queue, backoff=0.1)
        client = await web.open()
        await client.send(begun("c"))

        async def lost() -> bool:
            await sweeper.sweep()
            return (await told(redis, client.id))[-1] == "failed"

        await eventually(lost)
        assert json.loads((await messages(redis, client.id))[-1].data)["code"] == "producer_lost"
        assert (await client.ask()).json()["stream_status"] == "failed"


async def test_an_empty_body_renews_the_lease(web: Web, redis: Redis) -> None:
    client = await web.open()
    job = Log.keys(client.id)[0]
    await redis.hset(job, "lease_end_ms", 1)
    await client.send()
    assert int(await redis.hget(job, "lease_end_ms") or 0) > 1


async def test_a_lost_answer_of_the_store_costs_nothing(web: Web, redis: Redis, monkeypatch: Any) -> None:
    client = await web.open()
    log, lost = web.gateway.parts.log, [True, True]
    append = log.append

    async def loses(*given: Any, **fields: Any) -> Any:
        answer = await append(*given, **fields)
        if lost.pop():
            raise StoreUnavailable
        return answer

    monkeypatch.setattr(log, "append", loses)
    assert (await client.ask(begun("c"), text("c", "a"))).status_code == 503
    monkeypatch.setattr(log, "append", append)
    await client.send(begun("c"), text("c", "a"))
    assert await told(redis, client.id) == ["start", "+c", "a"]
