"""Threads over processes that are killed, and over a cluster: whatever dies, the next stream has its turn."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.protocol.errors import ThreadBusy
from gateway.store.threads import keys_of, named_keys, named_of
from gateway.streams.start import Start
from tests.support.jobs import Jobs, body, eventually
from tests.support.processes import GatewayProcess
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer
from workers.delivery.runner import DONE

pytestmark = pytest.mark.asyncio(loop_scope="module")
JSON = {"accept": "application/json"}
CHAINS = """
import asyncio
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages

from holdfast_gateway import chain


class Team(TypedDict, total=False):
    messages: Annotated[list[Any], add_messages]
    active: str


@chain("team")
def team(settings):
    async def node(state):
        said = str(state["messages"][-1].content)
        if said.startswith("until "):
            while not Path(said.removeprefix("until ")).exists():
                await asyncio.sleep(0.02)
        active = "support" if said == "it is broken" else state.get("active", "sales")
        return {"messages": [AIMessage(f"{active} {len(state['messages'])}")], "active": active}

    return StateGraph(Team).add_node("node", node).add_edge(START, "node").compile()
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("chains")
    (folder / "threads_chains.py").write_text(CHAINS)
    async with RedisServer() as store:
        yield {
            "REDIS_URL": store.url,
            "GATEWAY_CHAINS": "threads_chains",
            "PYTHONPATH": str(folder),
            "GATEWAY_LEASE_SECONDS": "0.5",
            "GATEWAY_QUEUE_GRACE_SECONDS": "0.5",
        }


async def post(url: str, thread: str, said: str, strategy: str = "reject") -> httpx.Response:
    asked = {"user": said, "chain": "team", "thread": thread, "multitask_strategy": strategy}
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        return await http.post("/stream", json=asked)


async def status(url: str, stream_id: str) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        document: dict[str, Any] = (await http.get(f"/stream/{stream_id}", headers=JSON)).json()
        return document


async def is_in(url: str, stream_id: str, state: str) -> None:
    async def condition() -> bool:
        return bool((await status(url, stream_id))["status"] == state)

    await eventually(condition, 60)


async def test_whatever_is_killed_the_line_goes_on_and_the_agent_stays(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """A worker is killed in a run that others wait for, and the web process after it has displaced one."""
    thread, gate = str(uuid.uuid4()), tmp_path / "gate"
    async with GatewayProcess("web", environment) as web:
        async with GatewayProcess("worker", environment) as worker:
            first = (await post(web.url, thread, "it is broken")).json()["id"]
            await is_in(web.url, first, "done")
            running = (await post(web.url, thread, f"until {gate}")).json()["id"]
            line = [(await post(web.url, thread, "and now?", "enqueue")).json()["id"] for _ in range(2)]
            await is_in(web.url, running, "running")
            await worker.kill()
        gate.touch()
        async with GatewayProcess("worker", environment):
            for stream_id in (running, *line):
                await is_in(web.url, stream_id, "done")
            told = [(await status(web.url, one)) for one in (running, *line)]
            assert [one["text"] for one in told] == ["support 3", "support 5", "support 7"]
            assert [one["attempt"] for one in told] == [2, 1, 1]
            held = (await post(web.url, thread, f"until {tmp_path / 'never'}")).json()["id"]
            await is_in(web.url, held, "running")
            last = (await post(web.url, thread, "and now?", "rollback")).json()["id"]
            await web.kill()
            async with GatewayProcess("web", environment) as other:
                await is_in(other.url, last, "done")
                assert (await status(other.url, last))["text"] == "support 9"
                assert (await status(other.url, held))["status"] == "cancelled"
                async with httpx.AsyncClient(base_url=other.url) as http:
                    state = (await http.get(f"/threads/{thread}/state")).json()
                    assert state["values"]["active"] == "support"
                    assert [one["type"] for one in state["values"]["messages"]] == ["human", "ai"] * 5
                    assert (await http.delete(f"/threads/{thread}")).status_code == 204
                    assert (await http.get(f"/threads/{thread}/state")).json()["values"] == {}


async def test_a_thread_on_a_cluster_is_in_another_slot_than_its_streams() -> None:
    async def says(given: Any) -> AsyncIterator[str]:
        yield f"heard {given}"

    async with RedisCluster() as cluster, Jobs(cluster.url, says) as jobs:

        async def start(owner: str, strategy: str = "reject") -> str:
            asked = Start("under-test", {"input": "q"}, {}, thread="trip", strategy=strategy)
            return (await jobs.gateway.create(asked, owner=owner)).id

        started = await asyncio.gather(*(start("alice") for _ in range(8)), return_exceptions=True)
        [first] = [one for one in started if isinstance(one, str)]
        assert sum(isinstance(one, ThreadBusy) for one in started) == 7
        other = await start("bob")
        second, third = [await start("alice", "enqueue") for _ in range(2)]
        assert await jobs.runner.run(body(first)) == DONE
        state = await jobs.gateway.parts.threads.look("alice", "trip")
        assert (state.holder, state.waiting) == (second, (third,))
        last = await start("alice", "interrupt")
        state = await jobs.gateway.parts.threads.look("alice", "trip")
        assert (state.holder, state.waiting, state.leaving) == (last, (), {})
        assert await jobs.runner.run(body(last)) == DONE
        ended = await jobs.gateway.parts.turns.end("alice", "trip")
        assert sorted(ended) == sorted([first, second, third, last])
        keys = [*named_keys("alice", "trip"), *keys_of("alice", "trip"), named_of("alice")]
        assert not any([await jobs.connection.call("EXISTS", key) for key in keys])
        assert (await jobs.gateway.parts.threads.look("bob", "trip")).holder == other
