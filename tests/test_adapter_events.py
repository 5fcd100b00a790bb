"""Events for what `astream` hides and for what is not text.

Checked: tools, documents, reasoning, usage, custom events.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers import (
    CommaSeparatedListOutputParser,
    JsonOutputParser,
    PydanticOutputParser,
    StrOutputParser,
)
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableLambda, RunnableParallel
from langchain_core.runnables.utils import AddableDict
from langchain_core.tools import tool
from pydantic import BaseModel

from gateway.protocol import Event, sse
from gateway.writing.writer import TooLong
from tests.support.model_server import ModelServer, script
from tests.test_adapter import HERE, events, openai, yielding
from workers.langchain import Outcome, stream
from workers.langchain.inside import EXCERPT_CHARACTERS, MOST_DOCUMENTS
from workers.langchain.values import Sum, plain


def customs(told: list[Event]) -> list[tuple[str, Any]]:
    return [(event.data["name"], event.data["data"]) for event in told if event.type == "custom"]


@pytest.mark.parametrize(
    "chunk",
    [
        AIMessageChunk(content="", additional_kwargs={"reasoning_content": "hm"}),
        AIMessageChunk(content=[{"type": "reasoning", "reasoning": "hm"}]),
        AIMessageChunk(content=[{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}]),
        AIMessageChunk(content=[{"type": "thinking", "thinking": "hm"}]),
    ],
)
async def test_reasoning_is_apart_from_the_text(chunk: AIMessageChunk) -> None:
    told, outcome = await events(yielding(chunk, AIMessageChunk(content="so")))
    assert customs(told) == [("reasoning", {"delta": "hm"})]
    assert [event.type for event in told] == ["custom", ""]
    assert outcome.result == "so"


async def test_a_tool_call_that_nobody_runs_is_told_with_its_gathered_arguments() -> None:
    calls = [
        tool_call_chunk(name="look", args='{"a', id="c1", index=0),
        tool_call_chunk(name=None, args='": 1}', id=None, index=0),
    ]
    chunks = [AIMessageChunk(content="", tool_call_chunks=[call]) for call in calls]
    told, _ = await events(yielding(*chunks))
    assert [event.data for event in told] == [
        {"name": "look", "call_id": "c1", "stage": "s", "state": "started", "input": {"a": 1}}
    ]


class Joke(BaseModel):
    setup: str
    punchline: str


@tool
def adds(a: int, b: int) -> int:
    """Add."""
    return a + b


@tool
async def fails(a: int) -> int:
    """Fail."""
    raise RuntimeError("canary")


async def test_a_tool_in_a_sequence_is_told_when_it_begins_and_when_it_ends() -> None:
    chain: Runnable[Any, Any] = adds | RunnableLambda(str)
    told, _ = await events(chain, {"a": 2, "b": 3})
    assert [(event.type, event.data.get("state")) for event in told] == [
        ("tool", "started"),
        ("tool", "finished"),
        ("", None),
    ]
    assert (told[0].data["input"], told[1].data["output"]) == ({"a": 2, "b": 3}, 5)
    assert told[0].data["call_id"] == told[1].data["call_id"]


async def test_a_tools_error_is_told_without_its_words() -> None:
    told: list[Event] = []

    async def emit(event: Event) -> None:
        told.append(event)

    chain: Runnable[Any, Any] = fails | RunnableLambda(str)
    with pytest.raises(RuntimeError):
        await stream(chain, {"a": 1}, {}, emit, HERE, Outcome())
    assert [event.data["state"] for event in told] == ["started", "failed"]
    assert "canary" not in str(told)


class Library(BaseRetriever):
    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        metadata = {"source": "s.md", "title": "T", "score": 0.5}
        return [Document("x" * 1000, id=str(n), metadata=metadata) for n in range(MOST_DOCUMENTS + 1)]


async def test_retrieved_documents_are_told_within_bounds() -> None:
    chain: Runnable[Any, Any] = Library() | RunnableLambda(lambda found: str(len(found)))
    told, _ = await events(chain, "q")
    [(name, data)] = customs(told)
    assert name == "sources"
    assert len(data["documents"]) == MOST_DOCUMENTS
    excerpt = "x" * EXCERPT_CHARACTERS
    assert data["documents"][0] == {"id": "0", "title": "T", "source": "s.md", "score": 0.5, "text": excerpt}


async def test_an_event_of_the_chains_own_is_told_at_once_and_not_with_the_next_text() -> None:
    go_on, told = asyncio.Event(), asyncio.Queue[Event]()

    async def tells(given: str) -> str:
        await adispatch_custom_event("half\nway\0" + "x" * 300, {"percent": 50})
        await go_on.wait()
        return given

    chain: Runnable[Any, Any] = RunnableLambda(tells)
    task = asyncio.create_task(stream(chain, "q", {}, told.put, HERE, Outcome()))
    event = await asyncio.wait_for(told.get(), 10)
    assert event.data["name"] == ("half way " + "x" * 300)[:200]
    assert event.data["data"] == {"percent": 50}
    go_on.set()
    await task


async def test_code_that_is_not_async_may_dispatch_too() -> None:
    def in_a_thread(given: str) -> str:
        dispatch_custom_event("a", 1)
        return given

    async def in_the_loop(given: str) -> str:
        dispatch_custom_event("b", 2)
        return given

    chain: Runnable[Any, Any] = RunnableLambda(in_a_thread) | RunnableLambda(in_the_loop)
    told, _ = await events(chain, "q")
    assert customs(told) == [("a", 1), ("b", 2)]
    assert told[-1].type == ""


async def test_what_is_no_text_is_the_stages_result() -> None:
    first: Runnable[Any, Any] = RunnableLambda(lambda _: 1)
    second: Runnable[Any, Any] = RunnableLambda(lambda _: [2])
    told, outcome = await events(RunnableParallel(a=first, b=second), "q")
    assert customs(told) == [("result", {"a": 1, "b": [2]})]
    assert outcome.result == {"a": 1, "b": [2]}


async def test_a_value_that_is_streamed_as_it_grows_is_told_once() -> None:
    async with ModelServer() as model:
        chain = openai(model) | JsonOutputParser()
        told, outcome = await events(chain, script(['{"a": ', "1, ", '"b": 2}']))
    assert customs(told) == [("result", {"a": 1, "b": 2})]
    assert outcome.result == {"a": 1, "b": 2}


NUMBERS = ["1", "2", "3"]
OBJECT = ['{"setup": "a", ', '"punchline": "b"}']


@pytest.mark.parametrize(
    ("pieces", "parser"),
    [
        (["[1, ", "2, ", "3]"], JsonOutputParser()),
        (NUMBERS, JsonOutputParser()),
        (NUMBERS, JsonOutputParser().with_config(tags=["t"])),
        (NUMBERS, RunnableLambda(lambda given: given) | JsonOutputParser()),
        (['"hel', "lo", '"'], JsonOutputParser()),
        (OBJECT, JsonOutputParser()),
        (OBJECT, PydanticOutputParser(pydantic_object=Joke)),
        (["a, ", "b, ", "c"], CommaSeparatedListOutputParser()),
        (OBJECT, RunnableParallel(one=JsonOutputParser(), two=JsonOutputParser())),
    ],
)
async def test_a_result_is_what_ainvoke_gives(pieces: list[str], parser: Runnable[Any, Any]) -> None:
    model = yielding(*(AIMessageChunk(content=piece) for piece in pieces))
    told, outcome = await events(model | parser)
    assert outcome.result == plain(await (model | parser).ainvoke(""))
    shown = [event.data["data"] if event.type == "custom" else event.data["delta_content"] for event in told]
    assert shown == [outcome.result]


def test_a_mappings_members_are_added_or_replaced_each_for_itself() -> None:
    """The chunks come in an order that a RunnableParallel may use.

    If one member cannot be added, it is replaced, and the other member is not lost.
    """
    total = Sum(1000)
    chunks: list[Any] = [{"one": {"a": 1}}, {"two": "x"}, {"one": {"a": 1, "b": 2}}, {"two": "y"}]
    for chunk in chunks:
        total.add(AddableDict(chunk))
    assert total.value == {"one": {"a": 1, "b": 2}, "two": "xy"}


async def test_messages_within_a_value_are_json_by_their_fields() -> None:
    made: Runnable[Any, Any] = RunnableLambda(lambda _: [HumanMessage("a"), AIMessage("b")])
    told, outcome = await events(made)
    assert [message["content"] for message in outcome.result] == ["a", "b"]
    assert customs(told) == [("result", json.loads(sse.dumps(outcome.result)))]


@pytest.mark.parametrize(
    ("value", "same"),
    [
        ((1, 2.5, None, True), [1, 2.5, None, True]),
        ({1: [Joke(setup="a", punchline="b")]}, {"1": [{"setup": "a", "punchline": "b"}]}),
        ({"a": float("nan")}, {"a": None}),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (Joke, str(Joke)),
        ({"a": {3}}, {"a": [3]}),
    ],
)
def test_a_value_is_what_a_reader_reads(value: Any, same: Any) -> None:
    assert plain(value) == same
    assert json.loads(sse.dumps(plain(value))) == same


def tool_call_piece(arguments: str) -> AIMessageChunk:
    return AIMessageChunk(
        content="", tool_call_chunks=[tool_call_chunk(name="n", args=arguments, id="c", index=0)]
    )


@pytest.mark.parametrize(
    "chunk", [["x" * 100], {"a": ["x" * 100]}, tool_call_piece("x" * 100)], ids=["list", "object", "call"]
)
async def test_what_is_gathered_for_a_result_ends_at_the_largest_event(chunk: Any) -> None:
    given: list[Any] = []

    async def transform(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for _ in inputs:
            while len(given) < 100:
                given.append(chunk)
                yield AddableDict(chunk) if isinstance(chunk, dict) else chunk

    async def emit(event: Event) -> None:
        pass

    with pytest.raises(TooLong):
        await stream(RunnableGenerator(transform), "", {}, emit, replace(HERE, max_event=1000), Outcome())
    assert len(given) <= 10


async def test_chunks_that_replace_each_other_are_no_sum() -> None:
    """Only the value that is kept counts against the size limit.

    Chunks that replace each other are not added up, and the same is true for the members of a mapping.
    """
    growing: Any = [AddableDict(a={"b": "x" * size}) for size in range(0, 900, 10)]
    states = [{"a": "x" * 800} for _ in range(100)]
    for chunks in (growing, states):
        outcome = Outcome()

        async def emit(event: Event) -> None:
            pass

        await stream(yielding(*chunks), "", {}, emit, replace(HERE, max_event=1000), outcome)
        assert outcome.result == chunks[-1]


async def test_usage_and_end_behind_a_parser_are_the_models() -> None:
    async with ModelServer() as model:
        twice = RunnableParallel(a=openai(model), b=openai(model)) | RunnableLambda(lambda both: both["a"])
        for chain, calls in ((openai(model) | StrOutputParser(), 1), (twice, 2)):
            _, outcome = await events(chain, script(["a", "b"]))
            assert outcome.usage == {
                "input_tokens": 7 * calls,
                "output_tokens": 2 * calls,
                "total_tokens": 9 * calls,
            }
            assert outcome.finish_reason == "stop"


async def test_what_the_writer_raises_is_raised_whatever_the_chain_makes_of_it() -> None:
    """A fallback in a chain catches every exception, also one that the writer raised."""

    async def tells(given: str) -> str:
        await adispatch_custom_event("a", 1)
        return given

    async def emit(event: Event) -> None:
        raise TooLong

    other: Runnable[Any, Any] = RunnableLambda(lambda _: "fallen back")
    chain: Runnable[Any, Any] = RunnableLambda(tells).with_fallbacks([other])
    with pytest.raises(TooLong):
        await stream(chain, "q", {}, emit, HERE, Outcome())


async def test_branches_that_speak_at_once_are_written_one_after_the_other() -> None:
    within, told = 0, []

    async def emit(event: Event) -> None:
        nonlocal within
        within += 1
        assert within == 1
        await asyncio.sleep(0)
        told.append(event.data["data"])
        within -= 1

    async def tells(given: str) -> str:
        for number in range(10):
            await adispatch_custom_event(given, number)
        return given

    branches: dict[str, Any] = dict.fromkeys("abc", RunnableLambda(tells))
    await stream(RunnableParallel(branches), "q", {}, emit, HERE, Outcome())
    assert sorted(value for value in told if isinstance(value, int)) == sorted(list(range(10)) * 3)


async def test_a_chain_that_fails_leaves_its_usage() -> None:
    async def transform(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for _ in inputs:
            usage: Any = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
            yield AIMessageChunk(content="a", usage_metadata=usage)
            raise ValueError

    outcome = Outcome()

    async def emit(event: Event) -> None:
        pass

    with pytest.raises(ValueError, match=r"^$"):
        await stream(RunnableGenerator(transform), "q", {}, emit, HERE, outcome)
    assert outcome.usage["output_tokens"] == 2
