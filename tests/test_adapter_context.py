"""The caller's facts that a chain receives: in its `configurable`, and as a graph's context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from pydantic import BaseModel

from gateway.protocol.errors import Invalid
from gateway.streams.start import parse_start
from workers.langchain.chunks import config_of
from workers.langchain.graph import context_of
from workers.langchain.keys import key_of
from workers.langchain.stage import Stage

STAGE = Stage("s", "d", owner="key:ada", stream_id="id", attempt=2, metadata={"order": 7})
PARAMS = {"lang": "de", "other": 1, "holdfast_owner": "key:eve"}
KNOWN = {"lang": "de", "holdfast_owner": "key:ada"}


@dataclass
class Classed:
    lang: str
    holdfast_owner: str = ""


class Modelled(BaseModel):
    lang: str
    holdfast_owner: str = ""


class Base(TypedDict):
    lang: str


class Typed(Base):
    holdfast_owner: str


class State(TypedDict):
    seen: Any


def graph(schema: Any) -> Any:
    async def look(state: State, runtime: Runtime[Any]) -> State:
        return {"seen": runtime.context}

    return StateGraph(State, context_schema=schema).add_node("look", look).add_edge(START, "look").compile()


@pytest.mark.parametrize("schema", [Classed, Modelled, Typed])
async def test_a_graph_is_given_what_its_schema_names(schema: Any) -> None:
    made = graph(schema)
    context = context_of(made, PARAMS, STAGE)
    assert context == KNOWN
    seen = (await made.ainvoke({"seen": None}, context=context))["seen"]
    assert (seen if isinstance(seen, dict) else vars(seen)) == KNOWN


def test_without_a_schema_or_without_anything_of_it_there_is_no_context() -> None:
    assert context_of(graph(None), PARAMS, STAGE) is None

    @dataclass
    class Unasked:
        colour: str = "red"

    assert context_of(graph(Unasked), PARAMS, STAGE) is None


def test_who_asks_is_told_by_names_that_no_client_sets() -> None:
    told = config_of({**PARAMS, "holdfast_attempt": 9, "holdfast_metadata": {"order": 8}}, STAGE, [])
    assert told["configurable"] == {
        "lang": "de",
        "other": 1,
        "holdfast_owner": "key:ada",
        "holdfast_stream_id": "id",
        "holdfast_attempt": 2,
        "holdfast_metadata": {"order": 7},
        "holdfast_idempotency_key": key_of(STAGE),
    }


def test_context_is_a_field_of_the_request_and_the_stronger() -> None:
    body = {"user": "x", "params": {"a": 1, "b": 1}, "context": {"b": 2, "holdfast_owner": "eve"}}
    assert parse_start(body, {"chat": None}).params == {"a": 1, "b": 2}
    with pytest.raises(Invalid, match="context"):
        parse_start({"user": "x", "context": 7}, {"chat": None})
