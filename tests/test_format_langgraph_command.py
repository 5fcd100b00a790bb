"""Questions and answers with LangGraph's own SDKs: `command`, `__interrupt__`, tasks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import ConflictError, UnprocessableEntityError

from gateway.hosts.asgi import app
from tests.support import asking
from tests.support.jobs import Jobs
from workers.delivery.consumer import Loop
from workers.delivery.sweeper import Sweeper
from workers.threads.states import state_of, states_of

asking.register()
THREAD = "trip"
QUESTION = {"messages": [{"role": "user", "content": "q"}]}


@asynccontextmanager
async def served(redis_url: str) -> AsyncIterator[LangGraphClient]:
    """Yield an SDK client of a gateway in this process, which also runs a worker."""
    async with Jobs(redis_url) as jobs:
        jobs.gateway.state_of = state_of
        jobs.gateway.states_of = states_of

        loop = Loop(jobs.queue, jobs.runner, concurrency=1)
        sweeper = Sweeper(jobs.log, jobs.queue, backoff=jobs.settings.lease)
        working = [asyncio.create_task(one.run()) for one in (loop, sweeper)]
        transport = httpx.ASGITransport(app(jobs.gateway))
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
                yield LangGraphClient(http)
        finally:
            for one in working:
                one.cancel()
            await asyncio.gather(*working, return_exceptions=True)


async def values(client: LangGraphClient, chain: str, **given: Any) -> Any:
    """Return the last state that a run shows."""
    parts = [part async for part in client.runs.stream(THREAD, chain, **given)]
    assert not [part.data for part in parts if part.event == "error"]
    return [part.data for part in parts if part.event == "values"][-1]


EACH: dict[str, tuple[Any, Any, str]] = {
    "asks_once": ({"text": "q"}, "yes", "ask=yes"),
    "asks_within": ({"text": "q"}, "yes", "ask=yes"),
    "asks_in_a_tool": (QUESTION, "a book", "it is there"),
    "approves": (QUESTION, {"decisions": [{"type": "approve"}]}, "it is sent"),
}


@pytest.mark.parametrize("name", EACH)
async def test_a_question_is_read_and_answered(redis_url: str, name: str) -> None:
    given, answer, said = EACH[name]
    async with served(redis_url) as client:
        asked = (await values(client, name, input=given))["__interrupt__"]
        thread: Any = await client.threads.get(THREAD)
        state: Any = await client.threads.get_state(THREAD)
        assert thread["status"] == "interrupted"
        assert [one for task in state["tasks"] for one in task["interrupts"]] == asked
        [run] = await client.runs.list(THREAD)
        assert run["status"] == "interrupted"
        after = await values(client, name, command={"resume": answer})
        assert "__interrupt__" not in after
        assert said in json.dumps(after)
        assert (await client.threads.get_state(THREAD))["next"] == []
        assert next(run["status"] for run in await client.runs.list(THREAD)) == "success"


async def test_several_questions_are_answered_by_their_ids_and_all_at_once(redis_url: str) -> None:
    async with served(redis_url) as client:
        asked = (await values(client, "asks_thrice", input={"text": "q"}))["__interrupt__"]
        ids = {one["value"]: one["id"] for one in asked}
        assert set(ids) == {"a?", "b?", "c?"}
        for wrong in ("one for all", {ids["a?"]: 1}):
            with pytest.raises(UnprocessableEntityError):
                await client.runs.create(THREAD, "asks_thrice", command={"resume": wrong})
        answers = {ids["a?"]: 1, ids["b?"]: 2, ids["c?"]: 3}
        told: Any = await client.runs.wait(THREAD, "asks_thrice", command={"resume": answers})
        assert told["said"] == {"a": 1, "b": 2, "c": 3}


async def test_a_command_changes_the_state_and_the_way(redis_url: str) -> None:
    async with served(redis_url) as client:
        await values(client, "jumps", input={"text": "q"})
        command: Any = {"resume": 1, "update": {"said": {"more": 2}}, "goto": "last"}
        told: Any = await client.runs.wait(THREAD, "jumps", command=command)
        assert told["said"]["more"] == 2


async def test_the_same_command_again_is_the_same_run_and_another_is_refused(redis_url: str) -> None:
    async with served(redis_url) as client:
        await values(client, "asks_once", input={"text": "q"})
        first: Any = await client.runs.create(THREAD, "asks_once", command={"resume": 1})
        await client.runs.join(THREAD, first["run_id"])
        again: Any = await client.runs.create(THREAD, "asks_once", command={"resume": 1})
        assert again["run_id"] == first["run_id"]
        with pytest.raises(ConflictError):
            await client.runs.create(THREAD, "asks_once", command={"resume": 2})


async def test_an_input_lets_the_question_lapse(redis_url: str) -> None:
    async with served(redis_url) as client:
        await values(client, "asks_once", input={"text": "q"})
        [before] = await client.runs.list(THREAD)
        asked = (await values(client, "asks_once", input={"text": "another"}))["__interrupt__"]
        assert len(asked) == 1
        assert (await client.runs.get(THREAD, before["run_id"]))["status"] != "interrupted"
        assert (await values(client, "asks_once", command={"resume": 1}))["said"] == {"ask": 1}
