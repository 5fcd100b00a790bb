"""LangChain alone: `ChatOpenAI.astream` for several questions at once. Every chunk is read and dropped.

`python -m bench.bare`: for each line of stdin (a JSON list of questions), it prints one line with the number
of chunks and the CPU seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
from time import process_time

import uvloop
from langchain_openai import ChatOpenAI


async def ask(model: ChatOpenAI, question: str) -> int:
    """Ask the model and return the number of chunks that have text."""
    return sum([bool(chunk.content) async for chunk in model.astream([("user", question)])])


async def main() -> None:
    """Answer lines until stdin is closed."""
    model = ChatOpenAI(model="scripted", stream_usage=True, max_retries=0)
    while line := await asyncio.to_thread(sys.stdin.readline):
        began = process_time()
        chunks = sum(await asyncio.gather(*(ask(model, question) for question in json.loads(line))))
        print(json.dumps({"chunks": chunks, "cpu_seconds": process_time() - began}), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
