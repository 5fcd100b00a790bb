"""POST /stream, on both hosts (`docs/protocol.md`, POST /stream)."""

import asyncio
import json
import re
from datetime import datetime
from typing import Any

import httpx
import pytest

from gateway.store.log import Log
from gateway.store.record import Record
from tests.hosts import EVENTS, Host, Wire
from tests.support.model_server import script

pytest_plugins = ("tests.hosts",)
pytestmark = pytest.mark.asyncio(loop_scope="session")

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def key(name: str) -> dict[str, str]:
    return {"idempotency-key": name}


async def last_job(host: Host) -> dict[str, Any]:
    job: dict[str, Any] = json.loads(await host.last_message())
    return job


async def record(host: Host, stream_id: str) -> Record:
    raw: Any = await host.redis.hgetall(Log.keys(stream_id)[0])
    return Record.of(stream_id, {name.decode(): value for name, value in raw.items()})


async def asked(host: Host, body: dict[str, Any]) -> Any:
    """Return the messages that the model received for this body."""
    before = len(host.model.requests)
    answer = await host.http.post("/stream", json=body, headers=EVENTS)
    assert Wire(answer.content).events[-1] == "done", answer.text
    [request] = host.model.requests[before:]
    return request["messages"]


async def test_202_says_where_the_stream_is(host: Host) -> None:
    answer = await host.http.post("/stream", json={"user": script(["a"])})
    body = answer.json()
    assert answer.status_code == 202
    assert answer.headers["content-type"] == "application/json"
    assert list(body) == ["id", "status", "chain", "stream", "created_at"]
    assert re.fullmatch(r"[A-Za-z0-9_-]{24}", body["id"])
    assert (body["status"], body["chain"]) == ("queued", "chat")
    assert answer.headers["location"] == body["stream"] == f"/stream/{body['id']}"
    assert datetime.fromisoformat(body["created_at"]).tzinfo is not None
    await host.read(body["stream"])


async def test_the_job_is_in_the_queue_when_202_is_sent(host: Host) -> None:
    _, before = await host.stored()
    where = await host.start(["a", "b"], gate="queued", gate_at=1)
    _, after = await host.stored()
    assert after == before + 1
    assert await last_job(host) == {"v": 1, "id": where.rpartition("/")[2], "traceparent": ""}
    host.model.open_gate("queued")
    await host.read(where)


async def test_user_is_one_user_message(host: Host) -> None:
    assert await asked(host, {"user": "Who are you?"}) == [{"role": "user", "content": "Who are you?"}]


async def test_messages_is_a_conversation(host: Host) -> None:
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "Me."},
        {"role": "user", "content": [{"type": "text", "text": "And \u2028 I?"}]},
    ]
    assert await asked(host, {"messages": talk}) == talk


async def test_input_is_the_chains_own(host: Host) -> None:
    assert await asked(host, {"input": "Who?", "chain": "chat"}) == [{"role": "user", "content": "Who?"}]


@pytest.mark.parametrize("given", [None, 0, 1.5, "", [], {"a": [1, {"b": None}]}, 2**70, "\ud800\0\r\n"])
async def test_any_json_reaches_the_chain_with_its_params(host: Host, given: Any) -> None:
    params = {"tone": "dry", "depth": [1, 2]}
    answer = await host.http.post(
        "/stream",
        content=json.dumps({"input": given, "chain": "mirror", "params": params}),
        headers={**EVENTS, "content-type": "application/json; charset=utf-8"},
    )
    wire = Wire(answer.content)
    [text] = [json.loads(d) for d, e in zip(wire.data, wire.events, strict=True) if e == "message"]
    seen, configurable = json.loads(text["delta_content"])
    assert seen == given
    assert params.items() <= configurable.items()


async def test_metadata_is_echoed_in_the_status(host: Host) -> None:
    metadata = {"ticket": 7, "data: x\n\n": "\ud800 \u2028 \0"}
    body = json.dumps({"user": script([]), "metadata": metadata})
    answer = await host.http.post("/stream", content=body, headers={"content-type": "application/json"})
    assert (await host.status(answer.headers["location"]))["metadata"] == metadata
    wire = await host.read(answer.headers["location"])
    assert wire.events == ["start", "stage", "stage", "done"]


async def test_event_stream_starts_and_follows_in_one_request(host: Host) -> None:
    answer = await host.http.post("/stream", json={"user": script(["a", "b"])}, headers=EVENTS)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream"
    where = answer.headers["location"]
    assert where == f"/stream/{answer.headers['x-stream-id']}"
    wire = Wire(answer.content)
    assert wire.frames == await host.log(where)
    assert wire.events == ["start", "stage", "message", "message", "stage", "done"]
    assert (await host.read(where, wire.ids[2])).ids == wire.ids[3:]


async def test_fault_25_one_key_a_hundred_times_at_once_is_one_stream(host: Host) -> None:
    body = {"user": script(["once", host.name]), "metadata": {"a": 1, "b": 2}}
    before = len(host.model.requests)
    _, queued = await host.stored()
    posts = [host.http.post("/stream", json=body, headers=key(f"k-{host.name}")) for _ in range(100)]
    answers = await asyncio.gather(*posts)
    assert {answer.status_code for answer in answers} == {202}
    assert len({(answer.text, answer.headers["location"]) for answer in answers}) == 1
    assert (await host.read(answers[0].headers["location"])).events[-1] == "done"
    # A message that was queued a second time during the first POST finds the stream ended or claimed.
    assert (await host.stored())[1] > queued
    assert len(host.model.requests) == before + 1
    later = await host.http.post("/stream", json=body, headers=key(f"k-{host.name}"))
    assert later.text == answers[0].text


async def test_fault_25_the_key_with_another_body_is_422(host: Host) -> None:
    first = await host.http.post("/stream", json={"user": script(["1"])}, headers=key(f"b-{host.name}"))
    kept = await host.read(first.headers["location"])
    answer = await host.http.post("/stream", json={"user": script(["2"])}, headers=key(f"b-{host.name}"))
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert await host.log(first.headers["location"]) == kept.frames


async def test_the_same_body_spelled_otherwise_is_the_same_body(host: Host) -> None:
    headers = {**key(f"s-{host.name}"), "content-type": "application/json"}
    one = b'{"user": "\xc3\xa4", "params": {"a": 1, "b": 2}}'
    two = b'{"params":{"b":2,"a":1},"user":"\\u00e4","chain":"chat"}'
    posts = [await host.http.post("/stream", content=body, headers=headers) for body in (one, two)]
    assert posts[0].json() == posts[1].json()
    await host.read(posts[0].headers["location"])


@pytest.mark.parametrize("value", ["! ~", "x" * 255])
async def test_a_key_is_printable_ascii(host: Host, value: str) -> None:
    posts = [await host.http.post("/stream", json={"user": script([])}, headers=key(value)) for _ in range(2)]
    assert posts[0].status_code == 202
    assert posts[0].json() == posts[1].json()
    await host.read(posts[0].headers["location"])


@pytest.mark.parametrize("value", [b"", b"x" * 256, b"\xc3\xa4", b"tab\there"])
async def test_any_other_key_is_422(host: Host, value: bytes) -> None:
    answer = await host.http.post(
        "/stream", json={"user": "x"}, headers=httpx.Headers([(b"idempotency-key", value)])
    )
    assert (answer.status_code, answer.json()["field"]) == (422, "Idempotency-Key")


async def test_without_a_key_each_post_is_a_stream_of_its_own(host: Host) -> None:
    places = [await host.start([]) for _ in range(3)]
    assert len(set(places)) == 3
    for where in places:
        await host.read(where)


async def test_a_post_repeated_with_its_key_and_last_event_id_resumes(host: Host) -> None:
    body = {"user": script(["a", "b", "c"])}
    headers = {**EVENTS, **key(f"r-{host.name}")}
    whole = Wire((await host.http.post("/stream", json=body, headers=headers)).content)
    cut = {"last-event-id": whole.ids[3]}
    again = await host.http.post("/stream", json=body, headers=headers | cut)
    assert Wire(again.content).ids == whole.ids[4:]
    ended = await host.http.post("/stream", json=body, headers=headers | {"last-event-id": whole.ids[-1]})
    assert (ended.status_code, ended.content) == (204, b"")


@pytest.mark.parametrize(("sent", "carried"), [(TRACE, TRACE), ("not-a-trace", ""), (TRACE + "\u00df", "")])
async def test_traceparent_is_carried_to_the_worker(host: Host, sent: str, carried: str) -> None:
    gate = f"trace-{sent}-{host.name}"
    answer = await host.http.post(
        "/stream",
        json={"user": script(["a"], gate=gate)},
        headers=httpx.Headers([(b"traceparent", sent.encode())]),
    )
    stream_id = answer.json()["id"]
    assert (await record(host, stream_id)).trace == carried
    assert (await last_job(host))["traceparent"] == carried
    host.model.open_gate(gate)
    await host.read(answer.headers["location"])


async def test_a_stream_begun_on_one_host_is_followed_on_the_other(hosts: dict[str, Host]) -> None:
    places = {name: await host.start([name]) for name, host in hosts.items()}
    for where in places.values():
        seen = [(await host.read(where)).frames for host in hosts.values()]
        assert set(seen) == {await hosts["uvicorn"].log(where)}
