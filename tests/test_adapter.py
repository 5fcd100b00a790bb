"""The adapter converts LangChain's chunks to events.

One client here is real and streams from a real socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable, RunnableConfig, RunnableGenerator, RunnableLambda
from langchain_openai import ChatOpenAI

from gateway.protocol import Event
from tests.support.model_server import ModelServer, script
from workers.langchain import Outcome, Stage, stream, text_of

HERE = Stage("s", "d", "stream-id")


def yielding(*chunks: Any) -> Runnable[Any, Any]:
    async def transform(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for _ in inputs:
            for chunk in chunks:
                yield chunk

    return RunnableGenerator(transform)


async def events(
    runnable: Runnable[Any, Any], given: Any = "", params: dict[str, Any] | None = None
) -> tuple[list[Event], Outcome]:
    outcome, told = Outcome(), []

    async def emit(event: Event) -> None:
        told.append(event)

    await stream(runnable, given, params or {}, emit, HERE, outcome)
    return told, outcome


async def run(runnable: Runnable[Any, Any], given: Any = "") -> tuple[list[str], Outcome]:
    told, outcome = await events(runnable, given)
    return [event.data["delta_content"] for event in told], outcome


async def test_a_result_of_none_is_told_on_the_terminal(caplog: pytest.LogCaptureFixture) -> None:
    await events(RunnableLambda(lambda given: None))
    assert "its result is None. Does a function of it lack a `return`?" in caplog.text
    caplog.clear()
    await events(RunnableLambda(lambda given: 0))
    assert "return" not in caplog.text


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
    told, _ = await events(yielding("a"))
    assert [event.data for event in told] == [{"deployment": "d", "delta_content": "a", "stage": "s"}]


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
    assert outcome.usage == usage  # The model sent the same usage twice; it counts once.


async def test_a_chain_that_says_nothing_of_its_end_has_stopped() -> None:
    _, outcome = await run(yielding("a"))
    assert (outcome.finish_reason, outcome.usage) == ("stop", {})


async def test_params_reach_the_chain_as_its_configurable() -> None:
    def tone(_: Any, config: RunnableConfig) -> str:
        return str(config["configurable"]["tone"])

    chain: Runnable[Any, Any] = RunnableLambda(tone)
    told, _ = await events(chain, "", {"tone": "dry"})
    assert [event.data["delta_content"] for event in told] == ["dry"]


async def test_a_clients_params_name_no_thread_and_nothing_internal() -> None:
    def names(_: Any, config: RunnableConfig) -> str:
        return " ".join(sorted(config["configurable"]))

    theirs = ("thread_id", "checkpoint_id", "checkpoint_ns", "checkpoint_map", "__pregel_x", "tone")
    chain: Runnable[Any, Any] = RunnableLambda(names)
    told, _ = await events(chain, "", dict.fromkeys(theirs, "x"))
    assert [event.data["delta_content"] for event in told] == [
        "holdfast_attempt holdfast_idempotency_key holdfast_metadata holdfast_owner holdfast_stream_id tone"
    ]


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


class Slow:
    """A store that is too slow: it accepts `most` events and then blocks for ever."""

    def __init__(self, most: int) -> None:
        self.took: list[Event] = []
        self.is_behind = asyncio.Event()
        self._most = most

    async def emit(self, event: Event) -> None:
        if len(self.took) == self._most:
            self.is_behind.set()
            await asyncio.Event().wait()
        self.took.append(event)


@asynccontextmanager
async def running(runnable: Runnable[Any, Any], given: Any, slow: Slow) -> AsyncIterator[None]:
    """Run `stream` until the store blocks, let the test check the state, then cancel the task."""
    task = asyncio.create_task(stream(runnable, given, {}, slow.emit, HERE, Outcome()))
    await slow.is_behind.wait()
    yield
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_is_cancelled_stops_the_model_call() -> None:
    async with ModelServer() as model:
        slow = Slow(1)
        async with running(openai(model), script(["a", "b", "c"], gate="g", gate_at=2), slow):
            assert [event.data["delta_content"] for event in slow.took] == ["a"]
        await model.until(cut=1)


class Keeping(RunnableGenerator[Any, Any]):
    """A chain that keeps a reference to its stream, so that only an explicit close ends that stream."""

    def astream(self, *given: Any, **options: Any) -> AsyncIterator[Any]:
        self.made = super().astream(*given, **options)
        return self.made


async def test_what_is_cancelled_closes_the_chain_at_once() -> None:
    closed, yielded = [], []

    async def transform(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        try:
            async for _ in inputs:
                for letter in "abcdef":
                    yielded.append(letter)
                    yield letter
        finally:
            closed.append(True)

    async with running(Keeping(transform), "", Slow(2)):
        assert yielded == ["a", "b", "c"]  # The chain waits for the store and makes no chunk in advance.
    assert closed == [True]
