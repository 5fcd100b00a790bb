"""A report in two steps: the code that Durable Functions runs, without its triggers.

Each activity writes one stage of the same stream. The stream is named by the orchestration's instance id.
When Durable Functions retries an activity, the retry takes the stream over. It skips a stage that is
finished. In a stage that had begun, no text is written twice, as long as the model gives the same answer.
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
    """Run the orchestration: write an outline, then the text; return the URL of the stream."""
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
    """Return the gateway's URL of the stream. Readers can follow it from the start."""
    async with Producer.from_env() as producer:
        stream = await producer.open(chain="report", stages=STAGES, key=given["key"])
        return f"/stream/{stream.id}"


async def write_outline(given: dict[str, str]) -> str:
    """Write the first stage, and return its text. An earlier attempt may have written it."""
    return await _write("outline", given, f"An outline on: {given['topic']}")


async def write_text(given: dict[str, str]) -> str:
    """Write the second stage, and end the stream."""
    return await _write("text", given, given["outline"], ends=True)


async def give_up(given: dict[str, str]) -> None:
    """End the stream as failed, because no attempt is left."""
    async with Producer.from_env() as producer:
        stream = await producer.open(chain="report", stages=STAGES, key=given["key"])
        if stream.status not in ("done", "failed", "cancelled"):
            await stream.failed("model_error", "The model did not answer.", retryable=True)


async def _write(stage: str, given: dict[str, str], question: str, *, ends: bool = False) -> str:
    async with Producer.from_env() as producer:
        stream = await producer.open(chain="report", stages=STAGES, key=given["key"])
        if stream.status == "done":  # an earlier attempt has ended it, and died before it could return
            return ""
        try:
            async with stream.write(stage) as out:
                if not out.finished:
                    async for piece in _said(question):
                        await out.text(piece)
            if ends:
                await stream.done()
        except StreamCancelled:  # a reader has cancelled it; a retry would be useless
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
