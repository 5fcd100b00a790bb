"""Values that are not text or not JSON are sent complete, by their fields, and equal in every attempt."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langgraph.graph import MessagesState
from pydantic import BaseModel

from gateway.protocol import sse
from tests.support.adapted import again, graph_of, kinds, result, told
from workers.langchain.values import DEEPEST, plain


class Post(BaseModel):
    title: str
    content: Any = None


@pytest.mark.parametrize("content", ["text", ["a", "b"], {"deep": [1]}, None, 3])
async def test_an_object_with_a_field_named_content_is_no_message(content: Any) -> None:
    made: Runnable[Any, Any] = RunnableLambda(lambda _: Post(title="t", content=content))
    events, outcome = await told(made)
    assert kinds(events, "") == []
    assert result(events) == outcome.result == {"title": "t", "content": content}


@dataclass
class Point:
    x: Decimal
    name: str = "p"


class Colour(Enum):
    RED = "red"


class Rude:
    def __str__(self) -> str:
        raise RuntimeError


around: list[Any] = [1]
around.append(around)


ODD = [
    (Decimal("1.50"), "1.50"),
    (b"\x00\x01", "b'\\x00\\x01'"),
    ({"b", "a", "c"}, ["a", "b", "c"]),
    (frozenset({Decimal(2)}), ["2"]),
    ({1: "a", None: "b"}, {"1": "a", "None": "b"}),
    (float("nan"), None),
    (2**70, 2**70),
    (Point(Decimal(1)), {"x": "1", "name": "p"}),
    (Post(title="t", content=Decimal(1)), {"title": "t", "content": "1"}),
    (ValueError("why"), "why"),
    (KeyError(), "KeyError()"),
    (Colour.RED, "red"),
    (Rude(), "<Rude>"),
    ({"a": (1, {2})}, {"a": [1, [2]]}),
]


class Talk(BaseModel):
    said: list[BaseMessage]


def test_what_a_model_holds_is_told_by_the_fields_of_its_own_class() -> None:
    call = {"name": "t", "args": {"a": 1}, "id": "c", "type": "tool_call"}
    made = plain(Talk(said=[AIMessage("hi", tool_calls=[call])]))
    assert made["said"][0]["tool_calls"] == [call]


@pytest.mark.parametrize(("value", "same"), ODD)
def test_any_value_is_json(value: Any, same: Any) -> None:
    assert plain(value) == same
    assert json.loads(sse.dumps(plain(value))) == same


def test_a_value_that_holds_itself_is_cut() -> None:
    text = sse.dumps(plain(around))
    assert text.count(b"[") == DEEPEST
    assert len(text) < 1000


def test_a_set_is_told_in_the_same_order_by_every_process() -> None:
    code = "from workers.langchain.values import plain; print(plain({'a', 'b', 'c', 'd', 'e'}))"
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert said == {b"['a', 'b', 'c', 'd', 'e']\n"}


def dispatching(data: Any, form: str) -> Runnable[Any, Any]:
    async def later(given: Any) -> str:
        await adispatch_custom_event("progress", data)
        return "end"

    def now(given: Any) -> str:
        dispatch_custom_event("progress", data)
        return "end"

    async def now_in_the_loop(given: Any) -> str:
        dispatch_custom_event("progress", data)
        return "end"

    forms: dict[str, Callable[..., Any]] = {"async": later, "sync": now, "sync in the loop": now_in_the_loop}
    if form == "node":

        async def node(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
            await adispatch_custom_event("progress", data, config=config)
            return {}

        made: Runnable[Any, Any] = graph_of(MessagesState, node)
        return made
    return RunnableLambda(forms[form])


@pytest.mark.parametrize("form", ["async", "sync", "sync in the loop", "node"])
async def test_a_custom_event_may_bear_anything_however_it_is_dispatched(form: str) -> None:
    for value, same in [*ODD, (HumanMessage("hi", id="1"), plain(HumanMessage("hi", id="1")))]:
        events, _ = await told(dispatching({"value": value}, form))
        [data] = [data for data in kinds(events, "custom") if data["name"] == "progress"]
        assert data["data"] == {"value": same}


async def test_a_custom_event_is_compared_as_it_stands_in_the_log() -> None:
    await again(lambda: dispatching({1: (Decimal(2), {"b", "a"})}, "async"))
