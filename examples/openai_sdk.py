"""Write an answer of the plain OpenAI SDK into a stream: no LangChain, no chain, no worker.

    REDIS_URL=redis://localhost OPENAI_API_KEY=… python examples/openai_sdk.py order-17 "Who are you?"

Run it twice with the same first argument, or kill it in the middle and run it again: both runs write the same
stream. The gateway with the same REDIS_URL shows the stream at `/stream/<id>`, during the run and after it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import openai

from holdfast_gateway import Producer, StreamEnded

MODEL = os.environ.get("MODEL", "gpt-4o-mini")


async def answer(producer: Producer, model: openai.AsyncOpenAI, *, job: str, question: str) -> str:
    """Write the model's answer into the stream of this job, new or begun by an earlier run; return its id."""
    stream = await producer.open(chain="answer", key=job, metadata={"job": job})
    print(f"/stream/{stream.id}", flush=True)
    usage: dict[str, int] = {}
    try:
        async with stream.write() as out:
            if not out.finished:  # an earlier run may have finished it, and died before `done`
                usage = await _say(out, model, question)
        await stream.done(usage=usage)
    except StreamEnded:  # an earlier run has ended the stream: nothing remains to be done
        pass
    except openai.APIStatusError as error:
        may_pass = error.status_code >= 500
        await stream.failed("model_error", "The model's server has refused.", retryable=may_pass)
    return stream.id


async def _say(out: Any, model: openai.AsyncOpenAI, question: str) -> dict[str, int]:
    """Write each piece when it arrives.

    A cancel of the stream (`DELETE /stream/<id>`) cancels this coroutine, and so the model's call.
    """
    usage: dict[str, int] = {}
    completion = await model.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": question}],
        stream=True,
        stream_options={"include_usage": True},
        seed=1,  # a retry that gets the same answer voids less text
    )
    async with completion:
        async for chunk in completion:
            if chunk.choices and (piece := chunk.choices[0].delta.content):
                await out.text(piece)
            if chunk.usage is not None:
                told = chunk.usage
                usage = {"input_tokens": told.prompt_tokens, "output_tokens": told.completion_tokens}
                usage["total_tokens"] = told.total_tokens
    return usage


async def main(job: str, question: str) -> None:
    """Write one answer."""
    async with Producer.from_env() as producer, openai.AsyncOpenAI() as model:
        await answer(producer, model, job=job, question=question)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
