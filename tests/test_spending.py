"""What tries and attempts have used of which nothing stands: told apart, and never left out."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.exceptions import ModelConnectionError
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from gateway.store.record import Record
from gateway.store.usage import Usage
from gateway.streams.retrying import Wanted
from gateway.streams.start import Start
from gateway.streams.status import document
from tests.support.adapted import Scripted, calls
from tests.support.jobs import Jobs, body, eventually
from workers.attempt import retry
from workers.chains.registry import chain
from workers.spending import Bill, Spending


def usage(said: int) -> dict[str, int]:
    return {"input_tokens": 10, "output_tokens": said, "total_tokens": 10 + said}


class Paid(Scripted):
    """Tells with each answer what it cost: as many tokens as the answer's number, from 1."""

    def _next(self, messages: list[Any]) -> AIMessage:
        said = super()._next(messages)
        turn = 1 + sum(isinstance(message, AIMessage) for message in messages)
        return said.model_copy(update={"usage_metadata": usage(turn)})

    async def _astream(self, messages: list[Any], *given: Any, **named: Any) -> Any:
        from langchain_core.messages import AIMessageChunk
        from langchain_core.outputs import ChatGenerationChunk

        said = self._next(messages)
        yield ChatGenerationChunk(
            message=AIMessageChunk(
                content=said.text, tool_calls=said.tool_calls, usage_metadata=said.usage_metadata
            )
        )


def record(**fields: Any) -> Record:
    raw = {name: json.dumps(value).encode() for name, value in fields.items()}
    return Record.of("i", {"status": b"running", **raw})


def kept(fields: Any) -> dict[str, Any]:
    return {name: json.loads(value) for name, value in fields.items()}


def test_what_is_run_anew_is_lost_and_what_stands_is_not() -> None:
    spending = Spending(record(used={"": {"t": 1}, "a 1": {"t": 2}, "a 2": {"t": 4}}, lost={"t": 8}))
    spending.begin({"a 1"})
    assert spending.lost == {"t": 13}
    bill = Bill()
    assert kept(spending.news(bill)) == {"used": {"a 1": {"t": 2}}, "lost": {"t": 13}}
    assert spending.news(bill) == {}
    bill.add("a 2", {"t": 16})
    assert kept(spending.news(bill)) == {"used": {"a 1": {"t": 2}, "a 2": {"t": 16}}, "lost": {"t": 13}}
    assert spending.news(bill) == {}
    assert spending.settle(bill) == {"t": 18}
    assert kept(spending.settled()) == {"used": {}, "lost": {"t": 13}}
    assert spending.settled() == {}


def test_a_try_that_fails_is_lost_when_the_next_begins() -> None:
    spending, bill = Spending(record()), Bill()
    spending.begin(())
    bill.add("", {"t": 1})
    bill.add("", {"t": 1, "more": 1})
    spending.lose(bill)
    assert spending.lost == {}
    spending.begin(())
    assert (spending.lost, spending.settle(Bill())) == ({"t": 2, "more": 1}, {})


def test_where_no_model_tells_its_usage_nothing_is_kept() -> None:
    spending = Spending(record())
    spending.begin(())
    assert (spending.news(Bill()), spending.settle(Bill()), spending.settled()) == ({}, {}, {})


@pytest.mark.parametrize("remembers", [False, True])
async def test_an_attempt_that_is_stopped_in_a_tool_has_paid_for_the_call_before_it(
    redis_url: str, remembers: bool
) -> None:
    entered, gate = asyncio.Event(), asyncio.Event()

    @tool
    async def look(at: str) -> str:
        """Look, the first time for ever."""
        if not entered.is_set():
            entered.set()
            await gate.wait()
        return "seen"

    saver = InMemorySaver() if remembers else None
    name = f"paid-{remembers}".lower()
    answers = [calls("look", at="it"), AIMessage("it is there")]
    chain(name)(lambda _: create_agent(Paid(answers=answers), [look], checkpointer=saver))
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream("q", chain=name)
        attempt = asyncio.create_task(jobs.runner.run(body(stream_id)))
        await entered.wait()
        attempt.cancel()
        await attempt
        assert sum(used["total_tokens"] for used in (await jobs.record(stream_id)).used.values()) == 11
        await jobs.runner.run(body(stream_id))
        fold = await jobs.fold(stream_id)
        assert (fold.ended, fold.usage) == ("done", {n: usage(1)[n] + usage(2)[n] for n in usage(1)})
        assert fold.usage_lost == (None if remembers else usage(1))
        told = document(await jobs.record(stream_id), fold)
        assert told.get("usage_lost") == fold.usage_lost


async def test_a_try_that_fails_is_told_apart(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_SECONDS", 0.02)
    failed: list[bool] = []

    @tool
    async def look(at: str) -> str:
        """Look, the first time in vain."""
        if not failed:
            failed.append(True)
            raise ModelConnectionError("cut")
        return "seen"

    answers = [calls("look", at="it"), AIMessage("it is there")]
    chain("paid-twice")(lambda _: create_agent(Paid(answers=answers), [look]))
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream("q", chain="paid-twice")
        await jobs.runner.run(body(stream_id))
        fold = await jobs.fold(stream_id)
        assert fold.usage == {name: usage(1)[name] + usage(2)[name] for name in usage(1)}
        assert fold.usage_lost == usage(1)
        assert (await jobs.record(stream_id)).attempt == 1


@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_what_finished_stages_took_stands_where_the_stream_has_no_result(
    redis_url: str, end: str
) -> None:
    entered, gate, failing = asyncio.Event(), asyncio.Event(), [True]

    async def last(_: Any) -> str:
        entered.set()
        if end == "cancelled":
            await gate.wait()
        if failing:
            raise ValueError("in vain")
        return "made"

    name = f"staged-{end}"
    first = RunnableLambda(lambda given: given["input"]) | Paid(answers=[AIMessage("a")]) | StrOutputParser()
    chain(name, stages=("draft", "text"), tries=1)(lambda _: {"draft": first, "text": RunnableLambda(last)})
    async with Jobs(redis_url) as jobs:
        spent = Usage(jobs.connection)
        stream_id = (await jobs.gateway.create(Start(name, {"input": "q"}, {}), owner="key:a")).id
        attempt = asyncio.create_task(jobs.runner.run(body(stream_id)))
        await entered.wait()
        if end == "cancelled":
            await jobs.gateway.end(stream_id, "key:a")
        await attempt
        fold, record = await jobs.fold(stream_id), await jobs.record(stream_id)
        assert (fold.ended, fold.usage) == (end, None)
        assert document(record, fold)["usage"] == usage(1)

        async def counted(tokens: tuple[int, int]) -> None:
            async def right() -> bool:
                return (await spent.of("key:a")).day == tokens

            await eventually(right)

        await counted((10, 1))
        if end == "failed":  # what the retry has from it is not counted again
            failing.clear()
            again = (await jobs.gateway.retry(stream_id, Wanted(), owner="key:a")).id
            await jobs.runner.run(body(again))
            assert (await jobs.fold(again)).usage == usage(1)
            projector = jobs.log.projector
            assert projector is not None
            await projector.settle(again)
            await counted((10, 1 + 1))  # the text that no model has told of
