"""Threads over HTTP, on both hosts: the strategies, the list, the state, the end; and in the clients."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from gateway.client import Gateway as Client
from gateway.client import Refused
from gateway.hosts.asgi import app
from gateway.settings import Settings
from gateway.streams.service import Gateway
from tests.hosts import EVENTS, JSON, Host
from tests.support.model_server import script
from tests.support.programs import node

pytest_plugins = ("tests.hosts",)
pytestmark = pytest.mark.asyncio(loop_scope="session")
STATE_MEMBERS = {
    *("values", "next", "tasks", "checkpoint", "metadata", "created_at"),
    *("parent_checkpoint", "interrupts"),
}


async def post(host: Host, thread: str, said: str, **more: Any) -> httpx.Response:
    return await host.http.post("/stream", json={"user": said, "thread": thread, **more})


async def turn(host: Host, thread: str, words: list[str], **more: Any) -> str:
    """A whole turn; the stream's id."""
    answer = await post(host, thread, script(words), **more)
    assert answer.status_code == 202, answer.text
    await host.read(answer.headers["location"])
    stream_id: str = answer.json()["id"]
    return stream_id


async def row(host: Host, thread: str) -> dict[str, Any]:
    rows = (await host.http.get("/threads?limit=100")).json()["threads"]
    [found] = [one for one in rows if one["thread"] == thread]
    return dict(found)


async def test_a_thread_remembers_is_listed_told_and_deleted(host: Host) -> None:
    thread = f"trip {uuid.uuid4()} ü"
    where = f"/threads/{quote(thread)}"
    first = await turn(host, thread, ["one"])
    second = await turn(host, thread, ["two"])
    roles = [one["role"] for one in host.model.requests[-1]["messages"]]
    assert roles == ["user", "assistant", "user"]
    told = await row(host, thread)
    assert (told["status"], told["chain"], told["stream"]) == ("idle", "chat", second)
    state = (await host.http.get(f"{where}/state")).json()
    assert set(state) == STATE_MEMBERS
    said = [one["content"] for one in state["values"]["messages"]]
    assert said[1::2] == ["one", "two"]
    assert [one["type"] for one in state["values"]["messages"]] == ["human", "ai"] * 2
    answer = await host.http.delete(where)
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await host.http.get(f"{where}/state")).json()["values"] == {}
    assert thread not in (await host.http.get("/threads?limit=100")).text
    for stream_id in (first, second):
        assert (await host.http.get(f"/stream/{stream_id}", headers=JSON)).status_code == 404
    left = [key async for key in host.redis.scan_iter("*") if first in str(key) or second in str(key)]
    assert left == []
    # One that is no more, or never was, holds nobody up.
    assert (await host.http.delete(where)).status_code == 204


async def test_a_busy_thread_refuses_or_does_what_is_asked(host: Host) -> None:
    thread, gate = str(uuid.uuid4()), f"threads-{host.name}"
    held = script(["a", "b"], gate=gate, gate_at=1)
    first = (await post(host, thread, held)).json()["id"]
    refused = await post(host, thread, "x")
    assert refused.status_code == 409
    assert refused.headers["content-type"] == "application/problem+json"
    assert (refused.json()["code"], refused.json()["stream"]) == ("thread_busy", first)
    assert (await row(host, thread))["status"] == "busy"
    waiting = (await post(host, thread, script(["c"]), multitask_strategy="enqueue")).json()["id"]
    assert (await host.status(f"/stream/{waiting}"))["status"] == "queued"
    out = (await post(host, thread, "never", multitask_strategy="enqueue")).json()["id"]
    assert (await host.http.delete(f"/stream/{out}")).json()["status"] == "cancelled"
    host.model.open_gate(gate)
    assert (await host.read(f"/stream/{waiting}")).events[-1] == "done"
    assert (await host.status(f"/stream/{first}"))["status"] == "done"
    held = script(["d"], gate=f"never threads {host.name}")
    displaced = (await post(host, thread, held)).json()["id"]
    last = await turn(host, thread, ["e"], multitask_strategy="interrupt")
    assert (await host.status(f"/stream/{displaced}"))["status"] == "cancelled"
    assert (await row(host, thread))["stream"] == last
    assert (await host.http.delete(f"/threads/{thread}")).status_code == 204


async def test_of_forty_posts_at_once_one_runs(host: Host) -> None:
    thread, gate = str(uuid.uuid4()), f"threads-forty-{host.name}"
    posts = (post(host, thread, script(["a"], gate=gate)) for _ in range(40))
    answers = await asyncio.gather(*posts)
    codes = [answer.status_code for answer in answers]
    assert (codes.count(202), codes.count(409)) == (1, 39)
    host.model.open_gate(gate)
    [won] = [answer for answer in answers if answer.status_code == 202]
    await host.read(won.headers["location"])
    assert (await host.http.delete(f"/threads/{thread}")).status_code == 204


async def test_the_same_key_is_the_same_stream_and_another_strategy_another_body(host: Host) -> None:
    thread, key = str(uuid.uuid4()), {"idempotency-key": str(uuid.uuid4())}
    body = {"user": script(["a"]), "thread": thread}
    one, two = [await host.http.post("/stream", json=body, headers=key) for _ in range(2)]
    assert one.json()["id"] == two.json()["id"]
    other = await host.http.post("/stream", json={**body, "multitask_strategy": "enqueue"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    await host.read(one.headers["location"])
    assert (await host.http.delete(f"/threads/{thread}")).status_code == 204


WRONG = [
    ("thread", {"thread": name}) for name in ("", "a/b", "a\n", ".", "..", "stream:x", "x" * 201, 7, "\x7f")
] + [
    ("multitask_strategy", {"thread": "t", "multitask_strategy": "later"}),
    ("multitask_strategy", {"multitask_strategy": "enqueue"}),
    ("thread", {"thread": None, "multitask_strategy": "reject"}),
    ("multitask_strategy", {"thread": "t", "multitask_strategy": None}),
    ("multitask_strategy", {"thread": "t", "multitask_strategy": ["reject"]}),
]


@pytest.mark.parametrize(("field", "given"), WRONG)
async def test_what_is_no_thread_is_refused(host: Host, field: str, given: dict[str, Any]) -> None:
    answer = await host.http.post("/stream", json={"user": "x", **given})
    assert (answer.status_code, answer.json()["field"]) == (422, field)


async def test_the_list_comes_in_pages(host: Host) -> None:
    threads = [f"page {uuid.uuid4()}" for _ in range(3)]
    for thread in threads:
        await turn(host, thread, ["a"])
    seen: list[str] = []
    where = "/threads?limit=2"
    while where:
        page = (await host.http.get(where)).json()
        assert len(page["threads"]) <= 2
        seen += [one["thread"] for one in page["threads"]]
        where = f"/threads?limit=2&next={quote(page['next'])}" if page["next"] else ""
    assert len(seen) == len(set(seen))
    assert [one for one in seen if one in threads] == threads[::-1]
    for wrong in ("limit=0", "limit=101", "limit=x", "next=x", "next="):
        assert (await host.http.get(f"/threads?{wrong}")).status_code == 422
    for thread in threads:
        assert (await host.http.delete(f"/threads/{quote(thread)}")).status_code == 204


async def test_one_name_space_with_langgraphs_threads(host: Host) -> None:
    thread = str(uuid.uuid4())
    await turn(host, thread, ["ours"])
    body = {"assistant_id": "chat", "input": {"messages": [{"type": "human", "content": script(["theirs"])}]}}
    values = (await host.http.post(f"/threads/{thread}/runs/wait", json=body)).json()
    assert [one["content"] for one in values["messages"]][1::2] == ["ours", "theirs"]
    await turn(host, thread, ["ours again"])
    asked = host.model.requests[-1]["messages"]
    assert [one["content"] for one in asked][1::2] == ["ours", "theirs"]
    told = (await host.http.get(f"/threads/{thread}")).json()
    assert (told["thread_id"], told["status"]) == (thread, "idle")
    assert (await host.http.delete(f"/threads/{thread}")).status_code == 204


async def test_langgraphs_runs_wait_in_line_and_know_what_was_said_meanwhile(host: Host) -> None:
    thread, gate = str(uuid.uuid4()), f"threads-line-{host.name}"

    async def run(words: list[str], **more: Any) -> str:
        said = {"messages": [{"type": "human", "content": script(words, **more)}]}
        body = {"assistant_id": "chat", "input": said, "multitask_strategy": "enqueue"}
        answer = await host.http.post(f"/threads/{thread}/runs", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["run_id"])

    await run(["one"], gate=gate)
    second = await run(["two"])
    host.model.open_gate(gate)
    await host.http.get(f"/threads/{thread}/runs/{second}/join", timeout=60)
    asked = [one["content"] for one in host.model.requests[-1]["messages"]]
    assert asked[1::2] == ["one"]
    assert (await host.http.delete(f"/threads/{thread}")).status_code == 204


async def test_the_clients_name_threads(host: Host) -> None:
    thread = str(uuid.uuid4())
    async with Client(str(host.http.base_url)) as client:
        assert (await client.stream(user=script(["a"]), thread=thread).result()).text == "a"
        gate = f"threads-client-{host.name}"
        await post(host, thread, script(["b"], gate=gate))
        with pytest.raises(Refused) as refused:
            await client.stream(user="x", thread=thread).result()
        assert refused.value.code == "thread_busy"
        call = {"stream": {"user": script(["c"]), "thread": thread, "multitask_strategy": "rollback"}}
        *_, end = await node("ask.mjs", str(host.http.base_url), json.dumps(call))
        assert end["result"]["text"] == "c"
    told = (await host.http.get(f"/threads/{thread}/state")).json()["values"]["messages"]
    assert [one["content"] for one in told][1::2] == ["a", "c"]
    assert (await host.http.delete(f"/threads/{thread}")).status_code == 204


async def test_where_nobody_is_asked_who_he_is_strangers_share_no_thread(host: Host) -> None:
    settings = Settings(redis_url="redis://127.0.0.1:1", auth="none", open_to_all="yes")
    gateway = Gateway(settings, {"chat": ("chat",)})
    transport = httpx.ASGITransport(app(gateway))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        answers = [
            await http.post("/stream", json={"user": "x", "thread": "t"}, headers=EVENTS),
            await http.get("/threads"),
            await http.get("/threads/t/state"),
            await http.delete("/threads/t"),
            await http.post("/threads/t/runs", json={"assistant_id": "chat", "input": {}}),
        ]
    assert [(one.status_code, one.json()["code"]) for one in answers] == [(403, "no_owner")] * 5
    await gateway.close()


async def test_an_agents_thread_is_its_graphs_state_in_both_apis(host: Host) -> None:
    thread = str(uuid.uuid4())
    first = await turn(host, thread, ["one"], chain="agent")
    said = {"messages": [{"type": "human", "content": script(["two"])}]}
    body = {"assistant_id": "agent", "input": said}
    values = (await host.http.post(f"/threads/{thread}/runs/wait", json=body)).json()
    assert [one["content"] for one in values["messages"]][1::2] == ["one", "two"]
    last = await turn(host, thread, ["three"], chain="agent")
    asked = [one for one in host.model.requests[-1]["messages"] if one["role"] != "system"]
    assert [one["content"] for one in asked][1::2] == ["one", "two"]
    state = (await host.http.get(f"/threads/{thread}/state")).json()
    assert [one["type"] for one in state["values"]["messages"]] == ["human", "ai"] * 3
    assert [one["content"] for one in state["values"]["messages"]][1::2] == ["one", "two", "three"]
    assert (state["next"], state["interrupts"]) == ([], [])
    assert state["metadata"]["run_id"] == last
    assert uuid.UUID(state["checkpoint"]["checkpoint_id"])  # the graph's own
    assert not [name for name in state["metadata"] if name.startswith("holdfast_")]
    forked = {**body, "checkpoint": {"checkpoint_id": first}}
    assert (await host.http.post(f"/threads/{thread}/runs", json=forked)).status_code == 422
    assert (await host.http.delete(f"/threads/{thread}")).status_code == 204
