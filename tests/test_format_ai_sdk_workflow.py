"""The AI SDK's transports that reconnect by themselves, unmodified: exact results after any cut."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tests.callers import ALICE, BOB, ORIGIN, Guarded, by_key
from tests.hosts import NOBODY, TEXTS, Host
from tests.mortals import Mortal
from tests.support.ai_sdk import Opens
from tests.support.cutter import Cutter
from tests.support.model_server import script

pytest_plugins = ("tests.hosts", "tests.mortals", "tests.callers", "tests.support.ai_sdk")
pytestmark = pytest.mark.asyncio(loop_scope="session")

PACKAGES = ("@ai-sdk/workflow", "@workflow/ai")
HEAD_BYTES = 1000
TRIES = 60  # A client counts broken connections and gives up at three.


def url_of(host: Host) -> str:
    return str(host.http.base_url).rstrip("/")


def sent(words: str, **more: Any) -> bytes:
    """Return the body that the transport sends: a text, without a chat id and a trigger."""
    message = {"id": "m", "role": "user", "parts": [{"type": "text", "text": words}]}
    return json.dumps({"messages": [message], **more}).encode()


def chunks_of(body: bytes) -> list[bytes]:
    return [frame + b"\n\n" for frame in body.split(b"\n\n") if frame.startswith(b"data: ")]


@pytest.mark.parametrize("package", PACKAGES)
async def test_cut_at_random_bytes_it_comes_back_by_itself(host: Host, opens: Opens, package: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    # The cuts come after the head. A cut before the head is an immediate error for these clients.
    bounds = [rng.randrange(HEAD_BYTES, HEAD_BYTES + 900) for _ in range(5)]
    before = len(host.model.requests)
    async with Cutter(url_of(host), bounds) as cutter:
        chat = await opens(cutter.url, 7, workflow=package, maxConsecutiveErrors=TRIES)
        told = await chat.does("send", text=script(TEXTS * 5))
        assert cutter.cuts >= 2
    assert (told["status"], told["error"], told["shown"]) == ("ready", None, "".join(TEXTS * 5))
    assert [part["type"] for part in told["parts"]] == ["step-start", "text"]
    assert told["messages"][1]["metadata"]["status"] == "done"
    assert len(host.model.requests) == before + 1
    first, *others = told["asked"]
    assert first == ["POST", "", 200]
    places = [int(query.partition("=")[2]) for _, query, _ in others]
    assert places == sorted(places)


@pytest.mark.parametrize("package", PACKAGES)
async def test_a_page_that_is_loaded_again_finds_its_chat(host: Host, opens: Opens, package: str) -> None:
    gate = f"workflow reload {package} {host.name}"
    chat = await opens(url_of(host), 7, workflow=package, named=True)
    await chat.tell("send", text=script(["a", "b", "c"], gate=gate, gate_at=2))
    await chat.shows("ab")
    await chat.does("stop")
    await chat.does("reload")
    await chat.tell("resume")
    await chat.shows("ab", times=2)
    host.model.open_gate(gate)
    told = await chat.ends("resume")
    assert (told["status"], told["shown"], len(told["messages"])) == ("ready", "abc", 2)
    # There is no part that marks a replay.
    assert [part["type"] for part in told["parts"]] == ["step-start", "text"]


@pytest.mark.parametrize("package", PACKAGES)
async def test_a_failure_and_a_cancel_end_it(host: Host, opens: Opens, package: str) -> None:
    chat = await opens(url_of(host), 7, workflow=package)
    told = await chat.does("send", text=script(["a"], status=400))
    assert told["status"] == "error"
    assert len(told["asked"]) == 1
    gate = f"workflow cancel {package} {host.name}"
    chat = await opens(url_of(host), 7, workflow=package, named=True)
    await chat.tell("send", text=script(["a", "b"], gate=gate, gate_at=1))
    await chat.shows("a")
    assert (await host.http.delete(f"/api/chat/{chat.name}")).status_code == 200
    told = await chat.ends("send")
    assert (told["status"], told["error"], told["shown"]) == ("ready", None, "a")
    assert told["messages"][1]["metadata"]["status"] == "cancelled"
    assert len(told["asked"]) == 1
    host.model.open_gate(gate)


@pytest.mark.parametrize("package", PACKAGES)
async def test_a_worker_that_dies_is_not_noticed(mortal: Mortal, opens: Opens, package: str) -> None:
    gate = f"workflow mortal {package} {mortal.name}"
    chat = await opens(mortal.rotating_url, 7, workflow=package)
    async with mortal.worker() as first:
        await chat.tell("send", text=script(["a", "b", "c"], gate=gate, gate_at=2))
        await chat.shows("ab")
        await first.kill()
    mortal.model.open_gate(gate)
    async with mortal.worker():
        told = await chat.ends("send")
    assert (told["status"], told["error"], told["shown"]) == ("ready", None, "abc")
    assert len(told["asked"]) > 1  # Every connection reached its maximum age; no connection was broken.
    assert {status for *_, status in told["asked"]} == {200}


async def test_from_each_chunk_on_the_bytes_are_those_of_the_post(host: Host) -> None:
    answer = await host.http.post("/api/chat", content=sent(script(TEXTS)))
    run = answer.headers["x-workflow-run-id"]
    assert run == answer.headers["x-stream-id"]
    whole = chunks_of(answer.content)
    assert whole[-1] == b"data: [DONE]\n\n"
    for first in range(len(whole) - 1):
        got = await host.http.get(f"/api/chat/{run}/stream?startIndex={first}")
        assert chunks_of(got.content) == whole[first:]
        assert got.headers["x-workflow-stream-tail-index"] == str(len(whole) - 2)
        assert got.headers["x-vercel-ai-ui-message-stream"] == "v1"
    for back, expected in ((1, whole[-2:]), (3, whole[-4:]), (len(whole) + 5, whole)):
        got = await host.http.get(f"/api/chat/{run}/stream?startIndex=-{back}")
        assert chunks_of(got.content) == expected
    for path, status in (
        (f"{run}/stream?startIndex={len(whole) - 1}", 410),
        (f"{run}/stream?startIndex=99999", 410),
        (f"{NOBODY}/stream?startIndex=0", 404),
        ("nobody/stream?startIndex=0", 404),
        (f"{run}/stream?startIndex=x", 422),
        (f"{run}/stream?startIndex=0&startIndex=1", 422),
        (f"{run}/stream", 204),
    ):
        assert (await host.http.get(f"/api/chat/{path}")).status_code == status, path


async def test_chunks_are_counted_from_what_the_first_connection_began_with(host: Host) -> None:
    asked = {"type": "dynamic-tool", "toolName": "t", "toolCallId": "c", "state": "output-available"}
    parts = [asked | {"input": {}, "output": "x"}]
    said = {"id": "m", "role": "user", "parts": [{"type": "text", "text": script(["a"])}]}
    body = {"messages": [said, {"id": "n", "role": "assistant", "parts": parts}]}
    answer = await host.http.post("/api/chat", content=json.dumps(body).encode())
    whole = chunks_of(answer.content)
    assert b"data-replay" in whole[1]
    run = answer.headers["x-workflow-run-id"]
    for first in range(4):
        got = await host.http.get(f"/api/chat/{run}/stream?startIndex={first}")
        assert chunks_of(got.content) == whole[first:]


async def test_a_text_of_another_origin_is_refused_unless_that_is_allowed(guarded: Guarded) -> None:
    body, mine = sent("q"), by_key(ALICE)
    host = str(guarded.http.base_url).partition("://")[2].strip("/")
    for origin, status in (
        (ORIGIN, 200),
        (f"http://{host}", 200),
        ("http://evil.example", 415),
        ("null", 415),
    ):
        kind = {"content-type": "text/plain;charset=UTF-8", "origin": origin}
        answer = await guarded.http.post("/api/chat", content=body, headers={**mine, **kind})
        assert answer.status_code == status, origin
        if origin == ORIGIN:
            shown = answer.headers["access-control-expose-headers"].split(", ")
            assert {"x-workflow-run-id", "x-workflow-stream-tail-index"} <= set(shown)
            run = answer.headers["x-workflow-run-id"]
    other = {**mine, "content-type": "application/xml"}
    assert (await guarded.http.post("/api/chat", content=body, headers=other)).status_code == 415
    theirs = await guarded.http.get(f"/api/chat/{run}/stream?startIndex=0", headers=by_key(BOB))
    assert theirs.status_code == 404
    assert (await guarded.http.delete(f"/api/chat/{run}", headers=by_key(BOB))).status_code == 404
    own = await guarded.http.get(f"/api/chat/{run}/stream?startIndex=0", headers=mine)
    assert own.status_code == 200
