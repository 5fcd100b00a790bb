"""The programs in examples/ run without changes: they are killed, run again and cancelled."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import httpx
import openai
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import tool
from redis.asyncio import Redis

from examples import langchain_callbacks, openai_sdk
from gateway.settings import Settings
from gateway.streams.service import Gateway
from holdfast_gateway import Producer
from holdfast_gateway.testing import Scripted
from tests.support.jobs import eventually
from tests.support.model_server import ModelServer, script
from tests.support.producing import REPOSITORY, fold, producer, told


async def program(name: str, *arguments: str, environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    """Start one of the examples with the command that its first lines give."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, f"examples/{name}.py", *arguments),
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), **environment},
        stdout=asyncio.subprocess.PIPE,
    )


async def test_the_openai_sdk_killed_and_run_again_is_one_answer(redis_url: str, redis: Redis) -> None:
    question = script(["Hel", "lo ", "you"], gate="rest", gate_at=2)
    async with ModelServer() as model, producer(redis_url) as made:
        given = {**model.environment(), "REDIS_URL": redis_url}
        first = await program("openai_sdk", "order-17", question, environment=given)
        assert first.stdout is not None
        stream_id = (await first.stdout.readline()).decode().strip().rpartition("/")[2]

        async def says_two() -> bool:
            return "lo " in await told(redis, stream_id)

        await eventually(says_two)
        first.send_signal(signal.SIGKILL)
        await first.wait()
        model.open_gate("rest")
        async with openai.AsyncOpenAI(base_url=given["OPENAI_BASE_URL"], api_key="k") as client:
            for _ in range(2):  # The second run finds the stream already ended.
                again = await openai_sdk.answer(made, client, job="order-17", question=question)
                assert again == stream_id
            refused = script([], status=400)
            failed = await openai_sdk.answer(made, client, job="order-18", question=refused)
    assert await told(redis, stream_id) == ["start", "+answer", "Hel", "lo ", "you", "-answer", "done"]
    whole = await fold(redis, stream_id)
    assert whole.usage is not None
    assert whole.usage["total_tokens"] > 0
    assert (await told(redis, failed))[-1] == "failed"


async def ask(chain: Runnable[Any, Any], made: Producer, job: str) -> str:
    """Ask a third-party server once, and wait until its runs are over. Return the stream's id."""
    server = langchain_callbacks.create_app(chain, made)
    async with (
        server.router.lifespan_context(server),
        httpx.AsyncClient(base_url="http://own", transport=httpx.ASGITransport(server)) as http,
    ):
        answer = await http.post("/ask", json={"job": job, "question": "q"})
    assert answer.status_code == 202
    return str(answer.json()["stream"]).rpartition("/")[2]


@tool
def search(query: str) -> str:
    """Search."""
    return f"found {query}"


async def _looks(question: str) -> str:
    found = await search.ainvoke({"query": question})
    return f"{question}: {found}"


async def test_langchains_callbacks_write_from_somebodys_own_server(redis_url: str, redis: Redis) -> None:
    chain = RunnableLambda(_looks) | Scripted("one two")
    settings = Settings(redis_url=redis_url)
    for _ in range(2):  # The same job, sent again, gives the same stream.
        stream_id = await ask(chain, Producer(settings), "j")
    [start, begun, called, answered, *said, ended, done] = await told(redis, stream_id)
    assert (start, begun, ended, done) == ("start", "+own-server", "-own-server", "done")
    assert (called.partition(":")[2], answered.partition(":")[2]) == ("started", "finished")
    assert "".join(said) == "one two"
    failed = await ask(RunnableLambda(_looks) | Scripted(ValueError("secret")), Producer(settings), "k")
    assert (await told(redis, failed))[-1] == "failed"


async def test_a_cancel_at_the_gateway_stops_the_run_in_somebodys_own_server(
    redis_url: str, redis: Redis
) -> None:
    gateway = Gateway(Settings(redis_url=redis_url), {})
    stopped = asyncio.Event()

    async def waits(question: str) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return question

    async def cancel(job: str) -> None:
        async with producer(redis_url) as made:
            stream_id = (await made.open(chain="own-server", key=job)).id

            async def begun() -> bool:
                return "+own-server" in await told(redis, stream_id)

            await eventually(begun)
            await gateway.end(stream_id, "anonymous")

    asking = asyncio.create_task(ask(RunnableLambda(waits), Producer(Settings(redis_url=redis_url)), "j"))
    await cancel("j")
    async with asyncio.timeout(30):
        await stopped.wait()
    stream_id = await asking
    await gateway.close()
    assert await told(redis, stream_id) == ["start", "+own-server", "cancelled"]


def test_each_example_is_named_where_producers_are_described() -> None:
    page = (REPOSITORY / "docs/producers.md").read_text()
    names = [path.name for path in (REPOSITORY / "examples").iterdir() if not path.name.startswith("__")]
    assert [name for name in names if f"examples/{name}" not in page] == []
    assert len(names) >= 2
