"""OpenAI's chat completions on both hosts, with `openai` from PyPI and from npm."""

from __future__ import annotations

import asyncio
import functools
import json
from typing import Any

import pytest
from openai import APIConnectionError, APIError, APIStatusError, AsyncOpenAI, OpenAI

from tests.hosts import EVENTS, Host, Wire, until
from tests.mortals import Mortal
from tests.openai_clients import NOBODYS_KEY, javascript, python
from tests.support.cutter import Cutter
from tests.support.model_server import script
from tests.support.programs import talking

pytest_plugins = ("tests.hosts", "tests.mortals")
pytestmark = pytest.mark.asyncio(loop_scope="session")

WORDS = ["plain ", "a\nb", "\r\n\r\n", "data: x\n\n", "\u2028\u2029", "\0", "\U0001f600", "\ufeff", " "]


def asked(said: str, model: str = "chat", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": said}], **more}


def url_of(host: Host) -> str:
    return str(host.http.base_url).rstrip("/")


async def read(client: AsyncOpenAI, body: dict[str, Any], chunks: list[Any], **headers: str) -> None:
    """Read the chunks of a completion into `chunks`. Raise the client's errors."""
    async for chunk in await client.chat.completions.create(**body, stream=True, extra_headers=headers):
        chunks.append(chunk)  # noqa: PERF401 - it raises in the middle


def text_of(chunks: list[Any]) -> str:
    """Return the text of the chunks of either client."""
    whole = [chunk if isinstance(chunk, dict) else chunk.to_dict() for chunk in chunks]
    return "".join(one["choices"][0]["delta"].get("content") or "" for one in whole if one["choices"])


async def test_the_python_client_reads_a_completion(host: Host) -> None:
    chunks: list[Any] = []
    async with python(url_of(host)) as client:
        await read(client, asked(script(WORDS), stream_options={"include_usage": True}), chunks)
    assert text_of(chunks) == "".join(WORDS)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert chunks[-1].usage.total_tokens == 7 + len(WORDS)
    assert len({(chunk.id, chunk.object, chunk.created, chunk.model) for chunk in chunks}) == 1


async def test_the_javascript_client_reads_a_completion(host: Host) -> None:
    *said, result = await javascript(url_of(host), "chat", body=asked(script(WORDS)))
    assert result == {"result": True}
    assert text_of([line["event"] for line in said]) == "".join(WORDS)


async def test_a_result_that_is_json_is_the_answers_text(host: Host) -> None:
    """Check both formats, streamed and not streamed."""
    async with python(url_of(host)) as client:
        body: dict[str, Any] = asked("x", "figures")
        whole = await client.chat.completions.create(**body)
        told = await client.chat.completions.create(**body, stream=True)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in told]
        response = await client.responses.create(model="figures", input="x")
    for said in (whole.choices[0].message.content, "".join(pieces), response.output_text):
        assert json.loads(said or "") == {"total": 42, "of": ["é"]}


async def test_a_completion_is_waited_for(host: Host) -> None:
    async with python(url_of(host)) as client:
        answer = await client.chat.completions.with_raw_response.create(**asked(script(WORDS)))
        whole = answer.parse()
        assert whole.choices[0].message.content == "".join(WORDS)
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage is not None
        assert whole.usage.total_tokens == 7 + len(WORDS)
        stream_id = whole.id.removeprefix("chatcmpl-")
        assert answer.headers["location"] == f"/stream/{stream_id}"
        assert (await host.status(f"/stream/{stream_id}"))["text"] == "".join(WORDS)
        # The received message goes unchanged into the next request.
        more: list[Any] = [*asked("x")["messages"], whole.choices[0].message.to_dict()]
        again = await client.chat.completions.create(model="chat", messages=[*more, *asked("y")["messages"]])
        assert again.choices[0].message.content
    [said] = await javascript(url_of(host), "whole", body=asked(script(WORDS)))
    assert said["result"]["choices"][0]["message"]["content"] == "".join(WORDS)


async def test_the_helpers_put_a_completion_together(host: Host) -> None:
    async with python(url_of(host)) as client:
        manager = client.chat.completions.stream(**asked(script(WORDS)))
        async with manager as helper:
            whole = await helper.get_final_completion()
    assert whole.choices[0].message.content == "".join(WORDS)
    [said] = await javascript(url_of(host), "chatHelper", body=asked(script(WORDS)))
    assert said["result"]["choices"][0]["message"]["content"] == "".join(WORDS)


async def test_the_client_without_asyncio_reads_one_too(host: Host) -> None:
    def said() -> str:
        client = OpenAI(base_url=f"{url_of(host)}/v1", api_key=NOBODYS_KEY, max_retries=0)
        with client, client.chat.completions.create(**asked(script(WORDS)), stream=True) as stream:
            return text_of(list(stream))

    assert await asyncio.to_thread(said) == "".join(WORDS)


async def test_a_chain_of_several_stages_says_its_last_one(host: Host) -> None:
    async with python(url_of(host)) as client:
        streamed: list[Any] = []
        await read(client, asked("x", "report"), streamed)
        stream_id = streamed[0].id.removeprefix("chatcmpl-")
        assert text_of(streamed) == (await host.status(f"/stream/{stream_id}"))["text"]
        turns = [
            {"tool_calls": [{"name": "calculator", "pieces": ['{"expression": "6*7"}']}]},
            {"chunks": ["It is ", "42."]},
        ]
        whole = await client.chat.completions.create(**asked(script(turns=turns), "agent"))
        assert whole.choices[0].message.content == "It is 42."
        assert whole.choices[0].message.tool_calls is None
        assert whole.choices[0].finish_reason == "stop"


async def test_the_models_are_the_chains(host: Host) -> None:
    async with python(url_of(host)) as client:
        names = [model.id async for model in await client.models.list()]
        assert {"agent", "chat", "mirror", "rag", "report"} <= set(names)
        assert (await client.models.retrieve("chat")).id == "chat"
        with pytest.raises(APIStatusError) as caught:
            await client.models.retrieve("gpt-4o")
        assert (caught.value.status_code, caught.value.code) == (404, "model_not_found")
    assert await javascript(url_of(host), "models") == [{"result": names}]


@pytest.mark.parametrize("bound", [0, 600, 1300])
async def test_a_cut_connection_raises_and_only_our_own_get_goes_on(host: Host, bound: int) -> None:
    body = asked(script(["word "] * 40, pace=0.002))
    chunks: list[Any] = []
    async with Cutter(url_of(host), [bound, bound]) as cutter:
        async with python(cutter.url) as client:
            with pytest.raises(APIConnectionError):
                await read(client, body, chunks)
        *said, last = await javascript(cutter.url, "chat", body=body)
    assert last["error"]["name"] in ("Error", "TypeError")
    for seen in (chunks, [line["event"] for line in said]):
        assert text_of(seen) != "word " * 40
        if seen:
            one = seen[0] if isinstance(seen[0], dict) else seen[0].to_dict()
            where = f"/stream/{one['id'].removeprefix('chatcmpl-')}"
            wire = Wire((await host.http.get(where, headers=EVENTS)).content)
            assert wire.events[-1] == "done"
            assert (await host.status(where))["text"] == "word " * 40


async def test_a_failure_is_an_error_in_the_stream_and_a_status_otherwise(host: Host) -> None:
    # A late answer begins with white space, so its status is already sent. The repeated request gets the
    # right status.
    async with python(url_of(host), retries=1) as client:
        with pytest.raises(APIError) as caught:
            await read(client, asked(script([], status=400)), [])
        assert (caught.value.code, caught.value.type) == ("model_invalid_request", "server_error")
        assert "scripted" not in str(caught.value.body)
        with pytest.raises(APIStatusError) as refused:
            await client.chat.completions.create(**asked(script([], status=400)))
        assert (refused.value.status_code, refused.value.code) == (500, "model_invalid_request")
        assert refused.value.response.headers["x-should-retry"] == "false"
    *_, last = await javascript(url_of(host), "chat", body=asked(script([], status=400)))
    assert (last["error"]["code"], last["error"]["ours"]) == ("model_invalid_request", True)


async def test_cancelled_by_our_own_delete_it_ends_with_an_error(host: Host) -> None:
    gate = f"openai chat cancel {host.name}"
    keys = {"Idempotency-Key": gate}
    chunks: list[Any] = []
    async with python(url_of(host)) as client:
        body = asked(script(["a", "b"], gate=gate, gate_at=1))
        reading = asyncio.create_task(read(client, body, chunks, **keys))
        await until(lambda: _text(chunks), lambda text: text == "a")
        waiting = asyncio.create_task(client.chat.completions.create(**body, extra_headers=keys))
        await host.http.delete(f"/stream/{chunks[0].id.removeprefix('chatcmpl-')}")
        with pytest.raises(APIError) as caught:
            await reading
        assert caught.value.code == "cancelled"
        with pytest.raises(APIStatusError) as refused:
            await waiting
        assert (refused.value.status_code, refused.value.code) == (409, "cancelled")
    host.model.open_gate(gate)


async def _text(chunks: list[Any]) -> str:
    return text_of(chunks)


async def test_asked_again_with_its_key_it_is_the_same_stream(host: Host) -> None:
    before, body = len(host.model.requests), asked(script(["a", "b"]))
    keys = {"Idempotency-Key": f"openai chat {host.name}"}
    streams: list[list[Any]] = [[], []]
    async with python(url_of(host)) as client:
        for chunks in streams:
            await read(client, body, chunks, **keys)
        whole = await client.chat.completions.create(**body, extra_headers=keys)
    assert streams[0] == streams[1]
    assert whole.id == streams[0][0].id
    assert len(host.model.requests) == before + 1


async def test_a_killed_workers_text_goes_on_or_ends_with_an_error(mortal: Mortal) -> None:
    gate = f"openai chat kill {mortal.name}"
    keys = {"Idempotency-Key": gate}
    same = asked(script(["a", "b", "c", "d"], gate=gate, gate_at=2))
    other = asked(script(["a", "b", "c"], gate=gate, gate_at=2, again=["right"]))
    chunks: list[list[Any]] = [[], [], []]
    call = json.dumps({"chat": {"body": other, "headers": keys}})
    async with (
        python(mortal.url) as client,
        talking("openai.mjs", mortal.url, NOBODYS_KEY, call) as talk,
    ):
        goes_on = asyncio.create_task(read(client, same, chunks[0]))
        breaks = asyncio.create_task(read(client, other, chunks[1], **keys))
        async with mortal.worker() as first:
            for seen in chunks[:2]:
                await until(functools.partial(_text, seen), lambda text: text == "ab")
            await talk.until(lambda lines: text_of([line["event"] for line in lines]) == "ab")
            waits = asyncio.create_task(client.chat.completions.create(**other, extra_headers=keys))
            await first.kill()
        mortal.model.open_gate(gate)
        async with mortal.worker():
            await goes_on
            with pytest.raises(APIError) as caught:
                await breaks
            *said, last = await talk.end()
            assert (await waits).choices[0].message.content == "right"
        await read(client, other, chunks[2], **keys)  # The same request again: void text is left out.
    assert [text_of(seen) for seen in chunks] == ["abcd", "ab", "right"]
    assert chunks[0][-1].choices[0].finish_reason == "stop"
    assert (caught.value.code, last["error"]["code"], last["error"]["ours"]) == ("reset", "reset", True)
    assert text_of([line["event"] for line in said]) == "ab"


async def test_rotation_cuts_it(mortal: Mortal) -> None:
    gate, chunks = f"openai chat rotation {mortal.name}", list[Any]()
    body = asked(script(["a", "b"], gate=gate, gate_at=1))
    async with python(mortal.rotating_url) as client, mortal.worker():
        reading = asyncio.create_task(read(client, body, chunks))
        *said, last = await javascript(mortal.rotating_url, "chat", body=body)
        with pytest.raises(APIConnectionError):
            await reading
        mortal.model.open_gate(gate)
    assert text_of(chunks) in ("", "a")
    assert text_of([line["event"] for line in said]) in ("", "a")
    assert last["error"]["message"] == "terminated"
