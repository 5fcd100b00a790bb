"""The one-function design: the model's stream is sent directly in the response to the request.

`python -m bench.one_function SOCKET_FD`. OPENAI_BASE_URL and OPENAI_API_KEY name the model. Events that are
lost with a connection cannot be read again.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from langchain_openai import ChatOpenAI

app = FastAPI()
model = ChatOpenAI(model="scripted", stream_usage=True, max_retries=0)


async def tokens(question: str) -> AsyncIterator[str]:
    """Yield the tokens, framed as in the sample."""
    async for chunk in model.astream([("user", question)]):
        if chunk.content:
            yield f"data: {json.dumps({'deployment': 'm', 'delta_content': chunk.content})}\n\n"


@app.post("/stream")
async def stream(request: Request) -> StreamingResponse:
    """Ask the model and stream its answer."""
    return StreamingResponse(tokens((await request.json())["user"]), media_type="text/event-stream")


def main(fd: int) -> None:
    """Serve until the process is killed."""
    config = uvicorn.Config(app, log_level="error", access_log=False)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=fd)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
