"""The chains that ship with the gateway, with a scripted model.

Checked: their events, and their requests to the model.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.protocol import Event
from gateway.settings import Settings
from tests.support.jobs import Jobs, body
from tests.support.model_server import ModelServer, script
from workers.chains import documents
from workers.chains.asked import question
from workers.chains.report import titles

TEXTS = {
    "leases.md": "# Leases\n\nA lease lasts fifteen seconds. A worker that is silent loses it.",
    "readers.txt": "Readers come back with the id of the last event, and have the rest.",
    "deep/queue.md": "# Queue\n\nThe queue carries nothing but an id.",
    "picture.png": "not a document",
}


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer() as scripted:
        yield scripted


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for name, text in TEXTS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return str(tmp_path)


async def run(redis_url: str, model: ModelServer, chain: str, asked: Any, **settings: Any) -> list[Event]:
    settings |= {"openai_base_url": f"{model.url}/v1", "openai_api_key": "k"}
    async with Jobs(redis_url, **settings) as jobs:
        stream_id = await jobs.stream(asked, chain=chain)
        await jobs.runner.run(body(stream_id))
        return [message.event() for message in await jobs.messages(stream_id)]


def told(events: list[Event], kind: str) -> list[Any]:
    return [event.data for event in events if event.type == kind]


def user(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize("embedding", ["", "any-model"])
async def test_rag_tells_its_sources_before_the_text(
    redis_url: str, model: ModelServer, folder: str, embedding: str
) -> None:
    asked = user("How long does a lease last?")
    events = await run(redis_url, model, "rag", asked, documents=folder, embedding_model=embedding)
    assert [event.type for event in events][:4] == ["start", "stage", "custom", ""]
    [sources] = told(events, "custom")
    assert (sources["name"], sources["stage"]) == ("sources", "rag")
    best, *others = sources["data"]["documents"]
    assert (best["source"], best["title"], best["id"]) == ("leases.md", "Leases", "leases.md:0")
    assert best["text"].endswith("loses it.")
    assert all(best["score"] > other["score"] for other in others)
    system, last = model.requests[-1]["messages"]
    assert "[leases.md]" in system["content"]
    assert last["content"] == "How long does a lease last?"
    assert bool(model.embedded) == bool(embedding)
    assert events[-1].data["usage"]["output_tokens"] > 0


def test_a_folder_is_read_within_bounds(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = documents.search(Settings(documents=folder))
    assert sorted(piece.metadata["source"] for piece in made.pieces) == [
        "deep/queue.md",
        "leases.md",
        "readers.txt",
    ]
    monkeypatch.setattr(documents, "MOST_FILES", 2)
    with pytest.raises(ValueError, match="at most 2 files"):
        documents.search(Settings(documents=folder, model="another"))
    with pytest.raises(ValueError, match="must hold text"):
        documents.search(Settings(documents="/nowhere/at/all"))


async def test_our_own_documents_are_there_and_can_be_found() -> None:
    found = await documents.search(Settings()).ainvoke(
        "Which Last-Event-ID header does a client send to get the events after that one?"
    )
    assert {"protocol.md", "clients.md"} & {document.metadata["source"] for document in found}


async def test_the_agent_calls_its_tools_with_the_arguments_that_were_streamed(
    redis_url: str, model: ModelServer, folder: str
) -> None:
    calls = [
        {"name": "calculator", "pieces": ['{"expr', 'ession": "6', ' * 7"}']},
        {"name": "search_documents", "pieces": ['{"query": "lease"}']},
    ]
    turns = [{"chunks": ["Let me ", "see."], "tool_calls": calls}, {"chunks": ["It is ", "42."]}]
    events = await run(redis_url, model, "agent", user(script(turns=turns)), documents=folder)
    tools = {(call["name"], call["state"]): call for call in told(events, "tool")}
    assert tools["calculator", "started"]["input"] == {"expression": "6 * 7"}
    assert tools["calculator", "finished"]["output"] == "42"
    assert tools["search_documents", "started"]["input"] == {"query": "lease"}
    assert "fifteen" in tools["search_documents", "finished"]["output"]
    assert {call["call_id"] for call in tools.values()} == {"call-1-0", "call-1-1"}
    [sources] = told(events, "custom")
    assert sources["data"]["documents"][0]["source"] == "leases.md"
    texts = [(text["stage"], text["run"], text["delta_content"]) for text in told(events, "")]
    assert texts == [
        ("model", 1, "Let me "),
        ("model", 1, "see."),
        ("model", 2, "It is "),
        ("model", 2, "42."),
    ]
    done = events[-1].data
    assert (done["finish_reason"], done["usage"]["output_tokens"]) == ("stop", 4)
    answered = [m for m in model.requests[-1]["messages"] if m["role"] == "tool"]
    assert answered[0]["content"] == "42"


async def test_a_tool_that_cannot_says_so_to_the_model(redis_url: str, model: ModelServer) -> None:
    call = {"name": "calculator", "pieces": [json.dumps({"expression": "1 / 0"})]}
    events = await run(
        redis_url, model, "agent", user(script(turns=[{"tool_calls": [call]}, {"chunks": ["x"]}]))
    )
    assert told(events, "tool")[-1]["output"] == "That cannot be worked out: there is no such number"
    assert events[-1].type == "done"


def test_what_was_asked_is_found_however_it_was_put() -> None:
    parts = [
        {"type": "text", "text": "a "},
        {"type": "image_url", "image_url": {}},
        {"type": "text", "text": "b"},
    ]
    answer = {"role": "assistant", "content": "no"}
    assert question("q") == "q"
    assert question([*user("old"), *user("q"), answer]) == "q"
    assert question([{"role": "user", "content": parts}]) == "a b"
    for nothing in ([answer], {"topic": "q"}, None, []):
        with pytest.raises(ValueError, match="no question"):
            question(nothing)


def test_an_outlines_titles() -> None:
    outline = "1. **Rain**\n\n- Snow:\n  2) Wind\n* \n"
    assert titles({"outline": outline, "input": "Weather"}) == ["Rain", "Snow", "Wind"]
    assert titles({"outline": "\n", "input": "Weather"}) == ["Weather"]
    assert len(titles({"outline": "\n".join("abcdefghijk"), "input": ""})) == 6
