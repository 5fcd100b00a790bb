"""The AI SDK's endpoints without their client: which requests are refused, how, and who owns a chat."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from tests.callers import ALICE, BOB, MOST_STREAM_READERS, MOST_STREAMS, ORIGIN, Guarded, by_key, flooding
from tests.hosts import Host
from tests.support.model_server import ModelServer, script

pytest_plugins = ("tests.hosts", "tests.callers")
pytestmark = pytest.mark.asyncio(loop_scope="session")


def body(words: str = "q", **more: Any) -> dict[str, Any]:
    """Return the body that a client sends for a chat with one message."""
    message = {"id": "m", "role": "user", "parts": [{"type": "text", "text": words}]}
    return {"id": "c", "messages": [message], "trigger": "submit-message", **more}


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    """Check the headers of an error for these clients, and return its status, code and text."""
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    return answer.status_code, answer.headers["x-error-code"], answer.text


async def test_a_refusal_is_plain_text_and_leaves_nothing(host: Host) -> None:
    before = await host.stored()
    posts: dict[bytes, tuple[int, str]] = {
        b"{": (400, "malformed"),
        b"\xff": (400, "malformed"),
        b"[]": (422, "invalid"),
        json.dumps(body("\ud800")).encode(): (422, "invalid"),
        json.dumps(body(chain="none")).encode(): (422, "invalid"),
        b'{"id": ' + b"[" * 40 + b"]" * 40 + b"}": (422, "invalid"),
        b'"' + b"x" * 300_000 + b'"': (413, "too_large"),
    }
    for content, told in posts.items():
        answer = await host.http.post(
            "/api/chat", content=content, headers={"content-type": "application/json"}
        )
        assert refusal(answer)[:2] == told
    answer = await host.http.post("/api/chat", content=b"{}", headers={"content-type": "text/html"})
    assert refusal(answer)[:2] == (415, "not_json")
    answer = await host.http.post("/api/chat", json=body(chain="none"))
    assert refusal(answer)[2].startswith("chain: must be the name of a chain of this gateway: agent, ")
    answer = await host.http.post("/api/chat", json=body(), headers={"idempotency-key": ""})
    assert refusal(answer)[:2] == (422, "invalid")
    assert await host.stored() == before


async def test_a_chat_that_was_never_sent_to_has_nothing_to_follow_or_cancel(host: Host) -> None:
    for chat in ("nobody", "..%2f", "x" * 129, "%00", "%ff", "a%20b"):
        answer = await host.http.get(f"/api/chat/{chat}/stream")
        assert (answer.status_code, answer.content) in ((204, b""), (404, answer.content)), chat
        answer = await host.http.delete(f"/api/chat/{chat}")
        assert answer.status_code == 404, chat
    answer = await host.http.delete("/api/chat/nobody")
    assert refusal(answer) == (404, "not_found", "There is no such stream.")
    answer = await host.http.get("/api/chat/nobody/stream?ended=maybe")
    assert refusal(answer)[:2] == (422, "invalid")


async def test_a_chat_is_its_callers_own(guarded: Guarded, model: ModelServer) -> None:
    gate, chat = f"ai-owner-{guarded.name}", f"chat@{guarded.name}"
    question = body(script(["a", "b"], gate=gate, gate_at=1), id=chat)
    where, http = f"/api/chat/{chat}", guarded.http
    assert refusal(await http.post("/api/chat", json=question))[:2] == (401, "unauthorized")
    async with http.stream("POST", "/api/chat", json=question, headers=by_key(ALICE)) as answer:
        stream = answer.headers["x-stream-id"]
    nobodys = f"/api/chat/none@{guarded.name}"
    for method, path in (("GET", "/stream"), ("GET", "/stream?ended=true"), ("DELETE", "")):
        assert refusal(await http.request(method, where + path))[:2] == (401, "unauthorized")
        theirs = await http.request(method, where + path, headers=by_key(BOB))
        none = await http.request(method, nobodys + path, headers=by_key(BOB))
        assert (theirs.status_code, theirs.content) == (none.status_code, none.content)
        assert theirs.status_code == (204 if method == "GET" else 404)
    async with http.stream("POST", "/api/chat", json=body(id=chat), headers=by_key(BOB)) as answer:
        assert answer.status_code == 200  # Bob has his own chat with the same name.
    async with http.stream("GET", where + "/stream", headers=by_key(ALICE)) as answer:
        assert answer.headers["x-stream-id"] == stream
    cancelled = await http.delete(where, headers=by_key(ALICE))
    assert (cancelled.status_code, cancelled.json()["id"]) == (200, stream)
    assert (await http.delete(where, headers=by_key(BOB))).json()["id"] != stream


async def test_over_quota_is_told_in_plain_words(guarded: Guarded, model: ModelServer) -> None:
    key, gate = flooding("ai", guarded.name), f"ai-quota-{guarded.name}"
    question = {"user": script(["a"], gate=gate)}
    starts = [guarded.http.post("/stream", json=question, headers=by_key(key)) for _ in range(MOST_STREAMS)]
    taken = await asyncio.gather(*starts)
    assert {answer.status_code for answer in taken} == {202}
    answer = await guarded.http.post("/api/chat", json=body(), headers=by_key(key))
    status, code, words = refusal(answer)
    assert (status, code, int(answer.headers["retry-after"])) == (429, "over_quota", 2)
    assert "streams that are not ended" in words
    for one in taken:
        await guarded.http.delete(one.headers["location"], headers=by_key(key))


async def test_too_many_readers_are_told_so(guarded: Guarded, model: ModelServer) -> None:
    gate, chat = f"ai-readers-{guarded.name}", f"readers@{guarded.name}"
    question = body(script(["a", "b"], gate=gate), id=chat)
    where, http = f"/api/chat/{chat}/stream", guarded.http
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(
            http.stream("POST", "/api/chat", json=question, headers=by_key(ALICE))
        )
        readers = [first.aiter_bytes()]
        await anext(readers[0])
        for _ in range(MOST_STREAM_READERS - 1):
            answer = await stack.enter_async_context(http.stream("GET", where, headers=by_key(ALICE)))
            readers.append(answer.aiter_bytes())
            await anext(readers[-1])
        answer = await http.get(where, headers={**by_key(ALICE), "origin": ORIGIN})
        assert refusal(answer)[:2] == (429, "too_many_readers")
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        model.open_gate(gate)
        for chunks in readers:
            assert b"".join([chunk async for chunk in chunks]).endswith(b"data: [DONE]\n\n")


async def test_past_its_retention_there_is_nothing_to_resume(host: Host) -> None:
    chat = f"gone@{host.name}"
    question = body(script(["a"]), id=chat)
    answer = await host.http.post("/api/chat", json=question)
    stream = answer.headers["x-stream-id"]
    assert answer.text.endswith("data: [DONE]\n\n")
    await host.redis.delete(f"{{{stream[:2]}}}:log:{stream}")
    assert (await host.http.get(f"/api/chat/{chat}/stream?ended=true")).status_code == 204
    assert refusal(await host.http.delete(f"/api/chat/{chat}"))[:2] == (410, "gone")
