"""Questions during a run, with the official clients of A2A and MCP.

A task that asks continues under its own id.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from a2a.types import a2a_pb2 as a2a
from a2a.utils.errors import InvalidParamsError, UnsupportedOperationError
from mcp import Client as McpClient

from tests.a2a_clients import Assembled, asked, client_of, sent, text, told
from tests.support.processes import GatewayProcess
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.asyncio(loop_scope="module")
ASKS, COMPLETED = "TASK_STATE_INPUT_REQUIRED", "TASK_STATE_COMPLETED"
GIVEN = {"data": {"text": "q"}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url() -> AsyncIterator[str]:
    """Yield the URL of a gateway whose chains ask questions."""
    async with RedisServer() as server:
        environment = {
            "REDIS_URL": server.url,
            "GATEWAY_CHAINS": "tests.support.asked_chains",
            "GATEWAY_MODEL": "none",
            "OPENAI_BASE_URL": "http://127.0.0.1:9",
        }
        async with GatewayProcess("all", environment) as gateway:
            yield gateway.url


def question(seen: Assembled) -> list[Any]:
    """Return the questions in the task's status."""
    parts = seen.status["message"]["parts"]
    assert all(part["metadata"]["interrupt"]["id"] for part in parts)
    return [part.get("data", part.get("text")) for part in parts]


async def test_the_next_message_answers_and_the_task_goes_on_under_its_id(url: str) -> None:
    async with client_of(url, "asks_once") as client:
        first = Assembled(await sent(client, asked(GIVEN)))
        assert (first.states[-1], question(first)) == (ASKS, [{"question": "Send it?"}])
        answer = asked(text("yes"), task_id=first.id, context_id=first.context, message_id="the answer")
        events = await sent(client, answer)
        second = Assembled(events)
        assert next(iter(events[0])) == "task"
        assert (second.id, second.context, second.states[-1]) == (first.id, first.context, COMPLETED)
        assert second.texts == [*first.texts, "ask=yes"]
        task = told(await client.get_task(a2a.GetTaskRequest(id=first.id)))
        assert Assembled([{"task": task}]).texts == second.texts
        again = Assembled(await sent(client, answer))
        assert (again.texts, again.states[-1]) == (second.texts, COMPLETED)
        with pytest.raises(UnsupportedOperationError):  # Another message to a task that has ended.
            await sent(client, asked(text("yes"), task_id=first.id))


async def test_an_answer_again_is_no_answer_to_the_next_question(url: str) -> None:
    async with client_of(url, "asks_twice") as client:
        first = Assembled(await sent(client, asked(GIVEN)))
        answer = asked({"data": 1}, task_id=first.id, message_id="one")
        assert question(Assembled(await sent(client, answer))) == ["second?"]
        assert question(Assembled(await sent(client, answer))) == ["second?"]
        with pytest.raises(UnsupportedOperationError):  # The same message id with another answer.
            await sent(client, asked({"data": 2}, task_id=first.id, message_id="one"))
        last = Assembled(await sent(client, asked({"data": {"n": 2}}, task_id=first.id)))
    assert last.states[-1] == COMPLETED
    assert last.texts[-1] == "first=1.0 second={'n': 2.0}"


async def test_several_questions_are_answered_by_their_ids(url: str) -> None:
    async with client_of(url, "asks_thrice") as client:
        first = Assembled(await sent(client, asked(GIVEN)))
        assert sorted(question(first)) == ["a?", "b?", "c?"]
        with pytest.raises(InvalidParamsError):
            await sent(client, asked(text("yes"), task_id=first.id))
        names = {
            part["text"]: part["metadata"]["interrupt"]["id"] for part in first.status["message"]["parts"]
        }
        given = {"data": {names["a?"]: "1", names["b?"]: "two", names["c?"]: "3"}}
        last = Assembled(await sent(client, asked(given, task_id=first.id)))
    assert last.texts[-1] == "a=1 b=two c=3"


async def test_a_task_that_asks_is_cancelled_and_its_context_takes_no_other_meanwhile(url: str) -> None:
    async with client_of(url, "asks_once") as client:
        first = Assembled(await sent(client, asked(GIVEN)))
        with pytest.raises(UnsupportedOperationError):
            await sent(client, asked(GIVEN, context_id=first.context))
        with pytest.raises(InvalidParamsError):
            await sent(client, asked(text("yes"), task_id=first.id, context_id="another"))
        [task] = [told(one) async for one in client.subscribe(a2a.SubscribeToTaskRequest(id=first.id))]
        assert task["task"]["status"]["state"] == ASKS
        cancelled = told(await client.cancel_task(a2a.CancelTaskRequest(id=first.id)))
        assert cancelled["status"]["state"] == "TASK_STATE_CANCELED"
        with pytest.raises(UnsupportedOperationError):
            await sent(client, asked(text("yes"), task_id=first.id))


async def test_a_tool_that_asks_says_so_and_how_it_goes_on(url: str) -> None:
    async with McpClient(f"{url}/mcp") as client, httpx.AsyncClient(base_url=url) as http:
        result = await client.call_tool("asks_once", {"text": "q"})
        assert result.is_error
        known = result.structured_content
        assert [one["value"] for one in known["interrupts"]] == [{"question": "Send it?"}]
        given = [{"interrupt_id": one["id"], "response": "yes"} for one in known["interrupts"]]
        answer = await http.post(f"/stream/{known['stream']}/resume", json={"responses": given})
        assert answer.status_code == 202
