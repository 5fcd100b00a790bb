"""OpenAI's formats on both hosts: answers that come back as input, and what the client's own tools answer."""

from __future__ import annotations

import json

import pytest

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
