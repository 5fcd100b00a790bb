"""AG-UI with its official client, unmodified, on both hosts.

The events are exact after any cut. An agent that `resumes` uses the lines of docs/formats.md as its `fetch`:
`tests/node/agui.mjs` reads these lines.
"""

from __future__ import annotations

import json
import random
from typing import Any

import httpx
import pytest

from tests.hosts import NOBODY, TEXTS, Host
from tests.mortals import Mortal
from tests.support.agui import Meets, checked, frames_of, text_of
from tests.support.clean_ender import CleanEnder
from tests.support.cutter import Cutter
from tests.support.model_server import script

pytest_plugins = ("tests.hosts", "tests.mortals", "tests.support.agui")
pytestmark = pytest.mark.asyncio(loop_scope="session")

SAID = "".join(TEXTS)


def url_of(host: Host) -> str:
    return str(host.http.base_url).rstrip("/")


def body_of(text: str, run: str = "r1", thread: str = "t1", **more: Any) -> dict[str, Any]:
    """Return the body that a client sends."""
    message = {"id": "u", "role": "user", "content": text}
    known = {"threadId": thread, "runId": run, "messages": [message], "tools": [], "context": []}
    return {**known, "state": {}, "forwardedProps": {}, **more}


async def test_from_each_event_on_the_bytes_are_those_of_the_first_connection(host: Host) -> None:
    body = body_of(script(TEXTS), thread=f"bytes {host.name}")
    before = len(host.model.requests)
    whole = await host.http.post("/agui/chat", json=body)
    assert whole.status_code == 200, whole.text
    assert whole.headers["content-type"] == "text/event-stream"
    frames = frames_of(whole.content)
    kinds = checked([event for _, event in frames])
    assert kinds[:4] == ["RUN_STARTED", "MESSAGES_SNAPSHOT", "STEP_STARTED", "TEXT_MESSAGE_START"]
    assert kinds[-3:] == ["TEXT_MESSAGE_END", "STEP_FINISHED", "RUN_FINISHED"]
    deltas = [event["delta"] for _, event in frames if event["type"] == "TEXT_MESSAGE_CONTENT"]
    assert "".join(deltas) == SAID
    end = frames[-1][1]
    assert (end["threadId"], end["runId"], end["outcome"]) == (body["threadId"], "r1", {"type": "success"})
    again = {"messages": [*body["messages"], {"id": "half", "role": "assistant", "content": "what was told"}]}
    where = f"/agui/chat/r1?threadId=bytes {host.name}"
    for number in range(-1, len(frames), 3):
        cursor = {"last-event-id": frames[number][0]} if number >= 0 else {}
        rest = whole.content.split(b"\n\n", number + 1)[-1] if number >= 0 else whole.content
        posted = await host.http.post("/agui/chat", json={**body, **again}, headers=cursor)
        got = await host.http.get(where, headers=cursor)
        assert posted.content == got.content == rest, number
        assert posted.headers["x-stream-id"] == whole.headers["x-stream-id"]
    joined = await host.http.get(
        "/agui/chat", params={"runId": "r1", "threadId": body["threadId"], "offset": "-1"}
    )
    assert joined.content == whole.content
    assert len(host.model.requests) == before + 1  # The model was asked, and paid, only once.


async def test_what_a_client_may_not_ask(host: Host) -> None:
    right = body_of(script(["a"]), thread=f"refusals {host.name}")
    for change, status, field in (
        ({"threadId": ""}, 422, "threadId"),
        ({"runId": None}, 422, "runId"),
        ({"messages": []}, 422, "messages"),
        ({"messages": {}}, 422, "messages"),
        ({"messages": [{"id": "u", "role": "nobody", "content": "x"}]}, 422, "messages[0].role"),
        (
            {"messages": [{"id": "u", "role": "tool", "content": "x", "toolCallId": "c"}]},
            422,
            "messages[0].toolCallId",
        ),
        (
            {"messages": [{"id": "u", "role": "user", "content": [{"type": "audio"}]}]},
            422,
            "messages[0].content[0].type",
        ),
        ({"tools": [{"name": ""}]}, 422, "tools[0].name"),
        ({"context": [{"value": 1}]}, 422, "context[0]"),
        ({"resume": [{"interruptId": "i", "status": "maybe"}]}, 422, "resume[0].status"),
        ({"resume": [{"interruptId": "i", "status": "resolved"}]}, 409, None),
    ):
        answer = await host.http.post("/agui/chat", json={**right, **change})
        assert answer.status_code == status, change
        assert answer.headers["content-type"] == "application/json"
        told = answer.json()
        assert told["message"] == told["detail"]
        assert told.get("field") == field, change
    for path, headers, status, code in (
        ("/agui/nobody/r1", {}, 404, "not_found"),
        (f"/agui/chat/{NOBODY}", {}, 404, "not_found"),
        ("/agui/chat", {}, 422, "invalid"),
        ("/agui/chat/r1", {"last-event-id": "x"}, 400, "malformed"),
        ("/agui/chat?runId=r1&offset=now", {}, 400, "malformed"),
    ):
        answer = await host.http.get(path, headers=headers)
        assert answer.status_code == status, path
        assert (answer.json()["code"], bool(answer.json()["message"])) == (code, True)
    for chain, headers, status, code in (
        ("nobody", {}, 404, "chain_not_found"),
        ("chat", {"last-event-id": "1-abcd.0"}, 404, "not_found"),  # A run that has not begun has no events.
    ):
        answer = await host.http.post(f"/agui/{chain}", json=right, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_an_agent_asks_and_asks_again(host: Host, meets: Meets) -> None:
    agent = await meets(url_of(host))
    told = await agent.does("run", text=script(TEXTS))
    assert (told["error"], told["outcome"], text_of(told)) == (None, "success", SAID)
    assert told["warned"] == []
    checked(told["events"])
    more = await agent.does("run", text=script(["b"]))
    assert (more["error"], text_of(more)) == (None, "b")
    asked = host.model.requests[-1]["messages"]
    assert [one["role"] for one in asked] == ["user", "assistant", "user"]
    assert asked[1]["content"] == SAID
    assert [one["role"] for one in more["messages"]] == ["user", "assistant", "user", "assistant"]


async def test_cut_at_random_bytes_the_documents_lines_come_back(host: Host, meets: Meets) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    before = len(host.model.requests)
    for kind in (Cutter, CleanEnder):
        bounds = [0] * (kind is Cutter) + [rng.randrange(800, 2400) for _ in range(5)]
        async with kind(url_of(host), bounds) as between:
            agent = await meets(between.url, resumes=True)
            told = await agent.does("run", text=script(TEXTS * 3))
        assert len(told["asked"]) >= 3 - (kind is CleanEnder)
        assert (told["error"], told["outcome"], text_of(told)) == (None, "success", SAID * 3)
        checked(told["events"])
    assert len(host.model.requests) == before + 2


async def test_an_agent_without_these_lines_asks_for_the_same_run_again(host: Host, meets: Meets) -> None:
    """After a cut the run ends with an error.

    After a clean end between two events it ends without an error. The same run, requested again, is exact.
    """
    before = len(host.model.requests)
    for kind in (Cutter, CleanEnder):
        async with kind(url_of(host), [1300]) as between:
            agent = await meets(between.url)
            told = await agent.does("run", text=script(TEXTS), runId="once")
            assert (told["error"] is not None or kind is CleanEnder, told["outcome"]) == (True, None)
            assert 0 < len(text_of(told)) < len(SAID)
            told = await agent.does("run", runId="once")
        assert (told["error"], told["outcome"], text_of(told)) == (None, "success", SAID)
        assert len(told["messages"]) == 2
    assert len(host.model.requests) == before + 2


async def test_a_page_that_is_loaded_again_and_a_second_reader(host: Host, meets: Meets) -> None:
    gate = f"agui readers {host.name}"
    question = script(["a", "b", "c"], gate=gate, gate_at=2)
    first = await meets(url_of(host))
    await first.tell("run", text=question, runId="r")
    await first.shows("ab")
    second = await meets(
        url_of(host), thread=first.name
    )  # The second agent knows the run's id but has none of its messages.
    await second.tell("run", runId="r")
    await second.shows("ab")
    host.model.open_gate(gate)
    for agent in (first, second):
        told = await agent.ends("run")
        assert (told["error"], told["outcome"], text_of(told)) == (None, "success", "abc")
        assert told["messages"][0]["content"] == question
        assert len(told["messages"]) == 2
    assert first.did("run")[-1]["events"] == second.did("run")[-1]["events"]


async def test_who_goes_does_not_cancel_and_who_cancels_does(host: Host, meets: Meets) -> None:
    gate = f"agui cancel {host.name}"
    agent = await meets(url_of(host))
    await agent.tell("run", text=script(["a", "b"], gate=gate, gate_at=1), runId="r")
    await agent.shows("a")
    await agent.does("abort")
    await agent.ends("run")
    await agent.tell("run", runId="r")
    await agent.shows("a", times=2)
    status = await host.http.delete("/agui/chat/r", params={"threadId": agent.name})
    assert (status.status_code, status.json()["status"]) == (200, "cancelled")
    told = await agent.ends("run", times=2)
    assert (told["error"], told["outcome"], text_of(told)) == (None, "cancelled", "a")
    checked(told["events"])
    host.model.open_gate(gate)


async def test_a_failure_is_an_error_of_the_run(host: Host, meets: Meets) -> None:
    agent = await meets(url_of(host))
    told = await agent.does("run", text=script(["a"], status=400))
    end = told["events"][-1]
    assert (end["type"], end["code"]) == ("RUN_ERROR", "model_invalid_request")
    assert end["message"]
    checked(told["events"])
    refused = await (await meets(url_of(host), chain="nobody")).does("run", text="x")
    assert refused["error"]["status"] == 404
    assert refused["error"]["payload"]["code"] == "chain_not_found"


async def test_names_are_taken_as_pythons_clients_spell_them(host: Host) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        {"id": "u", "role": "user", "content": script(turns=[{}, {"chunks": ["b"]}])},
        {"id": "a", "role": "assistant", "tool_calls": [call]},
        {"id": "t", "role": "tool", "tool_call_id": "c", "content": "seen"},
    ]
    body = {"thread_id": f"snakes {host.name}", "run_id": "r", "messages": messages}
    answer = await host.http.post("/agui/chat", json=body)
    assert answer.status_code == 200, answer.text
    events = [event for _, event in frames_of(answer.content)]
    checked(events)
    assert (events[0]["threadId"], events[-1]["outcome"]["type"]) == (body["thread_id"], "success")
    assert [one["role"] for one in host.model.requests[-1]["messages"]] == ["user", "assistant", "tool"]


async def test_earlier_stages_are_reasoning(host: Host, meets: Meets) -> None:
    agent = await meets(url_of(host), chain="report")
    told = await agent.does("run", text=script(["One\nTwo"]))
    kinds = checked(told["events"])
    assert kinds.count("STEP_STARTED") == kinds.count("STEP_FINISHED") > 2
    assert [one["role"] for one in told["messages"] if one["role"] == "assistant"] == ["assistant"]
    assert "reasoning" in [one["role"] for one in told["messages"]]


async def test_a_json_result_is_the_runs(host: Host, meets: Meets) -> None:
    told = await (await meets(url_of(host), chain="figures")).does("run", text="x")
    checked(told["events"])
    assert told["result"] == {"total": 42, "of": ["é"]}
    assert [one["role"] for one in told["messages"]] == ["user"]


async def test_a_chain_is_handed_what_the_client_has(host: Host, meets: Meets) -> None:
    agent = await meets(url_of(host), chain="mirror", initialState={"colour": "red"})
    tool = {"name": "paint", "description": "Paint.", "parameters": {"type": "object", "properties": {}}}
    note = {"description": "where", "value": "here"}
    told = await agent.does("run", text="x", tools=[tool], context=[note], forwardedProps={"speed": 3})
    _, params = json.loads(text_of(told))
    assert params["tools"] == [{"type": "function", "function": tool}]
    assert (params["context"], params["state"]) == ([note], {"colour": "red"})
    assert params["forwarded_props"] == {"speed": 3}
    assert told["state"] == {"colour": "red"}


@pytest.mark.parametrize("is_same", [True, False])
async def test_a_worker_dies_and_the_run_goes_on(mortal: Mortal, meets: Meets, is_same: bool) -> None:
    """If the text of the second attempt is equal, no client sees the change of worker.

    If it differs, a snapshot has the valid text.
    """
    gate = f"agui mortal {mortal.name} {is_same}"
    options: dict[str, Any] = {} if is_same else {"again": ["x", "y", "z"]}
    agent = await meets(mortal.rotating_url, resumes=True)
    plain = await meets(mortal.url)
    async with mortal.worker() as first:
        for one in (agent, plain):
            question = script(["a", "b", "c"], gate=gate, gate_at=2, of=one.name, **options)
            await one.tell("run", text=question)
        for one in (agent, plain):
            await one.shows("ab")
        await first.kill()
    mortal.model.open_gate(gate)
    async with mortal.worker():
        for one in (agent, plain):
            told = await one.ends("run")
            kinds = checked(told["events"])
            assert (told["error"], told["outcome"]) == (None, "success")
            assert text_of(told) == ("abc" if is_same else "xyz")
            assert len(told["messages"]) == 2
            assert kinds.count("MESSAGES_SNAPSHOT") == (1 if is_same else 2)


async def test_a_stream_of_another_format_is_a_run_of_its_own_name(host: Host) -> None:
    where, _ = await host.finished(["a", "b"])
    answer = await host.http.get(f"/agui/chat/{where.rpartition('/')[2]}")
    kinds = checked([event for _, event in frames_of(answer.content)])
    assert (answer.status_code, kinds[0], kinds[-1]) == (200, "RUN_STARTED", "RUN_FINISHED")
    assert isinstance(answer, httpx.Response)
