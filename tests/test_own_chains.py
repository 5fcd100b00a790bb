"""The example module of docs/chains.md, with a graph and an agent, is added by GATEWAY_CHAINS alone."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.protocol import Event, sse
from tests.support.model_server import ModelServer, script
from tests.support.processes import REPOSITORY, GatewayProcess

pytestmark = pytest.mark.slow


def module(folder: Path) -> None:
    """Write the example of docs/chains.md to `mine.py`, its name there. Each chain has at most ten lines."""
    codes = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/chains.md").read_text(), re.DOTALL)
    [code] = [code for code in codes if '@chain("clerk")' in code]
    for part in code.split("@chain")[1:]:
        assert len([line for line in part.splitlines() if line]) <= 10
    (folder / "mine.py").write_text(code)


async def ask(url: str, chain: str, turns: list[dict[str, Any]]) -> list[Event]:
    body = {"chain": chain, "user": script(turns=turns)}
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.post(f"{url}/stream", json=body, headers={"accept": "text/event-stream"})
    return [message.event() for message in sse.Decoder().feed(answer.content)]


def texts(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.data["stage"], event.data["delta_content"]) for event in events if event.type == ""]


async def test_a_graph_and_an_agent_of_ones_own(redis_url: str, tmp_path: Path) -> None:
    module(tmp_path)
    today = f"{datetime.now().astimezone():%Y-%m-%d}"
    async with ModelServer() as model:
        environment = {"REDIS_URL": redis_url, "PYTHONPATH": str(tmp_path), **model.environment()}
        async with GatewayProcess("all", environment | {"GATEWAY_CHAINS": "mine"}) as both:
            graph = await ask(both.url, "polished", [{"chunks": ["long ", "text"]}, {"chunks": ["text"]}])
            call = {"name": "today", "pieces": ["{", "}"]}
            agent = await ask(both.url, "clerk", [{"tool_calls": [call]}, {"chunks": ["Today."]}])
    assert texts(graph) == [("draft", "long "), ("draft", "text"), ("polish", "text")]
    assert model.requests[1]["messages"][-1]["content"] == "Say it in fewer words."
    started, finished = (event.data for event in agent if event.type == "tool")
    assert (started["input"], finished["output"]) == ({}, today)
    assert texts(agent) == [("model", "Today.")]
    assert [events[-1].type for events in (graph, agent)] == ["done", "done"]
