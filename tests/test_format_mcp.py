"""MCP on both hosts, by PyPI's `mcp` as it is, in both of its newest versions."""

from __future__ import annotations

from typing import Any

import pytest
from mcp import Client
from mcp.types import TextContent

from tests.hosts import TEXTS, Host
from tests.support.model_server import script

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
