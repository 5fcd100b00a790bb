"""Chains that LangChain cannot stream as they are, and the private names of LangGraph that our code uses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import (
    Runnable,
    RunnableBranch,
    RunnableConfig,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langchain_core.runnables import chain as as_chain
from langgraph.graph import MessagesState

from tests.support.adapted import again, graph_of, kinds, result, says, texts, told
from workers.langchain.shape import streamable


def spelled(given: str, config: RunnableConfig) -> Iterator[str]:
    for letter in "abc":
        yield f"{letter}{threading.current_thread() is threading.main_thread()} "
    yield str("holdfast_owner" in config["configurable"])


SPELLS: Runnable[Any, Any] = cast("Any", as_chain)(spelled)


async def talk(state: MessagesState) -> dict[str, Any]:
    return {"messages": [await says("hi there").ainvoke(state["messages"])]}


def inner() -> Any:
    return graph_of(MessagesState, talk)


async def test_a_generator_that_is_not_async_streams_in_a_thread() -> None:
    made: Any
    for made in (SPELLS, RunnablePassthrough() | SPELLS, SPELLS.with_config(tags=["t"])):
        events, outcome = await told(made)
        said = ["aFalse ", "bFalse ", "cFalse ", "True"]
        assert [data["delta_content"] for data in kinds(events, "")] == said
        assert outcome.result == "".join(said)


async def test_a_graph_in_the_middle_of_a_sequence_gives_its_state() -> None:
    first: Runnable[Any, Any] = RunnableLambda(lambda given: {"messages": given})
    last: Runnable[Any, Any] = RunnableLambda(lambda state: f"{len(state['messages'])} messages")
    events, _ = await told(first | inner() | last)
    assert texts(events) == {("g",): "2 messages"}
    events, _ = await told(first | inner() | RunnablePassthrough.assign(count=lambda state: len(state)))
    assert [message["content"] for message in result(events)["messages"]] == ["q", "hi there"]


async def test_a_graph_is_asked_wherever_it_stands() -> None:
    given: Any = RunnableLambda(lambda given: {"messages": given})
    sequence = given | inner()
    made: Any
    for made in (
        RunnableParallel(a=sequence),
        RunnablePassthrough() | {"a": sequence},
        RunnableBranch((lambda _: True, sequence), given) | (lambda state: {"a": state}),
    ):
        events, _ = await told(made)
        assert [message["content"] for message in result(events)["a"]["messages"]] == ["q", "hi there"]


def test_a_chain_that_needs_no_change_is_left_alone() -> None:
    plain = RunnablePassthrough.assign(a=lambda _: 1) | {"a": says("x"), "b": RunnablePassthrough()}
    assert streamable(plain) is plain


async def test_they_survive_a_death_without_a_reset() -> None:
    given: Runnable[Any, Any] = RunnableLambda(lambda given: {"messages": given})
    await again(lambda: given | inner() | RunnableLambda(lambda state: AIMessage("x y", id="1")))
    await again(lambda: SPELLS)
    await again(inner)


def test_what_we_take_of_langgraph_is_there() -> None:
    """Check that the private names of LangGraph still exist.

    LangGraph does not document them, so they may change.
    """
    import inspect

    from workers.langchain import pregel

    handler = pregel.StreamMessagesHandler
    assert list(inspect.signature(handler.__init__).parameters) == [
        "self",
        "stream",
        "subgraphs",
        "parent_ns",
    ]
    for name in ("chain_start", "chain_end", "chat_model_start", "llm_new_token", "llm_end"):
        assert f"on_{name}" in vars(handler)
    made = handler(lambda part: None, subgraphs=True)
    assert (made.metadata, made.seen) == ({}, set())
    assert set(pregel.writing_to(print, inner())) == {"__pregel_runtime", "__pregel_stream"}
    assert pregel.written_at() == ("", None)


@pytest.mark.parametrize("remembers", [True, False])
async def test_a_graphs_own_store_is_had_beside_our_writer(remembers: bool) -> None:
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.config import get_store
    from langgraph.store.memory import InMemoryStore

    async def node(state: MessagesState) -> dict[str, Any]:
        await get_store().aput(("a",), "b", {"c": 1})
        return {}

    store = InMemoryStore()
    await told(
        graph_of(MessagesState, node, store=store, checkpointer=InMemorySaver() if remembers else None)
    )
    assert store.get(("a",), "b") is not None
