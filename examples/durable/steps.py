"""A report in two steps: what Durable Functions runs, apart from its triggers.

Each activity writes one stage of the same stream, which the orchestration's instance id names. An activity
that Durable Functions tries again takes the stream over: a stage that is finished is passed over, and in one
that had begun nothing is said twice as long as the model says the same.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Generator
from datetime import timedelta
from typing import Any

import openai
from durabletask import task

from gateway.client import StreamCancelled
from holdfast_gateway import Producer

STAGES = ("outline", "text")
RETRY = task.RetryPolicy(first_retry_interval=timedelta(seconds=1), max_number_of_attempts=3)
CANCELLED = "cancelled"


def report(ctx: task.OrchestrationContext, topic: str) -> Generator[Any, Any, str]:
    """The orchestration: an outline, then the text; the address of the stream."""
    given = {"key": ctx.instance_id, "topic": topic}
    try:
        outline = yield ctx.call_activity("write_outline", input=given, retry_policy=RETRY)
        if outline != CANCELLED:
            given["outline"] = outline
            yield ctx.call_activity("write_text", input=given, retry_policy=RETRY)
    except task.TaskFailedError:
        yield ctx.call_activity("give_up", input=given, retry_policy=RETRY)
    stream: str = yield ctx.call_activity("address", input=given, retry_policy=RETRY)
    return stream


async def address(given: dict[str, str]) -> str:
    """Where the gateway shows the stream; it can be followed from the first moment on."""
    async with Producer.from_env() as producer:
        stream = await producer.open(chain="report", stages=STAGES, key=given["key"])
        return f"/stream/{stream.id}"


async def write_outline(given: dict[str, str]) -> str:
    """The first stage; what it came to, whoever has written it."""
    return await _write("outline", given, f"An outline on: {given['topic']}")


async def write_text(given: dict[str, str]) -> str:
    """The second stage, and the stream's end."""
    return await _write("text", given, given["outline"], ends=True)


async def give_up(given: dict[str, str]) -> None:
    """No attempt was left."""
    async with Producer.from_env() as producer:
        stream = await producer.open(chain="report", stages=STAGES, key=given["key"])
        if stream.status not in ("done", "failed", "cancelled"):
            await stream.failed("model_error", "The model did not answer.", retryable=True)


async def _write(stage: str, given: dict[str, str], question: str, *, ends: bool = False) -> str:
    async with Producer.from_env() as producer:
        stream = await producer.open(chain="report", stages=STAGES, key=given["key"])
        if stream.status == "done":  # an attempt has ended it, and died before it could say so
            return ""
        try:
            async with stream.write(stage) as out:
                if not out.finished:
                    async for piece in _said(question):
                        await out.text(piece)
            if ends:
                await stream.done()
        except StreamCancelled:  # by a reader; there is nothing to try again
            return CANCELLED
        return str(out.result)


async def _said(question: str) -> AsyncIterator[str]:
    async with openai.AsyncOpenAI(max_retries=0) as model:
        asked = await model.chat.completions.create(
            model=os.environ.get("MODEL", "gpt-4o-mini"),
            messages=[{"role": "user", "content": question}],
            stream=True,
            seed=1,
        )
        async for chunk in asked:
            if chunk.choices and (piece := chunk.choices[0].delta.content):
                yield piece
