"""The result is a mapping that contains the answer.

Its text is streamed, its documents are sent as sources, and the rest is the result.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    Runnable,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langchain_core.runnables.utils import AddableDict

from gateway.writing.writer import TooLong
from tests.support.adapted import HERE, kinds, result, says, texts, told


class Library(BaseRetriever):
    size: int = 10

    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        return [Document("x" * self.size, id="a"), Document("y" * self.size, id="b")]


def rag(library: Any, model: Any) -> Runnable[Any, Any]:
    given = RunnableParallel({"context": library, "question": RunnablePassthrough()})
    asked: Runnable[Any, Any] = RunnableLambda(lambda given: given["question"])
    return given.assign(answer=asked | model)


@pytest.mark.parametrize("parser", [StrOutputParser(), RunnablePassthrough()])
async def test_the_answer_streams_and_its_documents_are_told_once(parser: Any) -> None:
    events, outcome = await told(rag(Library(), says("one two three") | parser))
    assert [data["delta_content"] for data in kinds(events, "")] == ["one ", "two ", "three"]
    assert texts(events) == {("g", "answer"): "one two three"}
    sources = [data for data in kinds(events, "custom") if data["name"] == "sources"]
    assert [[one["id"] for one in data["data"]["documents"]] for data in sources] == [["a", "b"]]
    assert result(events) == {"question": "q"}
    answer = outcome.result["answer"]
    assert (answer if isinstance(answer, str) else answer["content"]) == "one two three"
    assert len(outcome.result["context"]) == 2


@pytest.mark.parametrize("library", [Library(size=5000), RunnableLambda(lambda _: [Document("z" * 9000)])])
async def test_large_documents_do_not_end_the_stream_of_a_short_answer(library: Any) -> None:
    events, _ = await told(rag(library, says("hi") | StrOutputParser()), here=replace(HERE, max_event=4000))
    assert texts(events) == {("g", "answer"): "hi"}
    [sources] = [data["data"]["documents"] for data in kinds(events, "custom") if data["name"] == "sources"]
    assert {len(one["text"]) for one in sources} == {500}
    assert result(events) == {"question": "q"}


async def test_documents_that_nobody_has_told_are_in_the_result() -> None:
    found: Runnable[Any, Any] = RunnableLambda(lambda _: [Document("z", id="z")])
    events, _ = await told(rag(found, says("hi") | StrOutputParser()))
    assert [one["page_content"] for one in result(events)["context"]] == ["z"]


async def test_answers_side_by_side_are_told_apart() -> None:
    events, outcome = await told(RunnableParallel(a=says("a b c"), b=says("x y z") | StrOutputParser()))
    assert texts(events) == {("g", "a"): "a b c", ("g", "b"): "x y z"}
    assert result(events) is None
    assert (outcome.result["a"]["content"], outcome.result["b"]) == ("a b c", "x y z")


async def test_an_answer_in_one_piece_is_text_where_a_model_has_said_just_that() -> None:
    """The chain is a function that returns a mapping, as a classic LangChain chain does."""

    async def function(given: str) -> dict[str, Any]:
        return {"answer": (await says("one two").ainvoke(given)).content, "asked": given}

    chain: Runnable[Any, Any] = RunnableLambda(function)
    events, _ = await told(chain)
    assert texts(events) == {("g", "answer"): "one two"}
    assert result(events) == {"asked": "q"}


async def test_what_grows_is_no_text() -> None:
    model = says('{"answer": "one two three", "more": 1}')
    events, outcome = await told(model | JsonOutputParser())
    assert texts(events) == {}
    assert result(events) == outcome.result == {"answer": "one two three", "more": 1}
    growing = [{"answer": "one"}, {"answer": "one two"}, {"answer": "one two"}]
    events, outcome = await told(yielding(*growing))
    assert (texts(events), result(events)) == ({}, {"answer": "one two"})


async def test_a_value_that_grows_beyond_an_event_ends_the_stream() -> None:
    chunks = [AddableDict(a=["x" * 100]) for _ in range(100)]
    with pytest.raises(TooLong):
        await told(yielding(*chunks), here=replace(HERE, max_event=1000))


def yielding(*chunks: Any) -> Runnable[Any, Any]:
    async def transform(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for _ in inputs:
            for chunk in chunks:
                yield chunk

    return RunnableGenerator(transform)


async def test_messages_that_are_not_a_models_are_values() -> None:
    from langchain_core.messages import HumanMessage

    events, outcome = await told(yielding(HumanMessage("mine")))
    assert texts(events) == {}
    assert result(events)["content"] == outcome.result["content"] == "mine"
    events, outcome = await told(yielding(AIMessage("its")))
    assert (texts(events), outcome.result) == ({("g",): "its"}, "its")


async def test_a_stage_that_hands_its_value_on_tells_all_of_it() -> None:
    """The result is the value that the next stage receives.

    A value that is too large is sent without the parts that were already sent as events.
    """
    made = rag(Library(), says("hi") | StrOutputParser())
    events, outcome = await told(made, here=replace(HERE, hands_on=True))
    assert texts(events) == {("g", "answer"): "hi"}
    assert result(events) == outcome.result
    made = rag(Library(size=5000), says("hi") | StrOutputParser())
    events, _ = await told(made, here=replace(HERE, hands_on=True, max_event=4000))
    assert result(events) == {"question": "q"}
