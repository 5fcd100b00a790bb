"""Questions and answers with npm's LangGraph SDK.

The cases are all the ways in which a graph may stop to ask, on one gateway.
test_format_langgraph_command.py has the same tests with PyPI's SDK.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.processes import GatewayProcess
from tests.support.programs import node
from tests.support.redis_server import RedisServer

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

MESSAGES = {"messages": [{"role": "user", "content": "q"}]}
TEXT = {"text": "q"}
APPROVE, EDIT = {"type": "approve"}, {"name": "send", "args": {"to": "Bob"}}
REQUEST = {"name": "send", "args": {"to": "Ann"}}

# For each case: the chain, its input, the answers, the questions of each run, and texts that the end must
# contain.
CASES: dict[str, tuple[str, Any, list[Any], list[list[Any]], list[str]]] = {
    "HumanInTheLoopMiddleware, approved": (
        *("approves", MESSAGES, [{"one": {"decisions": [APPROVE]}}]),
        *([[REQUEST], []], ["sent to Ann", "it is sent"]),
    ),
    "HumanInTheLoopMiddleware, edited": (
        *("approves", MESSAGES, [{"one": {"decisions": [{"type": "edit", "edited_action": EDIT}]}}]),
        *([[REQUEST], []], ["sent to Bob"]),
    ),
    "HumanInTheLoopMiddleware, rejected": (
        *("approves", MESSAGES, [{"one": {"decisions": [{"type": "reject", "message": "too early"}]}}]),
        *([[REQUEST], []], ["with reason: too early"]),
    ),
    "a raw interrupt": (
        *("asks_once", TEXT, [{"one": "yes"}]),
        *([[{"question": "Send it?"}], []], ["ask=yes"]),
    ),
    "two, one after the other": (
        *("asks_twice", TEXT, [{"one": 1}, {"one": {"n": 2}}]),
        *([["first?"], ["second?"], []], ["first=1 second={'n': 2}"]),
    ),
    "three side by side": (
        *("asks_thrice", TEXT, [{"each": {"a?": 1, "b?": "two", "c?": [3]}}]),
        *([["a?", "b?", "c?"], []], ["a=1 b=two c=[3]"]),
    ),
    "inside a subgraph": ("asks_within", TEXT, [{"one": "yes"}], [["ask?"], []], ["ask=yes"]),
    "inside a tool": (
        *("asks_in_a_tool", MESSAGES, [{"one": "a book"}]),
        *([[{"where": "cat"}], []], ["cat in a book", "it is there"]),
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told() -> AsyncIterator[dict[str, dict[str, Any]]]:
    """Yield what the SDK received in each case's runs. One script and one gateway run all cases."""
    cases = [
        {"name": name, "chain": chain, "input": given, "answers": answers}
        for name, (chain, given, answers, _, _) in CASES.items()
    ]
    async with RedisServer() as server:
        environment = {
            "REDIS_URL": server.url,
            "GATEWAY_CHAINS": "tests.support.asked_chains",
            "GATEWAY_MODEL": "none",
            "OPENAI_BASE_URL": "http://127.0.0.1:9",
        }
        async with GatewayProcess("all", environment) as gateway:
            lines = await node("langgraph.mjs", gateway.url, "answer", json.dumps({"cases": cases}))
    yield {line["name"]: line for line in lines}


def questions(asked: list[Any]) -> list[Any]:
    """Return the values of a run's questions, sorted.

    For the middleware's questions, return their requests.
    """
    requests = [one["action_requests"] for one in asked if isinstance(one, dict) and "action_requests" in one]
    plain = [{"name": one["name"], "args": one["args"]} for each in requests for one in each]
    return plain or sorted(asked, key=str)


@pytest.mark.parametrize("name", CASES)
async def test_a_question_is_read_and_answered(told: dict[str, dict[str, Any]], name: str) -> None:
    *_, asked, said = CASES[name]
    assert "error" not in told[name]
    seen = told[name]["turns"]
    assert [questions(turn["asked"]) for turn in seen] == asked
    assert all(turn["same"] for turn in seen)  # The stream and the thread's tasks have the same questions.
    *before, last = seen
    assert {(turn["thread"], turn["run"]) for turn in before} == {("interrupted", "interrupted")}
    assert (last["thread"], last["run"], last["next"]) == ("idle", "success", [])
    assert "__interrupt__" not in last["values"]
    whole = json.dumps(last["state"])
    assert [text for text in said if text not in whole] == []
