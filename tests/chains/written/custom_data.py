"""Custom events whose data is no JSON, and some that are."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TypedDict

from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.runnables import RunnableLambda
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph
from pydantic import BaseModel

from tests.chains.cases import case


class Place(BaseModel):
    name: str
    price: Decimal


def tells(data, *, sync=False):
    async def later(given):
        await adispatch_custom_event("progress", data)
        return "finished"

    def now(given):
        dispatch_custom_event("progress", data)
        return "finished"

    return RunnableLambda(now if sync else later)


@case("custom_nested", "plain", user="go")
def custom_nested(settings):
    return tells({"percent": 5, "steps": [{"name": "a", "done": True}, {"name": "b", "done": None}]})


@case("custom_date", "plain", user="go")
def custom_date(settings):
    return tells({"at": datetime(2026, 1, 1, tzinfo=UTC)})


@case("custom_decimal", "custom data", user="go")
def custom_decimal(settings):
    return tells({"cost": Decimal("1.5")})


@case("custom_model", "custom data", user="go")
def custom_model(settings):
    return tells({"place": Place(name="Rome", price=Decimal("2.50"))})


@case("custom_bytes_sync", "custom data", user="go")
def custom_bytes_sync(settings):
    return tells({"raw": b"\x00\x01"}, sync=True)


class Counted(TypedDict, total=False):
    n: int
    out: str


@case("writer_decimal", "plain", input={"n": 1}, note="the same by a graph's stream writer")
def writer_decimal(settings):
    async def make(state):
        write = get_stream_writer()
        for percent in (10, 60):
            write({"progress": percent})
        write({"cost": Decimal("1.10"), "raw": b"\x00"})
        write("plain text")
        return {"out": ""}

    b = StateGraph(Counted)
    b.add_node("make", make)
    b.add_edge(START, "make")
    return b.compile()


@case("custom_decimal_in_node", "custom data", input={"n": 1})
def custom_decimal_in_node(settings):
    async def make(state, config):
        await adispatch_custom_event("progress", {"cost": Decimal("0.10")}, config=config)
        return {"n": 1}

    b = StateGraph(Counted)
    b.add_node("make", make)
    b.add_edge(START, "make")
    return b.compile()
