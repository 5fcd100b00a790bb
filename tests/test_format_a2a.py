"""A2A 1.0 on both hosts: with the unmodified `a2a-sdk` from PyPI, and by plain HTTP for the other cases."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import httpx
import pytest
from a2a.types import a2a_pb2 as a2a
from a2a.utils.errors import InvalidParamsError, TaskNotCancelableError, UnsupportedOperationError

from tests.a2a_clients import Assembled, asked, client_of, sent, text, told
from tests.hosts import NOBODY, TEXTS, Host, until
from tests.support.model_server import script
from tests.support.programs import node, talking

pytest_plugins = ("tests.hosts",)
pytestmark = pytest.mark.asyncio(loop_scope="session")
WENT_WELL = ["TASK_STATE_SUBMITTED", "TASK_STATE_WORKING", "TASK_STATE_COMPLETED"]


def url_of(host: Host) -> str:
    return str(host.http.base_url).rstrip("/")


async def test_a_message_is_a_task_whose_answer_is_one_artifact(host: Host) -> None:
    async with client_of(url_of(host)) as client:
        events = await sent(client, asked(text(script(TEXTS))))
        seen = Assembled(events)
        assert (seen.states, seen.texts) == (WENT_WELL, ["".join(TEXTS)])
        assert seen.whole == {seen.id}
        task = told(await client.get_task(a2a.GetTaskRequest(id=seen.id)))
    assert Assembled([{"task": task}]).texts == seen.texts
    assert (task["contextId"], task["status"]["state"]) == (seen.context, WENT_WELL[-1])


async def rpc(
    host: Host, method: str, params: Any, *, chain: str = "chat", name: Any = 1, **headers: str
) -> httpx.Response:
    """Send one call by HTTP."""
    body = {"jsonrpc": "2.0", "id": name, "method": method, "params": params}
    return await host.http.post(f"/a2a/{chain}", json=body, headers=headers)


def message(words: str, message_id: str, **fields: Any) -> dict[str, Any]:
    parts = [{"text": words}]
    return {"message": {"messageId": message_id, "role": "ROLE_USER", "parts": parts, **fields}}


def frames_of(body: bytes) -> list[tuple[str, Any]]:
    """Return the id and the data of each frame."""
    found = []
    for frame in body.split(b"\n\n")[:-1]:
        first, last = (line for line in frame.split(b"\n") if line != b":")
        assert (first[:4], last[:6]) == (b"id: ", b"data: ")
        found.append((first[4:].decode(), json.loads(last[6:])))
    return found


async def test_it_is_told_whole_at_the_end_or_at_once_as_it_stands(host: Host) -> None:
    gate = f"a2a-at-once-{host.name}"
    async with client_of(url_of(host), streaming=False) as client:
        [whole] = await sent(client, asked(text(script(["a", "b"]))))
        assert Assembled([whole]).texts == ["ab"]
        assert whole["task"]["status"]["state"] == WENT_WELL[-1]
    async with client_of(url_of(host), streaming=False, polling=True) as client:
        [standing] = await sent(client, asked(text(script(["a", "b"], gate=gate))))
        assert standing["task"]["status"]["state"] in WENT_WELL[:2]
        host.model.open_gate(gate)
        name = standing["task"]["id"]
        ended = await until(
            lambda: client.get_task(a2a.GetTaskRequest(id=name)),
            lambda task: task.status.state == a2a.TaskState.TASK_STATE_COMPLETED,
        )
    assert Assembled([{"task": told(ended)}]).texts == ["ab"]


async def test_a_message_again_is_the_same_task_and_another_body_is_refused(host: Host) -> None:
    words, name = script(["once"]), f"again-{host.name}"
    async with client_of(url_of(host)) as client:
        first = await sent(client, asked(text(words), message_id=name))
        again = await sent(client, asked(text(words), message_id=name))
        assert first == again
        with pytest.raises(InvalidParamsError):
            await sent(client, asked(text(script(["other"])), message_id=name))


async def test_a_context_remembers_and_data_is_the_input_itself(host: Host) -> None:
    async with client_of(url_of(host), "mirror") as client:
        first = Assembled(await sent(client, asked(text("one"))))
        second = Assembled(await sent(client, asked(text("two"), context_id=first.context)))
        data = Assembled(await sent(client, asked({"data": {"n": [1.5, "é"]}})))
        known = Assembled(await sent(client, asked(text("q"), metadata={"params": {"depth": 2}, "of": "me"})))
    said = json.loads(second.texts[0])[0]
    assert [one["content"] for one in said] == ["one", first.texts[0], "two"]
    assert second.context == first.context
    assert second.id != first.id
    assert json.loads(data.texts[0])[0] == {"n": [1.5, "é"]}
    assert json.loads(known.texts[0])[1]["depth"] == 2
    assert (await host.status(f"/stream/{known.id}"))["metadata"] == {"of": "me"}


async def test_an_image_beside_a_text_is_the_users_message(host: Host) -> None:
    async with client_of(url_of(host), "mirror") as client:
        image = {"raw": "iVBORw==", "mediaType": "image/png"}
        seen = Assembled(await sent(client, asked(text("what?"), image)))
    assert json.loads(seen.texts[0])[0][-1]["content"] == [
        {"type": "text", "text": "what?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
    ]


async def test_a_task_waits_for_its_turn_in_its_context(host: Host) -> None:
    gate, context = f"a2a-turn-{host.name}", f"turn-{host.name}"
    async with client_of(url_of(host), streaming=False, polling=True) as client:
        [one] = await sent(client, asked(text(script(["a"], gate=gate)), context_id=context))
        [two] = await sent(client, asked(text(script(["b"])), context_id=context))
        assert two["task"]["status"]["state"] == WENT_WELL[0]
        host.model.open_gate(gate)
        for task, words in ((one, "a"), (two, "b")):
            ask = partial(client.get_task, a2a.GetTaskRequest(id=task["task"]["id"]))
            ended = await until(ask, lambda found: found.status.state == a2a.TaskState.TASK_STATE_COMPLETED)
            assert Assembled([{"task": told(ended)}]).texts == [words]


async def test_a_result_that_is_json_is_a_part_of_data(host: Host) -> None:
    async with client_of(url_of(host), "figures") as client:
        seen = Assembled(await sent(client, asked(text("q"))))
    parts = [part for part in seen.artifacts[seen.id] if part.get("text") != ""]
    assert [part["data"] for part in parts] == [{"total": 42, "of": ["é"]}]


async def test_a_task_is_cancelled_once(host: Host) -> None:
    gate = f"a2a-cancel-{host.name}"
    async with client_of(url_of(host)) as client:
        seen = Assembled()
        async for event in client.send_message(asked(text(script(["a", "b"], gate=gate, gate_at=1)))):
            seen.take(told(event))
            if seen.texts == ["a"] and seen.states[-1] == WENT_WELL[1]:
                task = told(await client.cancel_task(a2a.CancelTaskRequest(id=seen.id)))
                assert task["status"]["state"] == "TASK_STATE_CANCELED"
        with pytest.raises(TaskNotCancelableError):
            await client.cancel_task(a2a.CancelTaskRequest(id=seen.id))
        with pytest.raises(UnsupportedOperationError):
            await sent(client, asked(text("more"), task_id=seen.id))
    assert seen.states == [*WENT_WELL[:2], "TASK_STATE_CANCELED"]
    host.model.open_gate(gate)


async def test_a_failure_is_a_state_with_our_words_and_our_code(host: Host) -> None:
    async with client_of(url_of(host)) as client:
        events = await sent(client, asked(text(script([], status=400))))
    seen = Assembled(events)
    document = await host.status(f"/stream/{seen.id}")
    assert seen.states[-1] == "TASK_STATE_FAILED"
    assert seen.status["message"]["parts"] == [{"text": document["error"]["message"]}]
    assert events[-1]["statusUpdate"]["metadata"]["code"] == document["error"]["code"]


async def test_a_subscription_begins_with_the_whole_task_and_goes_on(host: Host) -> None:
    gate = f"a2a-subscribe-{host.name}"
    async with client_of(url_of(host)) as client:
        first = Assembled()
        async for event in client.send_message(asked(text(script(["a", "b", "c"], gate=gate, gate_at=2)))):
            first.take(told(event))
            if first.texts == ["ab"]:
                break  # A reader that disconnects does not end the task.
        second, kinds = Assembled(), []
        async for event in client.subscribe(a2a.SubscribeToTaskRequest(id=first.id)):
            second.take(told(event))
            kinds.append(next(iter(told(event))))
            if kinds == ["task"]:
                assert second.texts == ["ab"]
                host.model.open_gate(gate)
        assert (second.texts, second.states[-1]) == (["abc"], WENT_WELL[-1])
        assert kinds.count("task") == 1
        with pytest.raises(UnsupportedOperationError):
            _ = [one async for one in client.subscribe(a2a.SubscribeToTaskRequest(id=first.id))]


async def test_each_event_has_an_id_after_which_the_rest_is_the_same_bytes(host: Host) -> None:
    asked_for = message(script(TEXTS), f"exact-{host.name}")
    whole = (await rpc(host, "SendStreamingMessage", asked_for)).content
    frames = frames_of(whole)
    assert len({name for name, _ in frames}) == len(frames)
    task = frames[0][1]["result"]["task"]["id"]
    for at, (name, _) in enumerate(frames):
        rest = b"".join(frame + b"\n\n" for frame in whole.split(b"\n\n")[at + 1 : -1])
        for method, params in (("SendStreamingMessage", asked_for), ("SubscribeToTask", {"id": task})):
            answer = await rpc(host, method, params, **{"last-event-id": name})
            assert answer.content == rest
    other = await rpc(
        host, "SubscribeToTask", {"id": task}, name="é\u2028", **{"last-event-id": frames[0][0]}
    )
    assert [told["result"] for _, told in frames_of(other.content)] == [
        told["result"] for _, told in frames[1:]
    ]
    assert {told["id"] for _, told in frames_of(other.content)} == {"é\u2028"}


async def test_refusals_are_in_a2as_words(host: Host) -> None:
    good = message("q", f"refused-{host.name}")
    cases = [
        ("GetTask", {"id": NOBODY}, -32001),
        ("GetTask", {}, -32602),
        ("CancelTask", {"id": "x"}, -32001),
        ("SendMessage", {}, -32602),
        ("SendMessage", {"message": {**good["message"], "role": "ROLE_AGENT"}}, -32602),
        ("SendMessage", {"message": {**good["message"], "parts": []}}, -32602),
        ("SendMessage", {"message": {**good["message"], "messageId": ""}}, -32602),
        ("SendMessage", {"message": {**good["message"], "taskId": NOBODY}}, -32001),
        ("SendMessage", {**good, "tenant": "t"}, -32602),
        ("SendMessage", {**good, "configuration": {"acceptedOutputModes": ["audio/ogg"]}}, -32005),
        (
            "SendMessage",
            {**good, "configuration": {"taskPushNotificationConfig": {"url": "https://a"}}},
            -32003,
        ),
        (
            "SendMessage",
            {"message": {**good["message"], "parts": [{"raw": "AA==", "mediaType": "a/b"}]}},
            -32005,
        ),
        ("message/send", good, -32601),
    ]
    for method, params, code in cases:
        answer = await rpc(host, method, params)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], answer.json()["id"]) == (200, code, 1), (method, params)
        assert error["data"][0]["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    for header, code in {"0.3": -32009, "1.0.1": -32001}.items():
        answer = await rpc(host, "GetTask", {"id": NOBODY}, **{"a2a-version": header})
        assert answer.json()["error"]["code"] == code
    bare = await host.http.post("/a2a/chat", content=b"{", headers={"content-type": "application/json"})
    assert (bare.status_code, bare.json()["error"]["code"], bare.json()["id"]) == (200, -32700, None)
    batch = await host.http.post("/a2a/chat", json=[])
    assert batch.json()["error"]["code"] == -32600
    assert (await rpc(host, "GetTask", {"id": NOBODY}, chain="none")).status_code == 404


async def test_a_task_is_of_its_chain_alone_and_may_be_of_another_format(host: Host) -> None:
    where, _ = await host.finished(["ours"])
    name = where.rpartition("/")[2]
    task = (await rpc(host, "GetTask", {"id": name})).json()["result"]
    assert (task["contextId"], Assembled([{"task": task}]).texts) == (name, ["ours"])
    assert (await rpc(host, "GetTask", {"id": name}, chain="mirror")).json()["error"]["code"] == -32001


async def test_the_card_says_where_the_agent_is(host: Host) -> None:
    card = (await host.http.get("/.well-known/agent-card.json")).json()
    own = (await host.http.get("/a2a/chat/.well-known/agent-card.json")).json()
    assert card == own
    assert card["supportedInterfaces"] == [
        {"url": f"{url_of(host)}/a2a/chat", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    ]
    forwarded = await host.http.get(
        "/a2a/chat/.well-known/agent-card.json", headers={"x-forwarded-proto": "https"}
    )
    assert forwarded.json()["supportedInterfaces"][0]["url"].startswith("https://")
    assert (await host.http.get("/a2a/none/.well-known/agent-card.json")).status_code == 404


async def test_npms_client_does_the_same(host: Host) -> None:
    url, gate = url_of(host), f"a2a-node-{host.name}"

    async def asked_by_node(verb: str, given: Any) -> list[dict[str, Any]]:
        return await node("a2a.mjs", url, "chat", json.dumps({verb: given}))

    *events, last = await asked_by_node("stream", message(script(TEXTS), f"{gate}-1"))
    seen = Assembled([line["event"] for line in events])
    assert (seen.states, seen.texts, last) == (WENT_WELL, ["".join(TEXTS)], {"result": True})
    [got] = await asked_by_node("get", seen.id)
    assert Assembled([{"task": got["result"]}]).texts == seen.texts
    [refused] = await asked_by_node("cancel", seen.id)
    assert refused["error"] == "TaskNotCancelableError"
    at_once = {"configuration": {"returnImmediately": True}}
    words = script(["a", "b"], gate=gate)
    [standing] = await asked_by_node("send", {**message(words, f"{gate}-2"), **at_once})
    async with talking("a2a.mjs", url, "chat", json.dumps({"subscribe": standing["result"]["id"]})) as talk:
        await talk.until(len)
        host.model.open_gate(gate)
        *events, last = await talk.end()
    assert Assembled([line["event"] for line in events]).texts == ["ab"]
    assert last == {"result": True}
