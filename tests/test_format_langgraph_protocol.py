"""LangChain's agent streaming protocol, with both SDKs and as raw HTTP, on both hosts."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from tests.callers import ALICE, BOB, Guarded, by_key
from tests.hosts import Host, until
from tests.mortals import Mortal
from tests.support.cutter import Cutter
from tests.support.model_server import script
from tests.support.processes import GatewayProcess
from tests.support.programs import node, talking
from tests.support.redis_server import RedisServer
from tests.test_format_langgraph import TEXT, WORDS, client_of, said, url_of

pytest_plugins = ("tests.hosts", "tests.mortals", "tests.callers")
pytestmark = pytest.mark.asyncio(loop_scope="session")

CHANNELS = ["values", "messages", "tools", "lifecycle", "input"]
LIMIT_SECONDS = 60


def ends(event: dict[str, Any]) -> bool:
    """Return whether the event says that the run is over."""
    params = event["params"]
    told = params["data"].get("event") in ("completed", "failed", "interrupted")
    return bool(event["method"] == "lifecycle" and told and not params["namespace"])


async def frames(
    http: httpx.AsyncClient, thread: str, headers: Any = None, **body: Any
) -> AsyncGenerator[tuple[bytes, dict[str, Any]]]:
    """Open one connection, and yield each frame's bytes and its event."""
    body = {"channels": CHANNELS, **body}
    where = f"/threads/{thread}/stream/events"
    async with (
        asyncio.timeout(LIMIT_SECONDS),
        http.stream("POST", where, json=body, headers=headers) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"
        rest = b""
        async for chunk in answer.aiter_bytes():
            *whole, rest = (rest + chunk).split(b"\n\n")
            for frame in whole:
                if data := frame.partition(b"data: ")[2]:
                    yield frame.rpartition(b":\n\n")[2].lstrip(b":\n"), json.loads(data)


async def read(
    http: httpx.AsyncClient, thread: str, right: Callable[[dict[str, Any]], bool] = ends, **more: Any
) -> list[tuple[bytes, dict[str, Any]]]:
    """Return the frames up to the first one for which `right` is true."""
    found = []
    async with aclosing(frames(http, thread, **more)) as source:
        async for one in source:
            found.append(one)
            if right(one[1]):
                break
    return found


async def texts_of(messages: Any) -> list[str]:
    """Return the text of each message. The SDK fills the messages while the next one is awaited."""

    async def text(message: Any) -> str:
        whole: str = await message.text
        return whole

    return await asyncio.gather(*[asyncio.create_task(text(one)) async for one in messages])


async def command(http: httpx.AsyncClient, thread: str, method: str, number: int = 1, **params: Any) -> Any:
    body = {"id": number, "method": method, "params": params}
    answer = await http.post(f"/threads/{thread}/commands", json=body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["id"] == number
    return told


async def start(http: httpx.AsyncClient, thread: str, question: str, number: int = 1, **more: Any) -> Any:
    params = {"assistant_id": "chat", "input": said(question), **more}
    told = await command(http, thread, "run.start", number, **params)
    assert told["type"] == "success", told
    return told


async def test_frames_are_the_same_in_every_connection(host: Host) -> None:
    thread = str(uuid.uuid4())
    reading = asyncio.create_task(read(host.http, thread))  # The thread does not exist yet.
    await start(host.http, thread, script(WORDS))
    live = await reading
    assert [frame for frame, _ in await read(host.http, thread)] == [frame for frame, _ in live]
    numbers = [event["seq"] for _, event in live]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 1
    for seen in (0, 1, len(live) // 2, len(live) - 2):
        rest = [frame for frame, _ in live[seen + 1 :]]
        assert [frame for frame, _ in await read(host.http, thread, since=numbers[seen])] == rest
        by_header = await read(host.http, thread, headers={"last-event-id": str(numbers[seen])}, since=1)
        assert [frame for frame, _ in by_header] == rest
    some = await read(host.http, thread, channels=["lifecycle", "values"])
    kept = [frame for frame, event in live if event["method"] in ("lifecycle", "values")]
    assert [frame for frame, _ in some] == kept
    text = "".join(e["params"]["data"].get("delta", {}).get("text", "") for _, e in live)
    assert text == TEXT


async def test_one_connection_has_all_runs_of_a_thread(host: Host) -> None:
    thread, over = str(uuid.uuid4()), 0
    found: list[dict[str, Any]] = []
    async with aclosing(frames(host.http, thread)) as source:
        first = await start(host.http, thread, script(["one"]))
        assert first["meta"] == {"applied_through_seq": 0}
        async for _, event in source:
            found.append(event)
            if ends(event):
                over += 1
                if over == 2:
                    break
                second = await start(host.http, thread, script(["two"]), 2)
    assert [one["seq"] for one in found] == sorted({one["seq"] for one in found})
    begins = [one for one in found if one["params"]["data"].get("event") == "running"]
    runs = [first["result"]["run_id"], second["result"]["run_id"]]
    assert [one["event_id"] for one in begins] == [f"synth:{run}:lc||running" for run in runs]
    # A reader without a cursor begins at the newest run. A reader with the end of the first run continues
    # from there.
    newest = await read(host.http, thread)
    assert newest[0][1] == begins[1]
    assert second["meta"]["applied_through_seq"] == begins[1]["seq"] - 1
    between = found.index(begins[1]) - 1
    assert (await read(host.http, thread, since=found[between]["seq"]))[0][1] == begins[1]
    everything = await read(host.http, thread, lambda event: event == found[-1], since=found[0]["seq"])
    assert [event for _, event in everything] == found[1:]


async def test_a_run_waits_for_the_one_before(host: Host) -> None:
    thread, gate = str(uuid.uuid4()), f"protocol-queue-{host.name}"
    first = await start(host.http, thread, script(["a", "b"], gate=gate, gate_at=1))
    again = await start(host.http, thread, script(["a", "b"], gate=gate, gate_at=1))
    assert again["result"] == first["result"]  # It is the same command.
    second = await start(host.http, thread, script(["c"]), 2)
    assert second["meta"] == {"applied_through_seq": 0}
    refused = await command(
        host.http,
        thread,
        "run.start",
        3,
        assistant_id="chat",
        input=said(script(["d"])),
        multitaskStrategy="reject",
    )
    assert (refused["type"], refused["error"]) == ("error", "unknown_error")
    last = second["result"]["run_id"]
    found: list[Any] = []
    async with aclosing(frames(host.http, thread)) as source:
        async for _, event in source:
            if not found:
                host.model.open_gate(gate)
            found.append(event)
            if ends(event) and last in event["event_id"]:
                break
    texts = "".join(event["params"]["data"].get("delta", {}).get("text", "") for event in found)
    assert texts == "abc"
    told = await command(host.http, thread, "state.get", 4, namespace=[], keys=["messages"])
    assert list(told["result"]["values"]) == ["messages"]
    assert told["result"]["values"]["messages"][-1]["content"] == "c"
    tree = await command(host.http, thread, "agent.getTree", 5)
    assert tree["result"] == {"tree": {"namespace": [], "status": "completed", "graph_name": "chat"}}


@pytest.mark.parametrize(
    ("method", "params", "error"),
    [
        ("no.such", {}, "unknown_command"),
        ("run.start", {}, "invalid_argument"),
        ("run.start", {"assistant_id": "none", "input": {}}, "unknown_error"),
        ("run.start", {"assistant_id": "chat", "input": {"messages": 1}}, "invalid_argument"),
        ("input.respond", {}, "invalid_argument"),
        ("input.respond", {"responses": []}, "invalid_argument"),
        ("input.respond", {"interrupt_id": "x", "namespace": 1}, "invalid_argument"),
        ("input.respond", {"interrupt_id": "x", "response": 1}, "no_such_interrupt"),
        ("state.get", {"namespace": ["a:1"]}, "no_such_namespace"),
        ("state.get", {"keys": [1]}, "invalid_argument"),
        ("agent.getTree", {}, "no_such_run"),
    ],
)
async def test_a_command_that_does_not_succeed(host: Host, method: str, params: Any, error: str) -> None:
    told = await command(host.http, str(uuid.uuid4()), method, 7, **params)
    assert (told["type"], told["error"]) == ("error", error)
    assert told["message"]


async def test_what_cannot_be_read_is_400(host: Host) -> None:
    for path, bodies in {
        "commands": (b"{", b"[]", b'{"id": "x", "method": "run.start"}', b'{"id": true, "method": "x"}'),
        "stream/events": (b"{", b"{}", b'{"channels": ["nonsense"]}'),
    }.items():
        for body in bodies:
            assert (await host.http.post(f"/threads/t/{path}", content=body)).status_code == 400


async def test_python_has_messages_and_state(host: Host) -> None:
    async with client_of(url_of(host)) as client, client.threads.stream(assistant_id="chat") as thread:
        await thread.run.start(input=said(script(WORDS)))
        texts = await texts_of(thread.messages)
        output: Any = await thread.output
    assert texts == [TEXT]
    assert output["messages"][-1]["content"] == TEXT


async def test_python_is_told_of_a_failure(host: Host) -> None:
    async with client_of(url_of(host)) as client, client.threads.stream(assistant_id="chat") as thread:
        await thread.run.start(input=said(script([], status=400)))
        with pytest.raises(RuntimeError, match="Run errored"):
            await thread.output


@pytest.mark.slow
async def test_python_through_cuts_to_the_exact_text(host: Host) -> None:
    chosen = random.Random(host.name)
    bounds = [chosen.randrange(1000, 4000) for _ in range(4)]
    async with Cutter(url_of(host), bounds) as cutter, client_of(cutter.url) as client:
        async with client.threads.stream(assistant_id="chat") as thread:
            await thread.run.start(input=said(script(WORDS, pace=0.02)))
            texts = await texts_of(thread.messages)
        assert cutter.cuts, bounds
    assert texts == [TEXT], bounds


@pytest.mark.slow
async def test_javascript_through_cuts_to_the_exact_text(host: Host) -> None:
    chosen = random.Random(host.name)
    bounds = [chosen.randrange(1000, 4000) for _ in range(4)]
    async with Cutter(url_of(host), [10**9, *bounds]) as cutter:
        asked = {"thread": str(uuid.uuid4()), "input": said(script(WORDS, pace=0.02))}
        lines = await node("langgraph_protocol.mjs", cutter.url, json.dumps(asked))
        assert cutter.cuts, bounds
    assert [line["message"] for line in lines if "message" in line] == [TEXT], bounds
    assert "".join(line["piece"] for line in lines if "piece" in line) == TEXT
    assert lines[-1] == {"interrupted": False}


@pytest.mark.slow
@pytest.mark.parametrize("again", [None, ["x ", "y ", "z"]])
async def test_a_worker_is_killed(mortal: Mortal, again: list[str] | None) -> None:
    """Each frame is the same before and after the death of the worker. Void messages are broken off."""
    gate = f"protocol-{mortal.name}-{again}"
    more = {} if again is None else {"again": again}
    thread = str(uuid.uuid4())
    async with httpx.AsyncClient(base_url=mortal.url, timeout=LIMIT_SECONDS) as http:
        async with mortal.worker() as first:
            await start(http, thread, script(["a ", "b ", "c"], gate=gate, gate_at=2, **more))
            before = await read(
                http, thread, lambda e: e["params"]["data"].get("delta", {}).get("text") == "b "
            )
            await first.kill()
        mortal.model.open_gate(gate)
        async with mortal.worker():
            rest = await read(http, thread, since=before[-1][1]["seq"])
        assert await read(http, thread) == [*before, *rest]
    parts = [event["params"]["data"] for _, event in [*before, *rest] if event["method"] == "messages"]
    finished = {one["message_id"] for one in parts if one["event"] == "message-finish"}
    text = "".join(one["delta"]["text"] for one in parts if "delta" in one and one["message_id"] in finished)
    assert text == "".join(again or ["a ", "b ", "c"])
    assert [one["event"] for one in parts].count("error") == (again is not None)
    last = [event for _, event in rest if event["method"] == "values"][-1]
    assert [one["content"] for one in last["params"]["data"]["messages"][1:]] == [text]


@pytest.mark.slow
async def test_javascript_through_rotation_and_a_workers_death(mortal: Mortal) -> None:
    gate = f"protocol-js-{mortal.name}"
    asked = {
        "thread": str(uuid.uuid4()),
        "input": said(script(["a ", "b ", "c"], gate=gate, gate_at=2)),
    }
    told = json.dumps(asked)
    async with talking("langgraph_protocol.mjs", mortal.rotating_url, told) as talk, mortal.worker() as first:
        await talk.until(lambda lines: [one.get("piece") for one in lines] == ["a ", "b "])
        async with mortal.worker():
            await first.kill()
            mortal.model.open_gate(gate)
            lines = await talk.until(lambda lines: "interrupted" in lines[-1])
    assert [line["message"] for line in lines if "message" in line] == ["a b c"]
    assert [line["piece"] for line in lines if "piece" in line] == ["a ", "b ", "c"]


async def test_a_thread_is_its_owners(guarded: Guarded) -> None:
    """The same name is another thread for another caller, who receives no event of the first thread."""
    thread, http = str(uuid.uuid4()), guarded.http
    where, alice, bob = f"/threads/{thread}", by_key(ALICE), by_key(BOB)
    params = {"assistant_id": "chat", "input": said(script(["secret"]))}
    body = {"id": 1, "method": "run.start", "params": params}
    assert (await http.post(f"{where}/commands", json=body)).status_code == 401
    nobody = await http.post(f"{where}/stream/events", json={"channels": ["values"]})
    assert nobody.status_code == 401
    assert (await http.post(f"{where}/commands", json=body, headers=alice)).json()["type"] == "success"
    found = await read(http, thread, headers=alice)
    assert ends(found[-1][1])
    tree = {"id": 2, "method": "agent.getTree"}
    assert (await http.post(f"{where}/commands", json=tree, headers=bob)).json()["error"] == "no_such_run"
    own = {"id": 1, "method": "run.start", "params": params | {"input": said(script(["mine"]))}}
    heard = asyncio.create_task(read(http, thread, headers=bob))
    assert (await http.post(f"{where}/commands", json=own, headers=bob)).json()["type"] == "success"
    assert "secret" not in json.dumps([event for _, event in await heard])


@pytest.mark.slow
async def test_questions_are_asked_and_answered() -> None:
    """Both SDKs ask and answer. One of them reads over a single open connection."""
    environment = {
        "GATEWAY_CHAINS": "tests.support.asked_chains",
        "GATEWAY_MODEL": "none",
        "OPENAI_BASE_URL": "http://127.0.0.1:9",
    }
    async with (
        RedisServer() as server,
        GatewayProcess("all", environment | {"REDIS_URL": server.url}) as gateway,
    ):
        async with client_of(gateway.url) as client:
            async with client.threads.stream(assistant_id="asks_once") as thread:
                await thread.run.start(input={"text": "q"})
                await until(lambda: _now(thread.interrupted), bool)
                assert len(thread.interrupts) == 1
                await thread.run.respond("yes")
                output: Any = await thread.output.with_timeout(30)
            assert "ask=yes" in json.dumps(output)
        asked: dict[str, Any] = {
            "thread": str(uuid.uuid4()),
            "chain": "asks_once",
            "input": {"text": "q"},
            "respond": "yes",
        }
        lines = await node("langgraph_protocol.mjs", gateway.url, json.dumps(asked))
        assert [line["asks"] for line in lines if "asks" in line] == [{"question": "Send it?"}]
        async with httpx.AsyncClient(base_url=gateway.url, timeout=LIMIT_SECONDS) as http:
            found = await read(
                http, asked["thread"], lambda e: ends(e) and e["params"]["data"]["event"] == "completed"
            )
            assert "ask=yes" in json.dumps([event for _, event in found])


async def _now(value: bool) -> bool:
    return value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "where", "body"),
    [("POST", "/threads/t/stream/events", {"channels": ["values"]}), ("GET", "/threads/t/stream", None)],
)
async def test_who_waits_for_a_run_takes_a_readers_place(
    redis_url: str, method: str, where: str, body: dict[str, Any] | None
) -> None:
    """Check also that the place is free again afterwards."""
    environment = {
        "REDIS_URL": redis_url,
        "GATEWAY_MAX_READERS": "2",
        "GATEWAY_HEARTBEAT_SECONDS": "1",
        "OPENAI_BASE_URL": "http://127.0.0.1:9",
    }
    async with (
        GatewayProcess("web", environment) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=LIMIT_SECONDS) as http,
    ):
        async with (
            http.stream(method, where, json=body) as one,
            http.stream(method, where, json=body) as two,
        ):
            assert (one.status_code, two.status_code) == (200, 200)
            # A request that waits in its place sends a heartbeat each second. A POST also sends one before it
            # has its place. A third request that came before both have their places could take one.
            beats = 2 if method == "POST" else 1
            waiting = [one.aiter_raw(), two.aiter_raw()]
            assert [await anext(chunks) for chunks in waiting * beats] == [b":\n"] * 2 * beats

            async def refused() -> int:
                async with http.stream(method, where, json=body) as more:
                    return more.status_code

            await until(refused, lambda status: status == 429)
        await until(refused, lambda status: status == 200)
