"""LangChain alone: `ChatOpenAI.astream` for so many questions at once, every chunk taken and dropped.

`python -m bench.bare`: for each line of stdin, a JSON list of questions, one line: chunks and CPU seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
from time import process_time

import uvloop
from langchain_openai import ChatOpenAI


async def ask(model: ChatOpenAI, question: str) -> int:
    """The number of its chunks that say something."""
    return sum([bool(chunk.content) async for chunk in model.astream([("user", question)])])


async def main() -> None:
    """Serve until stdin is closed."""
    model = ChatOpenAI(model="scripted", stream_usage=True, max_retries=0)
    while line := await asyncio.to_thread(sys.stdin.readline):
        began = process_time()
        chunks = sum(await asyncio.gather(*(ask(model, question) for question in json.loads(line))))
        print(json.dumps({"chunks": chunks, "cpu_seconds": process_time() - began}), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
