"""Unmodified AG-UI agents with chains that ask, pass on tool calls, and have sub-agents and a state."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.agui import Agent, Meets, checked, frames_of, text_of
from tests.support.processes import GatewayProcess
from tests.support.redis_server import RedisServer

pytest_plugins = ("tests.support.agui",)
pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def url(redis_server: RedisServer) -> AsyncIterator[str]:
    """Yield the URL of the gateway."""
    environment = {
        "REDIS_URL": redis_server.url,
        "GATEWAY_CHAINS": "tests.support.agui_chains",
        "GATEWAY_MODEL": "none",
        "OPENAI_BASE_URL": "http://127.0.0.1:9",
    }
    async with GatewayProcess("all", environment) as process:
        yield process.url.rstrip("/")


async def asks(meets: Meets, url: str, chain: str) -> tuple[Agent, dict[str, Any]]:
    """Return an agent whose run has asked a question, and the state of that agent."""
    agent = await meets(url, chain)
    told = await agent.does("run", text="q", runId="asks")
    assert (told["error"], told["outcome"]) == (None, "interrupt")
    kinds = checked(told["events"])
    assert kinds[-3:] == ["STATE_SNAPSHOT", "MESSAGES_SNAPSHOT", "RUN_FINISHED"]
    return agent, told


def answered(told: dict[str, Any], *payloads: Any) -> list[dict[str, Any]]:
    """Return these payloads as answers to the open interrupts."""
    return [
        {"interruptId": one["id"], "status": "resolved", "payload": payload}
        for one, payload in zip(told["pendingInterrupts"], payloads, strict=True)
    ]


async def test_a_question_is_answered_in_the_next_run(url: str, meets: Meets) -> None:
    agent, told = await asks(meets, url, "asks")
    [question] = told["pendingInterrupts"]
    assert (question["reason"], question["message"]) == ("input_required", "Send it?")
    assert question["metadata"] == {"value": {"question": "Send it?"}}
    async with httpx.AsyncClient() as http:  # Other input is refused while the thread waits.
        body = {
            "threadId": agent.name,
            "runId": "more",
            "messages": [{"id": "x", "role": "user", "content": "x"}],
        }
        busy = await http.post(f"{url}/agui/asks", json=body)
        assert (busy.status_code, busy.json()["code"]) == (409, "thread_waiting")
        resume = [{"interruptId": "no", "status": "resolved", "payload": 1}]
        wrong = await http.post(f"{url}/agui/asks", json={**body, "resume": resume})
        assert (wrong.status_code, wrong.json()["code"]) == (422, "unknown_interrupt")
    resume = answered(told, "yes")
    told = await agent.does("run", resume=resume, runId="answers")
    assert (told["error"], told["outcome"], text_of(told)) == (None, "success", "ask=yes")
    assert told["pendingInterrupts"] == []
    checked(told["events"])
    first = told["events"]
    async with httpx.AsyncClient() as http:
        body = {"threadId": agent.name, "messages": [], "resume": resume}
        # The second request starts no new run, whatever its run id is.
        for run in ("answers", "the same answers"):
            again = await http.post(f"{url}/agui/asks", json={**body, "runId": run})
            assert [event for _, event in frames_of(again.content)] == first
        other = [{**resume[0], "payload": "no"}]
        refused = await http.post(f"{url}/agui/asks", json={**body, "resume": other, "runId": "other"})
        assert (refused.status_code, refused.json()["code"]) == (409, "already_answered")
    more = await agent.does("run", text="once more")
    assert more["outcome"] == "interrupt"


async def test_an_answer_is_held_against_its_schema(url: str, meets: Meets) -> None:
    agent, told = await asks(meets, url, "asks-by-schema")
    assert told["pendingInterrupts"][0]["responseSchema"]["required"] == ["ok"]
    wrong = await agent.does("run", resume=answered(told, {"ok": 1}))
    assert (wrong["error"]["status"], wrong["error"]["payload"]["code"]) == (422, "invalid")
    right = await agent.does("run", resume=answered(told, {"ok": True}))
    assert (right["error"], right["outcome"], text_of(right)) == (None, "success", "ask={'ok': True}")


async def test_a_question_that_is_abandoned_gives_nothing(url: str, meets: Meets) -> None:
    agent, told = await asks(meets, url, "asks-thrice")
    assert len(told["pendingInterrupts"]) == 3
    resume = [{"interruptId": one["id"], "status": "cancelled"} for one in told["pendingInterrupts"]]
    told = await agent.does("run", resume=resume)
    assert (told["error"], text_of(told)) == (None, "a=None b=None c=None")


@pytest.mark.parametrize("chain", ["approves-all", "approves-each"])
async def test_leave_to_call_tools_is_asked_for_each(url: str, meets: Meets, chain: str) -> None:
    agent, told = await asks(meets, url, chain)
    assert [one["reason"] for one in told["pendingInterrupts"]] == ["confirmation"] * 2
    names = [one["metadata"]["tool"] for one in told["pendingInterrupts"]]
    assert sorted(names) == ["burn", "send"]
    payloads = [{"approved": name == "send", "reason": "too hot"} for name in names]
    half = await agent.does("run", resume=answered(told, *payloads)[:1])
    assert "not addressed" in half["error"]["message"]  # The client does not send only a part of the answers.
    told = await agent.does("run", resume=answered(told, *payloads))
    assert (told["error"], told["outcome"], text_of(told)) == (None, "success", "so be it")
    checked(told["events"])
    results = [event["content"] for event in told["events"] if event["type"] == "TOOL_CALL_RESULT"]
    assert results == ["sent to Ann"]
    more = await agent.does("run", text="And?")
    assert more["error"] is None


async def test_the_clients_tool_is_called_and_its_answer_asked(url: str, meets: Meets) -> None:
    agent = await meets(url, "paints")
    tool = {"name": "paint", "description": "Paint.", "parameters": {"type": "object", "properties": {}}}
    told = await agent.does("run", text="q", tools=[tool])
    kinds = checked(told["events"])
    assert [kind for kind in kinds if kind.startswith("TOOL")] == [
        "TOOL_CALL_START",
        "TOOL_CALL_ARGS",
        "TOOL_CALL_END",
    ]
    [call] = told["messages"][-1]["toolCalls"]
    assert call["function"] == {"name": "paint", "arguments": '{"colour":"red"}'}
    assert told["events"][-1]["outcome"] == {"type": "success", "pendingToolCallIds": [call["id"]]}
    answer = {"id": "a", "role": "tool", "toolCallId": call["id"], "content": "painted"}
    told = await agent.does("run", messages=[*told["messages"], answer], tools=[tool])
    assert (told["error"], text_of(told)) == (None, "it is painted")


async def test_a_tool_that_is_an_agent_is_a_sub_agent(url: str, meets: Meets) -> None:
    agent = await meets(url, "delegates")
    told = await agent.does("run", text="q")
    kinds = checked(told["events"])
    assert (told["error"], text_of(told)) == (None, "so it is")
    assert (kinds.count("SUBAGENT_STARTED"), kinds.count("SUBAGENT_FINISHED")) == (1, 1)
    [begun] = [event for event in told["events"] if event["type"] == "SUBAGENT_STARTED"]
    [outer] = [one for one in told["messages"] if one.get("toolCalls") and "subagentRunId" not in one]
    assert (begun["name"], begun["parentToolCallId"]) == ("research", outer["toolCalls"][0]["id"])
    below = [one for one in told["messages"] if one.get("subagentRunId") == begun["subagentRunId"]]
    assert [one.get("content") for one in below if one["role"] == "assistant" and one.get("content")] == [
        "I look",
        "it is loud",
    ]
    assert "CATS" in [one["content"] for one in below if one["role"] == "tool"]
    assert (await agent.does("run", text="again"))["error"] is None


async def test_a_state_is_told_and_comes_back(url: str, meets: Meets) -> None:
    agent = await meets(url, "counts", initialState={"count": 4})
    told = await agent.does("run", text="q")
    checked(told["events"])
    assert told["state"] == {"count": 5}
    [noted] = [event for event in told["events"] if event["type"] == "CUSTOM"]
    assert (noted["name"], noted["value"]) == ("noted", {"by": "counts"})
    assert (await agent.does("run", text="q"))["state"] == {"count": 6}
