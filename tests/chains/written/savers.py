"""Factories that open something: a checkpointer that stays, opened in each way of its documentation."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from tests.chains.cases import case, llm, say, scratch, talk


def builder():
    model = llm()

    async def a(state: MessagesState):
        return {"messages": [await model.ainvoke(state["messages"])]}

    async def b(state: MessagesState):
        return {"messages": [await model.ainvoke("#poem")]}

    made = StateGraph(MessagesState)
    made.add_node("a", a)
    made.add_node("b", b)
    made.add_edge(START, "a")
    made.add_edge("a", "b")
    return made


@case("saver_in_memory", "nodes", user="#echo hi")
def saver_in_memory(settings):
    return builder().compile(checkpointer=InMemorySaver())


@case("saver_sync", "failures", user="#echo hi", note="SqliteSaver is not for async graphs, and says so",
      needs="langgraph.checkpoint.sqlite")  # fmt: skip
def saver_sync(settings):
    from langgraph.checkpoint.sqlite import SqliteSaver

    return builder().compile(
        checkpointer=SqliteSaver(sqlite3.connect(scratch("sync.db"), check_same_thread=False))
    )


@case(
    "saver_in_factory",
    "saver",
    user="#echo hi",
    note="AsyncSqliteSaver(aiosqlite.connect(...)) in a factory",
    needs="aiosqlite",
)
def saver_in_factory(settings):
    import aiosqlite
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    return builder().compile(checkpointer=AsyncSqliteSaver(aiosqlite.connect(scratch("plain.db"))))


@case("saver_async_factory", "saver", user="#echo hi", note="an async factory", needs="aiosqlite")
async def saver_async_factory(settings):
    import aiosqlite
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    return builder().compile(checkpointer=AsyncSqliteSaver(await aiosqlite.connect(scratch("async.db"))))


@talk(
    "saver_context_manager",
    "saver",
    say("#echo one"),
    say("#echo two"),
    note="a factory that is an async context manager",
    needs="langgraph.checkpoint.sqlite",
)
@asynccontextmanager
async def saver_context_manager(settings):
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    async with AsyncSqliteSaver.from_conn_string(scratch("with.db")) as saver:
        yield builder().compile(checkpointer=saver)
