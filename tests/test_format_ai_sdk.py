"""Vercel's AI SDK, versions 5 to 7, unmodified.

Checked: chats on both hosts, through cuts and the deaths of workers.
"""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from tests.hosts import Host, until
from tests.mortals import Mortal
from tests.support.ai_sdk import VERSIONS, Chat, Opens
from tests.support.clean_ender import CleanEnder
from tests.support.cutter import Cutter
from tests.support.model_server import DEFAULT_TEXT, script
from tests.support.processes import REPOSITORY
from tests.support.programs import Talk

pytest_plugins = ("tests.hosts", "tests.mortals", "tests.support.ai_sdk")
pytestmark = pytest.mark.asyncio(loop_scope="session")

TEXTS = [f"{number} {text}\n\n" for number, text in enumerate(["é", "\u2028", "data: x", "\U0001f600"] * 5)]
DOCUMENTS = sorted((REPOSITORY / "docs").glob("formats*.md"))
CODE = re.compile(r"```js\n((?:(?!```).)*DefaultChatTransport.*?)```", re.DOTALL)
IMAGE = "data:image/png;base64,iVBORw0KGgo="


def url(host: Host) -> str:
    return str(host.http.base_url)


def asked(host: Host) -> list[dict[str, Any]]:
    """Return the messages of the last request to the model."""
    messages: list[dict[str, Any]] = host.model.requests[-1]["messages"]
    return messages


def kinds(parts: list[dict[str, Any]]) -> list[str]:
    return [part["type"] for part in parts]


async def test_a_message_is_answered_and_the_conversation_goes_on(
    host: Host, opens: Opens, version: int
) -> None:
    chat, first, second = await opens(url(host), version), script(TEXTS, of=version), script(["2"])
    told = await chat.does("send", text=first)
    assert (told["status"], told["error"], told["shown"]) == ("ready", None, "".join(TEXTS))
    assert kinds(told["messages"][1]["parts"]) == ["step-start", "text"]
    assert told["messages"][1]["parts"][1]["state"] == "done"
    assert [message["role"] for message in told["messages"]] == ["user", "assistant"]
    metadata = told["messages"][1]["metadata"]
    assert (metadata["status"], metadata["chain"], metadata["finish_reason"]) == ("done", "chat", "stop")
    assert metadata["usage"]["output_tokens"] == len(TEXTS)
    assert told["finish"]["finishReason"] == "stop"
    stages = [part["data"]["state"] for part in told["data"] if part["type"] == "data-stage"]
    assert stages == ["started", "finished"]
    document = await host.status("/stream/" + told["messages"][1]["id"])
    assert (document["text"], document["metadata"]) == (told["shown"], {"chat": chat.name})

    told = await chat.does(
        "send", text=second, files=[{"type": "file", "mediaType": "image/png", "url": IMAGE}]
    )
    assert (told["status"], told["error"], len(told["messages"])) == ("ready", None, 4)
    assert asked(host)[:2] == [
        {"role": "user", "content": first},
        {"role": "assistant", "content": "".join(TEXTS)},
    ]
    image, text = asked(host)[2]["content"]
    assert (image["image_url"], text["text"]) == ({"url": IMAGE}, second)


async def test_a_tool_that_the_page_runs_is_told_and_its_answer_is_asked(
    host: Host, opens: Opens, version: int
) -> None:
    chat = await opens(url(host), version, tools=True)
    calls = [{"name": "look", "pieces": ['{"q": "é"}']}, {"name": "look", "pieces": ["{}"]}]
    question = script(turns=[{"tool_calls": calls}, {"chunks": ["So ", "it is."]}], of=version)
    told = await chat.does("send", text=question)
    assert (told["status"], told["error"], told["finish"]["finishReason"]) == ("ready", None, "tool-calls")
    first, second = told["calls"]
    assert [(one["toolName"], one["input"]) for one in told["calls"]] == [("look", {"q": "é"}), ("look", {})]
    ids = [first["toolCallId"], second["toolCallId"]]
    await chat.does("answer", tool="look", toolCallId=ids[0], output={"is": "sunny"})
    told = await chat.does("answer", tool="look", toolCallId=ids[1], output="yes")
    assert (told["status"], told["error"], told["shown"]) == ("ready", None, "So it is.")
    assert [message["role"] for message in told["messages"]] == ["user", "assistant", "assistant"]
    assert kinds(told["parts"]) == ["step-start", "text"]  # Only the earlier message has the tools.
    _, called, *answers = asked(host)
    assert [one["id"] for one in called["tool_calls"]] == ids
    assert [(one["role"], one["tool_call_id"], one["content"]) for one in answers] == [
        ("tool", ids[0], '{"is":"sunny"}'),
        ("tool", ids[1], "yes"),
    ]
    told = await chat.does("send", text=script(["And?"]))
    assert (told["status"], told["shown"]) == ("ready", "And?")
    assert [one["role"] for one in asked(host)] == ["user", "assistant", "tool", "tool", "assistant", "user"]
    assert asked(host)[4]["content"] == "So it is."


@pytest.mark.parametrize("browser", [False, True], ids=["node", "browser"])
async def test_cut_at_any_byte_it_resumes_to_the_exact_text(
    host: Host, opens: Opens, version: int, browser: bool
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    bounds = [rng.choice([0, rng.randrange(400)]), *(rng.randrange(1400) for _ in range(3)), 1400]
    gate, before = f"ai-cut-{host.name}-{version}-{browser}", len(host.model.requests)
    async with Cutter(url(host).rstrip("/"), bounds) as cutter:
        chat = await opens(cutter.url, version, browser=browser, ended=True)
        told = await chat.does("send", text=script(TEXTS, gate=gate, gate_at=len(TEXTS) - 1))
        while cutter.cuts < len(bounds):
            assert (told["status"], told["finish"]["isError"]) == ("error", True)
            told = await chat.does("resume")
        assert told["shown"]
        assert "".join(TEXTS).startswith(told["shown"])
        host.model.open_gate(gate)
        told = await chat.does("resume")
    assert (told["status"], told["error"], told["shown"]) == ("ready", None, "".join(TEXTS))
    assert [message["role"] for message in told["messages"]] == ["user", "assistant"]
    if not (version == 5 and browser):  # In a browser, version 5 keeps void parts and still shows them.
        assert kinds(told["messages"][1]["parts"]) == ["data-replay", "step-start", "text"]
    assert len(host.model.requests) == before + 1


async def test_a_page_that_is_loaded_again_goes_on_with_the_same_message(
    host: Host, opens: Opens, version: int
) -> None:
    gate = f"ai-reload-{host.name}-{version}"
    chat = await opens(url(host), version)
    await chat.tell("send", text=script(["a", "b", "c"], gate=gate, gate_at=2))
    await chat.shows("ab")
    left = await chat.does("stop")
    assert (left["status"], left["shown"]) == ("ready", "ab")
    document = await host.status("/stream/" + left["messages"][1]["id"])
    assert document["status"] == "running"  # The stream does not depend on a connection.
    await chat.does("reload")
    await chat.tell("resume")
    await chat.shows("ab", times=2)
    host.model.open_gate(gate)
    told = await chat.ends("resume")
    assert (told["status"], told["shown"], len(told["messages"])) == ("ready", "abc", 2)
    assert told["messages"][1]["id"] == left["messages"][1]["id"]
    assert kinds(told["messages"][1]["parts"]) == ["data-replay", "step-start", "text"]


async def test_there_is_nothing_to_resume_before_a_start_nor_after_the_end(
    host: Host, opens: Opens, version: int
) -> None:
    chat = await opens(url(host), version)
    assert (await chat.does("resume"))["messages"] == []
    told = await chat.does("send", text=script(["a", "b"]))
    again = await chat.does("resume")
    assert (again["status"], again["error"], again["messages"]) == ("ready", None, told["messages"])


async def test_a_client_that_was_away_at_the_end_may_ask_for_it(
    host: Host, opens: Opens, version: int
) -> None:
    gate = f"ai-ended-{host.name}-{version}"
    chat = await opens(url(host), version, ended=True)
    await chat.tell("send", text=script(["a", "b", "c"], gate=gate, gate_at=2))
    await chat.shows("ab")
    left = await chat.does("stop")
    host.model.open_gate(gate)
    where = "/stream/" + left["messages"][1]["id"]
    await host.read(where)
    told = await chat.does("resume")
    assert (told["status"], told["shown"], len(told["messages"])) == ("ready", "abc", 2)
    assert told["messages"][1]["metadata"]["status"] == "done"


async def test_the_documents_lines_come_back_by_themselves_and_cancel(
    host: Host, talk: Talk, version: int
) -> None:
    [code] = CODE.findall("".join(path.read_text() for path in DOCUMENTS))
    assert len(code.splitlines()) <= 12
    chat, gate = Chat(talk, f"documented@{host.name}-{version}", version), f"ai-lines-{host.name}-{version}"
    question = script(["a", "b", "c", "d"], gate=gate, gate_at=3)
    async with Cutter(url(host).rstrip("/"), [0, 300, 600]) as cutter:

        async def cuts() -> int:
            return cutter.cuts

        await chat.does("documented", version=version, code=code.replace("http://127.0.0.1:7071", cutter.url))
        await chat.tell("send", text=question)
        await until(cuts, lambda seen: seen == 3)
        await chat.shows("abc")
        host.model.open_gate(gate)
        await chat.shows("abcd")
        told = await chat.does("cancel")
    assert (told["shown"], len(told["messages"])) == ("abcd", 2)
    document = await host.status("/stream/" + told["messages"][1]["id"])
    assert document["status"] in ("done", "cancelled")


async def test_the_documents_lines_come_back_where_a_cut_was_made_a_clean_end(
    host: Host, talk: Talk, version: int
) -> None:
    [code] = CODE.findall("".join(path.read_text() for path in DOCUMENTS))
    chat = Chat(talk, f"clean@{host.name}-{version}", version)
    async with CleanEnder(url(host).rstrip("/"), [520, 610]) as ender:
        await chat.does("documented", version=version, code=code.replace("http://127.0.0.1:7071", ender.url))
        await chat.tell("send", text=script(["a", "b", "c", "d"]))
        await chat.shows("abcd")
        told = await chat.does("cancel")
        assert ender.ends == 2
    assert (told["shown"], len(told["messages"])) == ("abcd", 2)
    assert told["messages"][1]["metadata"]["status"] == "done"


async def test_an_answer_is_made_anew(host: Host, opens: Opens, version: int) -> None:
    chat, question = await opens(url(host), version), script(["a"], again=["b"], of=f"{host.name}-{version}")
    first = await chat.does("send", text=question)
    told = await chat.does("regenerate")
    assert (first["shown"], told["shown"], told["status"]) == ("a", "b", "ready")
    assert [message["role"] for message in told["messages"]] == ["user", "assistant"]
    assert told["messages"][1]["id"] != first["messages"][1]["id"]
    assert asked(host) == [{"role": "user", "content": question}]


async def test_a_run_is_cancelled_by_deleting(host: Host, opens: Opens) -> None:
    gate, cut = f"ai-cancel-{host.name}", host.model.cut_answers
    chats = [await opens(url(host), version) for version in VERSIONS]
    for chat in chats:
        await chat.tell("send", text=script(["a", "b", "c"], gate=gate, gate_at=2))
        await chat.shows("ab")
        for _ in range(2):
            answer = await host.http.delete(f"/api/chat/{chat.name}")
            assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        told = await chat.ends("send")
        assert (told["status"], told["error"], told["shown"]) == ("ready", None, "ab")
        assert told["messages"][1]["metadata"]["status"] == "cancelled"
        assert told["messages"][1]["parts"][1]["state"] == "done"
    await host.model.until(cut=cut + len(chats))


async def test_a_failure_is_the_clients_error(host: Host, opens: Opens, version: int) -> None:
    chat = await opens(url(host), version)
    told = await chat.does("send", text=script(["a"], status=400))
    document = await host.status("/stream/" + told["messages"][1]["id"])
    assert document["status"] == "failed"
    assert (told["status"], told["error"]) == ("error", document["error"]["message"])
    metadata = told["messages"][1]["metadata"]
    assert (metadata["status"], metadata["error"]) == ("failed", document["error"])


async def test_a_refusal_is_shown_in_our_words(host: Host, opens: Opens, version: int) -> None:
    chat = await opens(url(host), version, body={"chain": "none"})
    told = await chat.does("send", text="hello")
    assert told["status"] == "error"
    assert told["error"].startswith("chain: must be the name of a chain of this gateway: agent, ")
    chat = await opens(url(host), version)
    await chat.does("send", text=script(["a"]))
    told = await chat.does("again")
    said = "the last message must not be the assistant's, unless it ends in answers of the client's tools"
    assert told["error"] == f"messages[1].role: {said}"


async def test_a_chain_of_stages_is_a_message_of_steps(host: Host, opens: Opens, version: int) -> None:
    chat = await opens(url(host), version, body={"chain": "report", "params": {"tone": "dry"}})
    told = await chat.does("send", text="Lighthouses")
    stages = ("outline", "sections", "critique", "final")
    assert (told["status"], told["error"]) == ("ready", None)
    assert kinds(told["messages"][1]["parts"]) == ["step-start", "text"] * len(stages)
    texts = [part for part in told["parts"] if part["type"] == "text"]
    assert [part["text"] for part in texts] == [DEFAULT_TEXT + " "] * len(stages)
    assert [part["providerMetadata"]["holdfast"]["stage"] for part in texts] == list(stages)


async def test_an_agents_tools_are_shown_and_never_run_by_the_client(
    host: Host, opens: Opens, version: int
) -> None:
    calls = [{"name": "calculator", "pieces": ['{"expression": ', '"6 * 7"}']}]
    before = len(host.model.requests)
    chat = await opens(url(host), version, body={"chain": "agent"})
    told = await chat.does("send", text=script(turns=[{"tool_calls": calls}, {"chunks": ["It is ", "42."]}]))
    assert (told["status"], told["error"], told["shown"]) == ("ready", None, "It is 42.")
    assert kinds(told["parts"]) == ["step-start", "dynamic-tool", "text"]
    tool = told["parts"][1]
    assert (tool["toolName"], tool["state"], tool["output"]) == ("calculator", "output-available", "42")
    assert tool["input"] == {"expression": "6 * 7"}
    assert len(host.model.requests) == before + 2


async def test_a_value_that_is_no_text_is_a_part_of_its_own(host: Host, opens: Opens, version: int) -> None:
    chat = await opens(url(host), version, body={"chain": "figures"})
    told = await chat.does("send", text="?")
    assert kinds(told["parts"]) == ["step-start", "data-custom"]
    assert told["parts"][1]["data"].items() >= {"name": "result", "stage": "figures"}.items()
    assert told["parts"][1]["data"]["data"] == {"total": 42, "of": ["é"]}


async def test_of_two_streams_the_newer_is_the_chats(host: Host) -> None:
    chat, gate = f"two@{host.name}", f"ai-two-{host.name}"
    parts = [{"type": "text", "text": script(["a", "b"], gate=gate)}]
    body = {"id": chat, "messages": [{"id": "1", "role": "user", "parts": parts}]}
    where = f"/api/chat/{chat}/stream"

    async def newest() -> str:
        async with host.http.stream("GET", where) as answer:
            assert answer.headers["x-vercel-ai-ui-message-stream"] == "v1"
            return answer.headers["x-stream-id"]

    streams = []
    for key in ("first", "second"):
        headers = {"idempotency-key": f"{chat}-{key}"}
        async with host.http.stream("POST", "/api/chat", json=body, headers=headers) as answer:
            streams.append(answer.headers["x-stream-id"])
            assert await newest() == streams[-1]
    async with host.http.stream(
        "POST", "/api/chat", json=body, headers={"idempotency-key": f"{chat}-first"}
    ) as answer:
        assert answer.headers["x-stream-id"] == streams[0]
    assert await newest() == streams[1]  # Repeating the older start changes nothing.
    host.model.open_gate(gate)
    for stream in streams:
        assert (await host.read(f"/stream/{stream}")).events[-1] == "done"
    assert (await host.http.get(where)).status_code == 204


async def test_a_worker_dies_and_the_chat_goes_on(mortal: Mortal, opens: Opens) -> None:
    """If the text of the second attempt is equal, no client sees the change of worker.

    If it differs, a reset lists the void parts.
    """
    gate = f"ai-kill-{mortal.name}"

    async def chats(**options: Any) -> list[tuple[Chat, str]]:
        return [
            (await opens(mortal.url, v), script(["a", "b", "c"], gate=gate, gate_at=2, of=v, **options))
            for v in VERSIONS
        ]

    async with mortal.worker() as first:
        same, other = await chats(), await chats(again=["x", "y", "z"])
        for chat, question in same + other:
            await chat.tell("send", text=question)
        for chat, _ in same + other:
            await chat.shows("ab")
        await first.kill()
    mortal.model.open_gate(gate)
    async with mortal.worker():
        for chat, _ in same:
            told = await chat.ends("send")
            assert (told["status"], told["error"], told["shown"]) == ("ready", None, "abc")
            assert kinds(told["messages"][1]["parts"]) == ["step-start", "text"]
            assert told["messages"][1]["metadata"]["attempts"] == 2
        for chat, question in other:
            told = await chat.ends("send")
            assert (told["status"], told["error"], told["shown"]) == ("ready", None, "xyz")
            assert kinds(told["messages"][1]["parts"]) == ["step-start", "text", "data-reset", "text"]
            # Void text is not sent to the model again.
            assert (await chat.does("send", text=script(["end"])))["shown"] == "end"
            assert mortal.model.requests[-1]["messages"][:2] == [
                {"role": "user", "content": question},
                {"role": "assistant", "content": "xyz"},
            ]


async def resumed(chats: list[Chat]) -> list[dict[str, Any]]:
    """Resume all chats at once, and wait for the end of each connection."""
    times = [len(chat.did("resume")) + 1 for chat in chats]
    for chat in chats:
        await chat.tell("resume")
    return [await chat.ends("resume", at) for chat, at in zip(chats, times, strict=True)]


async def test_a_rotation_is_taken_for_a_cut_and_survived(mortal: Mortal, opens: Opens) -> None:
    gate = f"ai-rotate-{mortal.name}"
    async with mortal.worker():
        chats = [
            await opens(mortal.rotating_url, v, browser=b, ended=True)
            for v in VERSIONS
            for b in (False, True)
        ]
        for chat in chats:
            await chat.tell("send", text=script(["a", "b", "c"], gate=gate, gate_at=2, of=chat.name))
        rounds, told = 0, [await chat.ends("send") for chat in chats]
        while rounds < 2 or {one["shown"] for one in told} != {"ab"}:
            assert {one["status"] for one in told} == {"error"}
            rounds, told = rounds + 1, await resumed(chats)
        mortal.model.open_gate(gate)
        while "error" in {one["status"] for one in told}:
            told = await resumed(chats)
        assert {(one["status"], one["shown"], len(one["messages"])) for one in told} == {("ready", "abc", 2)}
