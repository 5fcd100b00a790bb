"""MCP on both hosts, with the unmodified `mcp` from PyPI, in its two newest versions."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from mcp import Client, MCPError
from mcp.types import TextContent

from gateway.formats.mcp.projection import STREAM
from tests.hosts import NOBODY, TEXTS, Host, until
from tests.support.model_server import script
from tests.support.programs import node

pytest_plugins = ("tests.hosts",)
pytestmark = pytest.mark.asyncio(loop_scope="session")
VERSIONS = {"auto": "2026-07-28", "legacy": "2025-11-25"}
MODES = pytest.mark.parametrize("mode", VERSIONS)


def client_of(host: Host, mode: str = "auto") -> Client:
    return Client(f"{str(host.http.base_url).rstrip('/')}/mcp", mode=mode, read_timeout_seconds=30)


def text_of(result: Any) -> str:
    return "".join(one.text for one in result.content if isinstance(one, TextContent))


@MODES
async def test_chains_are_tools_and_a_call_tells_its_progress(host: Host, mode: str) -> None:
    notes: list[tuple[float, str | None]] = []

    async def noted(progress: float, total: float | None, message: str | None) -> None:
        notes.append((progress, message))

    async with client_of(host, mode) as client:
        assert client.session.protocol_version == VERSIONS[mode]
        tools = {one.name: one for one in (await client.list_tools()).tools}
        assert {"chat", "mirror", "figures"} <= set(tools)
        assert tools["chat"].input_schema["required"] == ["user"]
        result = await client.call_tool("chat", {"user": script(TEXTS)}, progress_callback=noted)
        plain = await client.call_tool("chat", {"user": script(["quiet"])})
    assert (text_of(result), result.is_error) == ("".join(TEXTS), False)
    assert text_of(plain) == "quiet"
    assert [done for done, _ in notes] == list(range(1, len(notes) + 1))
    assert [said for _, said in notes] == ["chat", *TEXTS]


@MODES
async def test_a_failure_and_a_wrong_call_are_told_apart(host: Host, mode: str) -> None:
    async with client_of(host, mode) as client:
        failed = await client.call_tool("chat", {"user": script([], status=400)})
        assert failed.is_error
        assert failed.meta is not None
        status = await host.status(f"/stream/{failed.meta[STREAM]}")
        assert text_of(failed) == f"{status['error']['message']} ({status['error']['code']})"
        for name, given in (("none", {"user": "q"}), ("chat", {"other": "q"}), ("chat", {"user": ""})):
            with pytest.raises(MCPError) as refused:
                await client.call_tool(name, given)
            assert refused.value.code == -32602
        figures = await client.call_tool("figures", {"user": "q"})
        assert figures.structured_content == {"total": 42, "of": ["é"]}
        mirrored = await client.call_tool("mirror", {"any": [1, "é"]})
    assert json.loads(text_of(mirrored))[0] == {"any": [1, "é"]}


async def test_a_call_that_is_given_up_ends_its_stream(host: Host) -> None:
    """Versions with a handshake cancel by a notification. The other version has no notification."""
    gate, begun = f"mcp-cancel-{host.name}", asyncio.Event()

    async def noted(progress: float, total: float | None, message: str | None) -> None:
        begun.set()

    before = {one["id"] for one in (await host.http.get("/streams")).json()["streams"]}
    async with client_of(host, "legacy") as client:
        question = {"user": script(["a", "b"], gate=gate)}
        call = asyncio.create_task(client.call_tool("chat", question, progress_callback=noted))
        await begun.wait()
        call.cancel()
        [where] = [
            one["id"]
            for one in (await host.http.get("/streams")).json()["streams"]
            if one["id"] not in before
        ]
        ended = await until(lambda: host.status(f"/stream/{where}"), lambda told: told["status"] != "running")
    assert ended["status"] == "cancelled"
    host.model.open_gate(gate)


async def test_npms_client_lists_calls_and_gives_up(host: Host) -> None:
    url, gate = str(host.http.base_url).rstrip("/"), f"mcp-node-{host.name}"
    *notes, last = await node("mcp.mjs", url, "chat", json.dumps({"user": script(TEXTS)}))
    assert [line["note"]["message"] for line in notes] == ["chat", *TEXTS]
    assert last["result"]["content"] == [{"type": "text", "text": "".join(TEXTS)}]
    assert "mirror" in last["tools"]
    given = json.dumps({"user": script(["a", "b"], gate=gate, gate_at=1)})
    *notes, last = await node("mcp.mjs", url, "chat", given, "2")
    assert [line["note"]["message"] for line in notes] == ["chat", "a"]
    assert last["message"].endswith("enough")
    host.model.open_gate(gate)


async def post(host: Host, body: Any, **headers: str) -> httpx.Response:
    return await host.http.post("/mcp", json=body, headers=headers)


def call_of(words: str, name: Any = 1, **meta: Any) -> dict[str, Any]:
    params = {"name": "chat", "arguments": {"user": words}, "_meta": meta}
    return {"jsonrpc": "2.0", "id": name, "method": "tools/call", "params": params}


async def test_each_event_has_an_id_after_which_the_rest_is_the_same_bytes(host: Host) -> None:
    session = {"mcp-session-id": f"exact-{host.name}", "mcp-protocol-version": "2025-11-25"}
    body = call_of(script(TEXTS), progressToken="t")
    whole = (await post(host, body, **session)).content
    frames = whole.split(b"\n\n")[:-1]
    assert frames[0].endswith(b"data: ")
    for at, frame in enumerate(frames):
        name = frame.split(b"\n")[0].removeprefix(b"id: ").decode()
        rest = await host.http.get("/mcp", headers={**session, "last-event-id": name})
        assert rest.content == f"id: {name}\ndata: \n\n".encode() + b"".join(
            one + b"\n\n" for one in frames[at + 1 :]
        )
    assert (await post(host, body, **session)).content == whole  # The same call in the same session.
    other = await post(host, call_of(script(["x"])), **session)
    assert other.json()["error"]["code"] == -32602


async def test_what_is_no_call_is_refused_in_json_rpcs_words(host: Host) -> None:
    assert (await host.http.get("/mcp")).status_code == 405
    assert (await host.http.delete("/mcp")).status_code == 204
    lost = await host.http.get("/mcp", headers={"last-event-id": f"{NOBODY}.0-0000.0"})
    assert lost.status_code == 404
    bad = await host.http.get("/mcp", headers={"last-event-id": "x"})
    assert bad.status_code == 400
    old = await post(host, call_of("q"), **{"mcp-protocol-version": "1999-01-01"})
    assert (old.status_code, old.json()["error"]["code"]) == (400, -32022)
    none = await post(host, {"jsonrpc": "2.0", "id": "é", "method": "resources/list"})
    assert (none.json()["id"], none.json()["error"]["code"]) == ("é", -32601)
    batch = await post(host, [call_of("q")])
    assert (batch.status_code, batch.json()["error"]["code"]) == (400, -32600)
    note = await post(host, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert (note.status_code, note.content) == (202, b"")
    names: list[Any] = [True, 1.5, [], "x" * 257]
    for name in names:
        refused = await post(host, call_of("q", name))
        assert refused.json()["error"]["code"] == -32600
