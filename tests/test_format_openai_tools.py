"""OpenAI's formats on both hosts: answers sent back as input, and the results of the client's own tools."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai import APIStatusError

from tests.hosts import Host
from tests.openai_clients import python
from tests.support.model_server import script

pytest_plugins = ("tests.hosts",)
pytestmark = pytest.mark.asyncio(loop_scope="session")


def url_of(host: Host) -> str:
    return str(host.http.base_url)


async def test_an_answer_with_half_a_character_is_whole_in_documents_and_can_be_gone_on_from(
    host: Host,
) -> None:
    words = script(["a\ud83d", "\ude00b\u2028", "\ud83d", "c\ud83d"])
    async with python(url_of(host)) as client:
        first = await client.responses.create(model="chat", input=words)
        assert first.output_text == "a\U0001f600b\u2028\ufffdc\ufffd"
        second = await client.responses.create(model="mirror", input="x", previous_response_id=first.id)
    said = [one["content"] for one in json.loads(second.output_text)[0]]
    assert said == [words, first.output_text, "x"]


TOOLS = [{"name": "look", "pieces": ['{"q": ', '"\u00e9"}']}, {"name": "look", "pieces": ["{}"]}]
ARGUMENTS = ['{"q":"\u00e9"}', "{}"]


def calls(ids: list[str]) -> list[dict[str, Any]]:
    """Return the calls of `TOOLS` in the form of a message."""
    functions = [{"name": "look", "arguments": one} for one in ARGUMENTS]
    return [
        {"id": one, "type": "function", "function": function}
        for one, function in zip(ids, functions, strict=True)
    ]


async def test_a_chat_tells_the_clients_tool_calls_and_takes_their_answers(host: Host) -> None:
    question: Any = {"role": "user", "content": script([], tool_calls=TOOLS)}
    async with python(url_of(host)) as client:
        whole = await client.chat.completions.create(model="chat", messages=[question])
        stream = client.chat.completions.stream(model="chat", messages=[question])
        async with stream as events:
            final = await events.get_final_completion()
        for choice in (whole.choices[0], final.choices[0]):
            told = choice.message.tool_calls or ()
            ids = [one.id for one in told]
            functions = [one.function for one in told if one.type == "function"]
            assert [(one.name, one.arguments) for one in functions] == [("look", one) for one in ARGUMENTS]
            assert len(set(ids)) == 2
            assert (choice.finish_reason, choice.message.content or None) == ("tool_calls", None)
        asked = whole.choices[0].message
        ids = [one.id for one in asked.tool_calls or ()]
        answers: Any = [{"role": "tool", "tool_call_id": one, "content": "sunny"} for one in ids]
        said: Any = [question, asked.to_dict(), *answers]
        more = await client.chat.completions.create(model="mirror", messages=said)
    given = json.loads(more.choices[0].message.content or "")[0]
    assert given == [question, {"role": "assistant", "content": "", "tool_calls": calls(ids)}, *answers]


async def test_a_response_tells_them_and_goes_on_by_its_id_or_by_its_items(host: Host) -> None:
    question = script([], tool_calls=TOOLS)
    async with python(url_of(host)) as client:
        async with client.responses.stream(model="chat", input=question) as events:
            first = await events.get_final_response()
        assert [item.type for item in first.output] == ["function_call"] * 2
        items: Any = [item.to_dict() for item in first.output]
        assert [(one["name"], one["arguments"]) for one in items] == [("look", one) for one in ARGUMENTS]
        one, two = (item["call_id"] for item in items)
        parts = [{"type": "input_text", "text": "one"}]
        outputs: Any = [
            {"type": "function_call_output", "call_id": two, "output": "two"},
            {"type": "function_call_output", "call_id": one, "output": parts},
        ]
        answers = [
            {"role": "tool", "content": "two", "tool_call_id": two},
            {"role": "tool", "content": "one", "tool_call_id": one},
        ]
        by_id = await client.responses.create(model="mirror", input=outputs, previous_response_id=first.id)
        asked: Any = [{"role": "user", "content": question}]
        by_items = await client.responses.create(model="mirror", input=[*asked, *items, *outputs])
        wanted = [*asked, {"role": "assistant", "content": "", "tool_calls": calls([one, two])}, *answers]
        assert [json.loads(said.output_text)[0] for said in (by_id, by_items)] == [wanted] * 2
        # A client may continue without a tool result. The call is then left out, because no model accepts a
        # call without a result.
        other = await client.responses.create(model="mirror", input="no", previous_response_id=first.id)
        assert [said["role"] for said in json.loads(other.output_text)[0]] == ["user", "user"]
        half = await client.responses.create(model="mirror", input=outputs[1:], previous_response_id=first.id)
        _, kept, answer = json.loads(half.output_text)[0]
        assert (kept["tool_calls"], answer) == (calls([one, two])[:1], answers[1])
        strange: Any = [{**outputs[0], "call_id": "c3"}]
        with pytest.raises(APIStatusError) as caught:
            await client.responses.create(model="mirror", input=strange, previous_response_id=first.id)
        assert (caught.value.status_code, caught.value.param) == (422, "input[0].call_id")


async def test_by_post_stream_a_model_is_sent_the_answer_as_it_was_given(host: Host) -> None:
    question = {"role": "user", "content": "What is the weather?"}
    asked = {"role": "assistant", "content": "", "tool_calls": calls(["c1", "c2"])}
    answers = [
        {"role": "tool", "content": "sunny", "tool_call_id": "c1", "name": "look", "status": "error"},
        {"role": "tool", "content": script(["So it is."]), "tool_call_id": "c2"},
    ]
    made = await host.http.post("/stream", json={"messages": [question, asked, *answers]})
    assert made.status_code == 202, made.text
    await host.read(made.headers["location"])
    _, sent, first, second = host.model.requests[-1]["messages"]
    assert [one["id"] for one in sent["tool_calls"]] == ["c1", "c2"]
    assert json.loads(sent["tool_calls"][0]["function"]["arguments"]) == {"q": "\u00e9"}
    assert [first["tool_call_id"], second["tool_call_id"]] == ["c1", "c2"]
    assert (first["role"], first["content"]) == ("tool", "sunny")
