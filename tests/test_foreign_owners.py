"""Owners and quotas also apply to the endpoints of foreign formats.

Each format gives errors in its own form.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.callers import ALICE, BOB, MOST_STREAMS, Guarded, by_key, flooding
from tests.hosts import NOBODY
from tests.support.model_server import ModelServer, script

pytest_plugins = ("tests.hosts", "tests.callers")
pytestmark = pytest.mark.asyncio(loop_scope="session")


def langgraph(question: str) -> dict[str, Any]:
    return {"assistant_id": "chat", "input": {"messages": [{"role": "user", "content": question}]}}


async def test_langgraph_knows_nobody_without_a_key(guarded: Guarded) -> None:
    for method, path in (("POST", "/threads/t/runs/stream"), ("GET", "/threads/t/state")):
        answer = await guarded.http.request(method, path, json=langgraph("x"))
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


async def test_langgraph_threads_and_runs_are_their_callers(guarded: Guarded) -> None:
    alice, bob = by_key(ALICE), by_key(BOB)
    body = langgraph(script(["mine"]))
    made = await guarded.http.post("/threads/same/runs/wait", json=body, headers=alice)
    run = made.headers["x-stream-id"]
    assert made.json()["messages"][-1]["content"] == "mine"
    theirs = await guarded.http.get("/threads/same/state", headers=bob)
    # Bob has his own thread with the same name.
    assert (theirs.status_code, theirs.json()["values"]) == (200, {})
    for path in ("", "/stream", "/join"):
        foreign = await guarded.http.get(f"/threads/same/runs/{run}{path}", headers=bob)
        unknown = await guarded.http.get(f"/threads/same/runs/{NOBODY}{path}", headers=bob)
        assert (foreign.status_code, foreign.json()) == (404, unknown.json())
    cancelled = await guarded.http.post(f"/threads/same/runs/{run}/cancel", headers=bob)
    assert cancelled.status_code == 404
    on = {**langgraph("x"), "checkpoint": {"checkpoint_id": run}}
    taken = await guarded.http.post("/threads/same/runs", json=on, headers=bob)
    assert taken.status_code == 422


def agui(question: str, run: str) -> dict[str, Any]:
    message = {"id": "u", "role": "user", "content": question}
    return {"threadId": "same", "runId": run, "messages": [message]}


async def test_runs_of_ag_ui_are_their_callers(guarded: Guarded) -> None:
    """Another caller can use the same names for a thread and a run; they are then the caller's own."""
    for method, path in (("POST", "/agui/chat"), ("GET", "/agui/chat/r"), ("DELETE", "/agui/chat/r")):
        answer = await guarded.http.request(method, path, json=agui("x", "r"))
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    shared = f"r on {guarded.name}"
    mine = await guarded.http.post("/agui/chat", json=agui(script(["mine"]), shared), headers=by_key(ALICE))
    assert '"delta":"mine"' in mine.text
    run = mine.headers["x-stream-id"]
    for method in ("GET", "DELETE"):
        for name in (shared, run):
            theirs = await guarded.http.request(method, f"/agui/chat/{name}", headers=by_key(BOB))
            assert (theirs.status_code, theirs.json()["code"]) == (404, "not_found")
    own = await guarded.http.post("/agui/chat", json=agui(script(["theirs"]), shared), headers=by_key(BOB))
    assert '"delta":"theirs"' in own.text
    again = await guarded.http.get(f"/agui/chat/{shared}", headers=by_key(ALICE))
    assert again.content == mine.content


async def test_ag_ui_tells_a_quota_and_a_known_run_is_answered(guarded: Guarded, model: ModelServer) -> None:
    flood, gate = by_key(flooding("agui", guarded.name)), f"agui-quota-{guarded.name}"
    for number in range(MOST_STREAMS):
        body = agui(script(["a"], gate=gate), f"r{number}")
        async with guarded.http.stream("POST", "/agui/chat", json=body, headers=flood) as answer:
            assert answer.status_code == 200
    refused = await guarded.http.post("/agui/chat", json=agui("x", "one more"), headers=flood)
    assert (refused.status_code, refused.json()["code"]) == (429, "over_quota")
    assert refused.headers["retry-after"] == "2"
    model.open_gate(gate)
    known = await guarded.http.post("/agui/chat", json=agui("x", "r0"), headers=flood)
    assert '"delta":"a"' in known.text


async def test_langgraph_tells_a_quota(guarded: Guarded, model: ModelServer) -> None:
    flood, gate = by_key(flooding("langgraph", guarded.name)), f"langgraph-quota-{guarded.name}"
    body = langgraph(script(["a"], gate=gate))
    for _ in range(MOST_STREAMS):
        assert (await guarded.http.post("/runs", json=body, headers=flood)).status_code == 200
    answer = await guarded.http.post("/runs/stream", json=body, headers=flood)
    assert (answer.status_code, answer.json()["code"]) == (429, "over_quota")
    assert answer.headers["retry-after"] == "2"
    model.open_gate(gate)


async def test_a_stream_token_reads_events_and_nothing_else(guarded: Guarded) -> None:
    """The token is only for the events of one stream.

    It does not give access to a state, which contains the question, and it cannot end a run.
    """
    body = langgraph(script(["mine"]))
    made = await guarded.http.post("/threads/t/runs/wait", json=body, headers=by_key(ALICE))
    run = made.headers["x-stream-id"]
    token = (await guarded.token(f"/stream/{run}", ALICE))["token"]
    for method, path in (
        ("GET", f"/threads/t/runs/{run}"),
        ("GET", f"/threads/t/runs/{run}/stream"),
        ("GET", f"/threads/t/runs/{run}/join"),
        ("POST", f"/threads/t/runs/{run}/cancel"),
        ("GET", f"/agui/chat/{run}"),
        ("DELETE", f"/agui/chat/{run}"),
        ("GET", f"/v1/responses/{run}"),
        ("POST", f"/v1/responses/{run}/cancel"),
    ):
        answer = await guarded.http.request(method, path, params={"token": token})
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
    events = await guarded.http.get(f"/durable/{run}", params={"token": token})
    assert events.status_code == 200
    assert b"mine" in events.content
    assert b"messages" not in events.content


def a2a(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def a2a_message(question: str, **fields: Any) -> dict[str, Any]:
    parts = [{"text": question}]
    return {"message": {"messageId": "the same", "role": "ROLE_USER", "parts": parts, **fields}}


async def test_a2as_tasks_are_their_callers(guarded: Guarded) -> None:
    card = "/a2a/chat/.well-known/agent-card.json"
    assert (await guarded.http.get(card)).status_code == 401
    known = (await guarded.http.get(card, headers=by_key(ALICE))).json()
    assert known["securitySchemes"] == {"bearer": {"httpAuthSecurityScheme": {"scheme": "bearer"}}}
    nobody = await guarded.http.post("/a2a/chat", json=a2a("GetTask", id=NOBODY))
    assert (nobody.status_code, nobody.json()["error"]["data"][0]["metadata"]["code"]) == (
        401,
        "unauthorized",
    )
    asked = a2a("SendMessage", **a2a_message(script(["mine"])))
    made = await guarded.http.post("/a2a/chat", json=asked, headers=by_key(ALICE))
    task = made.json()["result"]["task"]
    assert task["artifacts"][0]["parts"] == [{"text": "mine"}]
    # Bob has his own task with this name.
    theirs = await guarded.http.post("/a2a/chat", json=asked, headers=by_key(BOB))
    assert theirs.json()["result"]["task"]["id"] != task["id"]
    more = a2a("SendMessage", **a2a_message("x", taskId=task["id"]))
    for body in (*(a2a(one, id=task["id"]) for one in ("GetTask", "CancelTask", "SubscribeToTask")), more):
        foreign = await guarded.http.post("/a2a/chat", json=body, headers=by_key(BOB))
        assert (foreign.status_code, foreign.json()["error"]["code"]) == (200, -32001)


async def test_mcps_calls_are_their_callers(guarded: Guarded) -> None:
    params = {"name": "chat", "arguments": {"user": script(["mine"])}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    assert (await guarded.http.post("/mcp", json=body)).status_code == 401
    session = {"mcp-session-id": "the same"}
    made = await guarded.http.post("/mcp", json=body, headers={**by_key(ALICE), **session})
    again = await guarded.http.post("/mcp", json=body, headers={**by_key(ALICE), **session})
    other = await guarded.http.post("/mcp", json=body, headers={**by_key(BOB), **session})
    assert again.headers["x-stream-id"] == made.headers["x-stream-id"] != other.headers["x-stream-id"]
    at = {"last-event-id": made.text.partition("\n")[0].removeprefix("id: ")}
    assert (await guarded.http.get("/mcp", headers=at)).status_code == 401
    assert (await guarded.http.get("/mcp", headers={**by_key(BOB), **at})).status_code == 404
    assert (await guarded.http.get("/mcp", headers={**by_key(ALICE), **at})).status_code == 200


async def test_a2a_and_mcp_tell_a_quota(guarded: Guarded, model: ModelServer) -> None:
    flood, gate = by_key(flooding("rpc", guarded.name)), f"rpc-quota-{guarded.name}"
    question = script(["a"], gate=gate)
    for number in range(MOST_STREAMS):
        sent = a2a("SendMessage", **a2a_message(question, messageId=f"m{number}"))
        sent["params"]["configuration"] = {"returnImmediately": True}
        assert "result" in (await guarded.http.post("/a2a/chat", json=sent, headers=flood)).json()
    params = {"name": "chat", "arguments": {"user": "x"}}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    more = a2a("SendStreamingMessage", **a2a_message("x"))
    for path, body in (("/a2a/chat", more), ("/mcp", call)):
        answer = await guarded.http.post(path, json=body, headers=flood)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, -32603)
        assert answer.headers["retry-after"] == "2"
    model.open_gate(gate)
