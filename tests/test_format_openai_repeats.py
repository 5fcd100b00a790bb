"""What OpenAI's clients do by themselves: wait behind a proxy, repeat, refer to items, ask for a form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from openai import APIConnectionError, ConflictError, UnprocessableEntityError
from pydantic import BaseModel

from tests.hosts import NOBODY, Host, until
from tests.openai_clients import javascript, python
from tests.support.cutter import Cutter
from tests.support.model_server import script

pytest_plugins = ("tests.hosts",)
pytestmark = pytest.mark.asyncio(loop_scope="session")

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
AGAIN = {"x-stainless-retry-count": "1"}
FIRST = {"x-stainless-retry-count": "0"}


def url_of(host: Host) -> str:
    return str(host.http.base_url).rstrip("/")


def chat_of(said: str, **more: Any) -> dict[str, Any]:
    return {"model": "chat", "messages": [{"role": "user", "content": said}], **more}


def asked_of(host: Host, said: str) -> int:
    """Return how often the model was asked this. Each run asks once."""
    return sum(request["messages"][-1]["content"] == said for request in host.model.requests)


async def everything(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
async def test_an_answer_that_takes_long_begins_with_white_space(host: Host, path: str) -> None:
    gate = f"white space {path}@{host.name}"
    said = script(["a", "b"], gate=gate)
    body = chat_of(said) if path == CHAT else {"model": "chat", "input": said}
    async with host.http.stream("POST", path, json=body) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        pieces = answer.aiter_raw(1)
        assert await anext(pieces) == b"\n"
        host.model.open_gate(gate)
        whole = json.loads(b"".join([piece async for piece in pieces]))
    told = (
        whole["choices"][0]["message"]["content"]
        if path == CHAT
        else whole["output"][0]["content"][0]["text"]
    )
    assert told == "ab"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("bound", [0, 150])
async def test_a_clients_own_repetition_joins_the_run(host: Host, bound: int, stream: bool) -> None:
    said = script(["a", "b"], id=f"repeat {bound} {stream} {host.name}")
    bound = 0 if stream else bound
    async with Cutter(url_of(host), [bound, bound]) as cutter, python(cutter.url, retries=2) as client:
        if stream:
            chunks = [one async for one in await client.chat.completions.create(**chat_of(said), stream=True)]
            text = "".join(one.choices[0].delta.content or "" for one in chunks)
        else:
            answer = await client.chat.completions.create(**chat_of(said))
            text = answer.choices[0].message.content or ""
        assert cutter.cuts == 2
        assert text == "ab"
        assert asked_of(host, said) == 1
        await client.chat.completions.create(**chat_of(said))  # This is another run.
        assert asked_of(host, said) == 2


async def test_a_repetition_of_the_javascript_client_joins_too(host: Host) -> None:
    said = script(["a", "b"], id=f"repeat js {host.name}")
    async with Cutter(url_of(host), [0, 200]) as cutter:
        [told] = await javascript(cutter.url, "wait", body={"model": "chat", "input": said}, retries=2)
        assert cutter.cuts == 2
    assert told["result"]["output_text"] == "ab"
    assert asked_of(host, said) == 1


async def test_a_run_that_fails_behind_white_space_is_told_to_the_repetition(host: Host) -> None:
    said = script(["a"], gate=f"fails late {host.name}")
    async with python(url_of(host), retries=1) as client:
        waiting = asyncio.create_task(client.chat.completions.create(**chat_of(said)))

        async def asked() -> int:
            return asked_of(host, said)

        await until(asked, bool)
        async with host.http.stream("POST", CHAT, json=chat_of(said), headers=AGAIN) as answer:
            pieces = answer.aiter_raw(1)
            assert await anext(pieces) == b"\n"  # The client has received a part.
            run = answer.headers["x-stream-id"]
            await host.http.delete(f"/stream/{run}")
            with pytest.raises(httpx.RemoteProtocolError):
                await everything(pieces)
        with pytest.raises(ConflictError) as caught:
            await waiting
    assert caught.value.code == "cancelled"
    assert caught.value.request.headers["x-stainless-retry-count"] == "1"
    assert asked_of(host, said) == 1


async def test_only_a_repetition_of_the_same_body_and_path_joins(host: Host) -> None:
    said = script(["a"], id=f"twice {host.name}")
    whole = await host.http.post(CHAT, json=chat_of(said), headers=FIRST)
    same = await host.http.post(CHAT, json=chat_of(said), headers=AGAIN)
    assert same.json()["id"] == whole.json()["id"]
    ids = {whole.json()["id"]}
    for headers in (FIRST, {}, AGAIN | {"idempotency-key": f"k{host.name}"}):
        ids.add((await host.http.post(CHAT, json=chat_of(said), headers=headers)).json()["id"])
    ids.add((await host.http.post(CHAT, json=chat_of(said, seed=1), headers=AGAIN)).json()["id"])
    assert len(ids) == 5
    joined = await host.http.post(RESPONSES, json={"model": "chat", "input": said}, headers=AGAIN)
    assert joined.json()["id"].removeprefix("resp_") not in {one.removeprefix("chatcmpl-") for one in ids}


async def test_items_of_a_stored_answer_are_known_by_their_ids(host: Host) -> None:
    async with python(url_of(host)) as client:
        first = await client.responses.create(model="chat", input=script(["I am ", "one."]))
        item = first.output[0].id
        items: list[Any] = [
            {"role": "user", "content": "q"},
            {"type": "item_reference", "id": f"rs_{first.id[5:]}_7"},
            {"type": "item_reference", "id": f"mcp_{first.id[5:]}_7"},
            {"type": "item_reference", "id": item},
            {"role": "user", "content": "more"},
        ]
        second = await client.responses.create(model="mirror", input=items)
        said, _ = json.loads(second.output_text)
        assert said == [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "I am one."},
            {"role": "user", "content": "more"},
        ]
        for wrong, status in (
            (f"msg_{NOBODY}_0", 404),
            (f"msg_{first.id[5:]}_9", 404),
            ("msg_x", 422),
            (7, 422),
        ):
            bad = await host.http.post(
                RESPONSES,
                json={"model": "mirror", "input": [items[0], {"type": "item_reference", "id": wrong}]},
            )
            assert (bad.status_code, bad.json()["error"]["param"]) == (status, "input[1].id"), wrong


class Person(BaseModel):
    """The form of the requested answer."""

    name: str
    age: int


async def test_a_structured_chain_is_told_the_form_that_is_asked_for(host: Host) -> None:
    schema = Person.model_json_schema()
    async with python(url_of(host)) as client:
        chat = await client.chat.completions.parse(
            model="shaped", messages=[{"role": "user", "content": "x"}], response_format=Person
        )
        assert chat.choices[0].message.parsed == Person(name="Person", age=len(schema["properties"]))
        told = await client.responses.parse(model="shaped", input="x", text_format=Person)
        assert told.output_parsed == chat.choices[0].message.parsed
        assert told.text is not None
        assert told.text.format is not None
        assert told.text.format.type == "json_schema"
        for ask in (
            client.chat.completions.parse(
                model="chat", messages=[{"role": "user", "content": "x"}], response_format=Person
            ),
            client.responses.parse(model="chat", input="x", text_format=Person),
        ):
            with pytest.raises(UnprocessableEntityError) as caught:
                await ask
            assert "@chain(name, structured=True)" in caught.value.message
            assert caught.value.param in ("response_format", "text")
    [said] = await javascript(
        url_of(host),
        "whole",
        body=chat_of("x", model="shaped")
        | {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}},
    )
    assert json.loads(said["result"]["choices"][0]["message"]["content"])["name"] == "n"


async def test_a_connection_that_breaks_for_good_is_the_clients_error(host: Host) -> None:
    said = script(["a"], id=f"for good {host.name}")
    async with Cutter(url_of(host), [0, 0]) as cutter, python(cutter.url, retries=1) as client:
        with pytest.raises(APIConnectionError):
            await client.chat.completions.create(**chat_of(said))
    assert asked_of(host, said) == 1
