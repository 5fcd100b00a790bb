"""Approvals of tool calls, requested and given by third-party clients.

The clients are the AI SDK and `openai`. One process, with a worker, runs agents with LangChain's
HumanInTheLoopMiddleware for all of these tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from openai import APIStatusError

from tests.openai_clients import by_python, javascript, python, stream_of
from tests.support.ai_sdk import Chat, Opens
from tests.support.processes import GatewayProcess
from tests.support.redis_server import RedisServer

pytest_plugins = ("tests.support.ai_sdk",)
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow, pytest.mark.timeout(300)]

NOBODY = "00" + "A" * 22  # It has the form of an id, but no stream has it.
KNOWING = (6, 7)  # The AI SDK versions that support approvals.
SENT = {"name": "send", "output": "sent to Ann"}
modes = pytest.mark.parametrize("chain", ["approves-all", "approves-each"])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def url(redis_server: RedisServer) -> AsyncIterator[str]:
    """Yield the URL of the gateway."""
    environment = {
        "REDIS_URL": redis_server.url,
        "GATEWAY_CHAINS": "tests.support.approving",
        "GATEWAY_MODEL": "none",
        "OPENAI_BASE_URL": "http://127.0.0.1:9",
    }
    async with GatewayProcess("all", environment) as process:
        yield process.url.rstrip("/")


async def document(url: str, stream_id: str) -> dict[str, Any]:
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"{url}/stream/{stream_id}", headers={"accept": "application/json"})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def asks(opens: Opens, url: str, version: int, chain: str, **more: Any) -> tuple[Chat, dict[str, Any]]:
    """Return a chat whose agent has asked for approval, and the state of that chat."""
    knows = version in KNOWING
    body = {"chain": chain, **({"approvals": True} if knows else {})}
    chat = await opens(url, version, body=body, approvals=knows, **more)
    return chat, await chat.does("send", text="q")


def states(told: dict[str, Any]) -> list[tuple[str, str]]:
    """Return name and state of each tool part in the last message."""
    return [(part["toolName"], part["state"]) for part in told["parts"] if part["type"] == "dynamic-tool"]


def approvals(told: dict[str, Any]) -> list[str]:
    return [part["approval"]["id"] for part in told["parts"] if part["type"] == "dynamic-tool"]


@modes
@pytest.mark.parametrize("version", KNOWING)
async def test_a_chat_asks_for_leave_and_goes_on(opens: Opens, url: str, version: int, chain: str) -> None:
    chat, told = await asks(opens, url, version, chain)
    assert (told["status"], told["error"], told["shown"]) == ("ready", None, "let me see")
    assert sorted(states(told)) == [("burn", "approval-requested"), ("send", "approval-requested")]
    waiting = told["messages"][1]["id"]
    assert (await document(url, waiting))["status"] == "waiting"
    if chain == "approves-each":  # The page is reloaded before anybody answers.
        told = await chat.does("reload")
    asked = dict(zip([name for name, _ in states(told)], approvals(told), strict=True))
    half = await chat.does("approve", id=asked["burn"], approved=False, reason="too hot")
    assert len(half["messages"]) == 2  # Nothing is sent until all questions have an answer.
    told = await chat.does("approve", id=asked["send"], approved=True)
    assert (told["status"], told["error"], told["shown"]) == ("ready", None, "so be it")
    assert [message["role"] for message in told["messages"]] == ["user", "assistant", "assistant"]
    [tool] = [part for part in told["parts"] if part["type"] == "dynamic-tool"]
    assert (tool["toolName"], tool["state"], tool["output"]) == ("send", "output-available", "sent to Ann")
    assert "approval-responded" not in [part.get("state") for part in told["messages"][2]["parts"]]
    before, after = [await document(url, message["id"]) for message in told["messages"][1:]]
    assert (before["status"], before["resumed_by"]) == ("done", after["id"])
    assert (after["status"], after["resumes"], after["resumed_by"]) == ("done", before["id"], None)
    assert (after["metadata"]["chat"], after["metadata"]["approvals"]) == (chat.name, True)
    more = await chat.does("send", text="And?")
    assert (more["status"], more["error"], len(more["messages"])) == ("ready", None, 5)


async def test_an_older_version_is_not_asked_and_comes_to_what_was_answered_elsewhere(
    opens: Opens, url: str
) -> None:
    chat, told = await asks(opens, url, 5, "approves-all", ended=True)
    assert (told["status"], told["error"], states(told)) == ("ready", None, [])
    message = told["messages"][1]
    [question] = message["metadata"]["interrupts"]
    decisions = [{"type": "approve"}, {"type": "reject"}]
    answer = {"interrupt_id": question["id"], "response": {"decisions": decisions}}
    async with httpx.AsyncClient() as http:
        made = await http.post(f"{url}/stream/{message['id']}/resume", json={"responses": [answer]})
    assert made.status_code == 202, made.text
    told = await chat.does("resume")
    assert (told["status"], told["error"], told["shown"]) == ("ready", None, "so be it")
    assert told["messages"][-1]["id"] == made.json()["id"]


@pytest.mark.parametrize("version", KNOWING)
async def test_an_answer_that_the_tool_does_not_take_is_refused_and_the_question_stays(
    opens: Opens, url: str, version: int
) -> None:
    chat, told = await asks(opens, url, version, "approves-no-refusal")
    [name] = approvals(told)
    told = await chat.does("approve", id=name, approved=False)
    assert told["status"] == "error"
    assert told["error"].endswith("may not be answered by reject: this tool takes other decisions")
    assert (await document(url, told["messages"][1]["id"]))["status"] == "waiting"


async def test_the_same_answer_again_is_the_same_stream_and_another_is_told_so(
    opens: Opens, url: str
) -> None:
    _, told = await asks(opens, url, 7, "approves-no-refusal")
    body = {"id": "c", "messages": told["messages"]}
    [part] = [part for part in body["messages"][1]["parts"] if part["type"] == "dynamic-tool"]
    part["state"] = "approval-responded"
    streams, codes = [], []
    async with httpx.AsyncClient() as http:
        for is_approved in (True, True, False):
            part["approval"]["approved"] = is_approved
            answer = await http.post(f"{url}/api/chat", json=body)
            streams.append(answer.headers.get("x-stream-id"))
            codes.append((answer.status_code, answer.headers.get("x-error-code")))
    assert codes == [(200, None), (200, None), (409, "already_answered")]
    assert streams[0] == streams[1] != told["messages"][1]["id"]


def answers(asked: list[dict[str, Any]]) -> list[Any]:
    """Answer each question: approve `send`, reject `burn`."""
    return [
        {
            "type": "mcp_approval_response",
            "approval_request_id": one["id"],
            "approve": one["name"] == "send",
            "reason": "too hot",
        }
        for one in asked
    ]


@modes
async def test_a_response_asks_for_leave_and_another_one_goes_on(url: str, chain: str) -> None:
    seen = await by_python(url, {"model": chain, "input": "q"})
    asked = [item for item in seen.response["output"] if item["type"] == "mcp_approval_request"]
    assert seen.response["status"] == "completed"
    assert sorted((item["name"], item["arguments"]) for item in asked) == [
        ("burn", '{"what":"it"}'),
        ("send", '{"to":"Ann"}'),
    ]
    done = [one["item"] for one in seen.events if one["type"] == "response.output_item.done"]
    assert [item for item in done if item["type"] == "mcp_approval_request"] == asked
    body: Any = {"model": chain, "input": answers(asked), "previous_response_id": seen.response["id"]}
    after = await by_python(url, body)
    calls = [item for item in after.response["output"] if item["type"] == "mcp_call"]
    assert [{name: item[name] for name in SENT} for item in calls] == [SENT]
    assert (after.text, after.response["previous_response_id"]) == ("so be it", seen.response["id"])
    told = await document(url, stream_of(after.response["id"]).rpartition("/")[2])
    assert told["resumes"] == stream_of(seen.response["id"]).rpartition("/")[2]
    async with python(url) as client:
        # The client repeats the request as if the answer was lost.
        same = await client.responses.create(**body)
        assert same.id == after.response["id"]
        other = [*body["input"][:1], {**body["input"][1], "approve": not body["input"][1]["approve"]}]
        with pytest.raises(APIStatusError) as caught:
            await client.responses.create(**{**body, "input": other})
        assert (caught.value.status_code, caught.value.code) == (409, "already_answered")
        more = await client.responses.create(model=chain, input="And?", previous_response_id=same.id)
    assert more.status == "completed"


async def test_openais_answers_in_javascript_and_by_items(url: str) -> None:
    chain = "approves-all"
    [first] = await javascript(url, "wait", body={"model": chain, "input": "q"})
    items = first["result"]["output"]
    asked = [item for item in items if item["type"] == "mcp_approval_request"]
    whole = [{"role": "user", "content": "q"}, *items, *answers(asked)]
    [second] = await javascript(url, "wait", body={"model": chain, "input": whole})
    assert second["result"]["output_text"] == "so be it"
    history = [*whole, *second["result"]["output"], {"role": "user", "content": "And?"}]
    [third] = await javascript(url, "wait", body={"model": chain, "input": history})
    assert third["result"]["status"] == "completed"


@pytest.mark.parametrize("broken", ["half", "none", "model", "previous", "refused"])
async def test_what_is_no_answer_to_a_response_is_refused_and_names_its_field(url: str, broken: str) -> None:
    chain = "approves-no-refusal" if broken == "refused" else "approves-all"
    async with python(url) as client:
        first = await client.responses.create(model=chain, input="q")
        asked = [item.to_dict() for item in first.output if item.type == "mcp_approval_request"]
        given = answers(asked)
        body: dict[str, Any] = {"model": chain, "input": given}
        at = "input[0].approval_request_id"
        if broken == "half":
            body["input"] = given[:1]
        elif broken == "none":
            nobodys = f"mcpr_{NOBODY}.{'a' * 32}.call"
            body["input"] = [{**given[0], "approval_request_id": nobodys}]
        elif broken == "model":
            body["model"], at = "approves-each", "model"
        elif broken == "previous":
            body["previous_response_id"], at = f"resp_{NOBODY}", "previous_response_id"
        else:
            given[0]["approve"] = False
        with pytest.raises(APIStatusError) as caught:
            await client.responses.create(**body)
    assert (caught.value.status_code, caught.value.param) == (404 if broken == "none" else 422, at)
    assert (await document(url, stream_of(first.id).rpartition("/")[2]))["status"] == "waiting"
