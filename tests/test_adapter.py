"""LangChain's chunks as events, also from a real client that streams from a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable, RunnableConfig, RunnableGenerator, RunnableLambda
from langchain_openai import ChatOpenAI

from tests.support.model_server import ModelServer, script
from workers.adapter import Outcome, events, text_of


def yielding(*chunks: Any) -> Runnable[Any, Any]:
    async def transform(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for _ in inputs:
            for chunk in chunks:
                yield chunk

    return RunnableGenerator(transform)


async def run(runnable: Runnable[Any, Any], given: Any = "") -> tuple[list[str], Outcome]:
    outcome = Outcome()
    made = events(runnable, {"input": given}, {}, deployment="d", stage="s", outcome=outcome)
    return [event.data["delta_content"] async for event in made], outcome


def openai(model: ModelServer) -> ChatOpenAI:
    settings: dict[str, Any] = {"base_url": f"{model.url}/v1", "api_key": "k", "stream_usage": True}
    return ChatOpenAI(model="scripted", max_retries=0, **settings)


@pytest.mark.parametrize(
    ("chunk", "text"),
    [
        ("a string", "a string"),
        (AIMessageChunk(content="a chunk"), "a chunk"),
        (AIMessage(content="a whole message"), "a whole message"),
        (
            AIMessageChunk(content=[{"type": "text", "text": "a "}, {"type": "text", "text": "block"}]),
            "a block",
        ),
        (AIMessageChunk(content=["plain ", {"type": "text", "text": "and block"}]), "plain and block"),
        (AIMessageChunk(content=[{"type": "image_url", "image_url": "data:"}]), ""),
        (AIMessageChunk(content=[{"type": "reasoning", "summary": []}, {"type": "text", "text": None}]), ""),
        (AIMessageChunk(content=""), ""),
        ("", ""),
    ],
)
def test_the_text_of_a_chunk(chunk: Any, text: str) -> None:
    assert text_of(chunk) == text


@pytest.mark.parametrize("chunk", [{"answer": "a dict"}, None, 3])
def test_a_chunk_that_is_no_text_is_an_error_and_not_silence(chunk: Any) -> None:
    with pytest.raises(TypeError, match="must stream text or messages"):
        text_of(chunk)


async def test_a_chunk_with_text_is_an_event_and_one_without_is_none() -> None:
    texts, _ = await run(yielding("a", "", AIMessageChunk(content=""), AIMessageChunk(content="b")))
    assert texts == ["a", "b"]


async def test_an_event_names_deployment_and_stage() -> None:
    made = events(yielding("a"), {"input": ""}, {}, deployment="d", stage="s", outcome=Outcome())
    assert [event.data async for event in made] == [{"deployment": "d", "delta_content": "a", "stage": "s"}]


async def test_usage_and_finish_reason_are_kept_wherever_they_come() -> None:
    usage: UsageMetadata = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    chunks = [
        AIMessageChunk(content="a", response_metadata={"finish_reason": "length"}),
        AIMessageChunk(content="", usage_metadata=usage),
        AIMessageChunk(content="", usage_metadata=usage),
        AIMessageChunk(content=""),
    ]
    _, outcome = await run(yielding(*chunks))
    assert outcome.finish_reason == "length"
    assert outcome.usage == {"input_tokens": 2, "output_tokens": 4, "total_tokens": 6}


async def test_a_chain_that_says_nothing_of_its_end_has_stopped() -> None:
    _, outcome = await run(yielding("a"))
    assert (outcome.finish_reason, outcome.usage) == ("stop", {})


async def test_params_reach_the_chain_as_its_configurable() -> None:
    def tone(_: Any, config: RunnableConfig) -> str:
        return str(config["configurable"]["tone"])

    chain: Runnable[Any, Any] = RunnableLambda(tone)
    made = events(chain, {"input": ""}, {"tone": "dry"}, deployment="d", stage="s", outcome=Outcome())
    assert [event.data["delta_content"] async for event in made] == ["dry"]


async def test_messages_are_a_conversation_and_input_is_handed_on_as_it_is() -> None:
    seen: list[Any] = []

    def note(given: Any) -> str:
        seen.append(given)
        return ""

    chain: Runnable[Any, Any] = RunnableLambda(note)
    for given in ({"messages": [{"role": "user", "content": "q"}]}, {"input": {"any": ["json"]}}):
        async for _ in events(chain, given, {}, deployment="d", stage="s", outcome=Outcome()):
            pass
    assert seen == [[{"role": "user", "content": "q"}], {"any": ["json"]}]


async def test_a_real_model_streams_with_usage_and_finish_reason() -> None:
    async with ModelServer() as model:
        texts, outcome = await run(openai(model), script(["Gr", "üß", " Gott\u2028"]))
    assert texts == ["Gr", "üß", " Gott\u2028"]
    assert outcome.finish_reason == "stop"
    assert outcome.usage == {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}


async def test_a_sequence_that_ends_in_a_string_streams_too() -> None:
    async with ModelServer() as model:
        texts, _ = await run(openai(model) | StrOutputParser(), script(["a", "b"]))
    assert "".join(texts) == "ab"


async def test_what_is_closed_early_stops_the_model_call() -> None:
    async with ModelServer() as model:
        asked = script(["a", "b"], gate="g", gate_at=1)
        made = events(openai(model), {"input": asked}, {}, deployment="d", stage="s", outcome=Outcome())
        assert (await anext(made)).data["delta_content"] == "a"
        await made.aclose()
        await model.until(cut=1)


class Keeping(RunnableGenerator[Any, Any]):
    """Keeps hold of the stream it has made, so that only a real close ends it."""

    def astream(self, *given: Any, **options: Any) -> AsyncIterator[Any]:
        self.made = super().astream(*given, **options)
        return self.made


async def test_what_is_closed_early_closes_the_chain_at_once() -> None:
    closed = []

    async def transform(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        try:
            async for _ in inputs:
                yield "a"
                yield "b"
        finally:
            closed.append(True)

    made = events(Keeping(transform), {"input": ""}, {}, deployment="d", stage="s", outcome=Outcome())
    await anext(made)
    await made.aclose()
    assert closed == [True]
