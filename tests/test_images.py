"""Which image URLs a caller may pass to the model's server, in every request form that accepts images."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.formats.ai_sdk.messages import parse_chat
from gateway.formats.langgraph import request
from gateway.formats.openai import chat
from gateway.formats.openai import responses as openai_responses
from gateway.protocol import ANONYMOUS
from gateway.protocol.errors import Invalid
from gateway.settings import Settings
from gateway.streams.images import RULE
from gateway.streams.service import Gateway
from gateway.streams.start import DEFAULT, parse_start

CHAINS = {"chat": ["chat"]}
UNOPENED = Gateway(Settings(), CHAINS)
FINE = [
    "https://example.com/a.png",
    "HTTPS://example.com/a.png",
    "data:image/png;base64,AA",
    "DATA:image/png,A",
]
REFUSED = [
    "http://127.0.0.1:6379/",
    "file:///etc/passwd",
    "ftp://example.com/a.png",
    "gopher://127.0.0.1:6379/_x",
    "data:text/html,x",
    "javascript:alert(1)",
    "//example.com/a.png",
    "/etc/passwd",
    " https://example.com/a.png",
    "https:example.com",
    "",
]


def user(part: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": "what is it?"}, part]}


def openai_part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def stream(url: str) -> None:
    parse_start({"messages": [user(openai_part(url))]}, CHAINS)


def anthropics(url: str) -> None:
    parse_start({"messages": [user({"type": "image", "source": {"type": "url", "url": url}})]}, CHAINS)


def in_a_tools_answer(url: str) -> None:
    part = {"type": "tool_result", "content": [{"type": "image", "url": url}]}
    parse_start({"messages": [user(part)]}, CHAINS)


def as_a_string(url: str) -> None:
    parse_start({"messages": [user({"type": "image_url", "image_url": url})]}, CHAINS)


def in_a_graphs_state(url: str) -> None:
    parse_start({"input": {"topic": "x", "messages": [user(openai_part(url))]}}, CHAINS)


def as_role_and_content(url: str) -> None:
    said = ["user", [{"type": "text", "text": "what is it?"}, openai_part(url)]]
    parse_start({"input": {"messages": [said]}}, CHAINS)


def as_langchain_dumps_it(url: str) -> None:
    message = {"lc": 1, "type": "constructor", "id": ["HumanMessage"], "kwargs": user(openai_part(url))}
    parse_start({"input": {"messages": [message]}}, CHAINS)


def as_a_graphs_input(url: str) -> None:
    parse_start({"input": [user(openai_part(url))]}, CHAINS)


def as_a_message_alone(url: str) -> None:
    parse_start({"input": {"question": user(openai_part(url))}}, CHAINS)


def as_a_video(url: str) -> None:
    parse_start({"messages": [user({"type": "image_or_video", "video_url": url})]}, CHAINS)


def chat_completions(url: str) -> None:
    chat.parse({"model": "chat", "messages": [user(openai_part(url))]}, UNOPENED)


def responses(url: str) -> None:
    said = {"role": "user", "content": [{"type": "input_image", "image_url": url}]}
    draft = openai_responses.parse({"model": "chat", "input": [said]}, UNOPENED)
    asyncio.run(openai_responses.with_what_was_said(draft, UNOPENED, ANONYMOUS))


def ai_sdk(url: str) -> None:
    part = {"type": "file", "mediaType": "image/png", "url": url}
    message = {"id": "m", "role": "user", "parts": [part]}
    parse_chat({"id": "c", "chain": "chat", "trigger": "submit-message", "messages": [message]}, CHAINS)


def langgraph(url: str) -> None:
    body = {"assistant_id": "chat", "input": {"messages": [user(openai_part(url))]}}
    asked = request.parse_run(body)
    state = request.begin_state(asked, [], DEFAULT)
    request.start_of(asked, state, CHAINS, DEFAULT)


WAYS = {
    stream: "messages[0].content[1].image_url.url",
    anthropics: "messages[0].content[1].source.url",
    in_a_tools_answer: "messages[0].content[1].content[0].url",
    as_a_string: "messages[0].content[1].image_url",
    in_a_graphs_state: "input.messages[0].content[1].image_url.url",
    as_role_and_content: "input.messages[0][1][1].image_url.url",
    as_langchain_dumps_it: "input.messages[0].kwargs.content[1].image_url.url",
    as_a_graphs_input: "input[0].content[1].image_url.url",
    as_a_message_alone: "input.question.content[1].image_url.url",
    as_a_video: "messages[0].content[1].video_url",
    chat_completions: "messages[0].content[1].image_url.url",
    responses: "input[0].content[0].image_url",
    ai_sdk: "messages[0].parts[0].url",
    langgraph: "input.messages[0].content[1].image_url.url",
}
ways = pytest.mark.parametrize(("send", "field"), WAYS.items(), ids=[way.__name__ for way in WAYS])


@ways
def test_fault_83_an_address_that_the_models_server_must_not_open_is_refused(send: Any, field: str) -> None:
    for url in REFUSED:
        if url == "data:text/html,x" and send is in_a_tools_answer:
            continue  # In a part that is not an image, any data is accepted.
        with pytest.raises(Invalid) as told:
            send(url)
        assert told.value.extensions["field"] == field, url
        assert told.value.extensions["rule"] == RULE


@ways
def test_fault_83_an_https_address_and_an_images_data_are_taken(send: Any, field: str) -> None:
    for url in FINE:
        send(url)


def test_fault_83_a_files_data_is_taken_and_its_address_is_not() -> None:
    parse_start({"messages": [user({"type": "file", "url": "data:application/pdf;base64,AA"})]}, CHAINS)
    with pytest.raises(Invalid):
        parse_start({"messages": [user({"type": "file", "url": "file:///etc/passwd"})]}, CHAINS)


@pytest.mark.parametrize("kind", [[], {}, None, 1, True])
def test_fault_83_a_part_whose_type_is_no_text_makes_no_error_of_ours(kind: Any) -> None:
    parse_start({"input": {"messages": [user({"type": kind})]}}, CHAINS)
    with pytest.raises(Invalid):
        parse_start({"input": [user({"type": kind, "url": "file:///etc/passwd"})]}, CHAINS)


def test_fault_83_what_only_looks_like_an_address_is_left_alone() -> None:
    """The sources cited in a text, and the fields of a chain's own input, may have any URL."""
    cited = {"type": "text", "text": "x", "annotations": [{"url": "http://example.com"}]}
    parse_start({"messages": [user(cited)]}, CHAINS)
    parse_start({"input": {"url": "http://example.com", "messages": "none"}}, CHAINS)
    own = {"type": "doc", "content": [{"type": "link", "url": "http://example.com"}]}
    parse_start({"input": {"page": own, "pages": [own, ["page", [{"url": "http://example.com"}]]]}}, CHAINS)
    parse_start({"input": {"messages": [1, {"content": "file:"}, {"content": [1, "file:"]}]}}, CHAINS)
