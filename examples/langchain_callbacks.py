"""Your own server runs your own LangChain code, and a callback writes the model's output into a stream.

    export REDIS_URL=redis://localhost OPENAI_API_KEY=…
    uvicorn --factory --app-dir examples langchain_callbacks:create_app

`POST /ask {"question", "job"}` answers at once with the stream's address at the gateway. The run continues in
this server. The gateway only shows the stream and can cancel it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.runnables import Runnable
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.client import GatewayError
from holdfast_gateway import Producer


class ToStream(AsyncCallbackHandler):
    """Write a model's tokens and its tool calls into a stage: `config={"callbacks": [ToStream(out)]}`."""

    raise_error = True  # an error (stream cancelled or taken over) must stop this run, too

    def __init__(self, out: Any) -> None:
        self._out = out
        self._tools: dict[UUID, str] = {}

    async def on_llm_new_token(self, token: Any, **_: Any) -> None:
        """Write a piece of text."""
        if isinstance(token, str) and token:
            await self._out.text(token)

    async def on_tool_start(
        self, serialized: dict[str, Any], input_str: str, *, run_id: UUID, **given: Any
    ) -> None:
        """Write that a tool call begins."""
        self._tools[run_id] = (serialized or {}).get("name") or "tool"
        asked = given.get("inputs")
        await self._out.tool(self._tools[run_id], str(run_id), input=input_str if asked is None else asked)

    async def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        """Write the answer of a tool call."""
        told = getattr(output, "content", output)
        await self._out.tool(self._tools.pop(run_id), str(run_id), output=told)

    async def on_tool_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """Write that a tool call has failed, without the error: readers must not see it."""
        await self._out.tool(self._tools.pop(run_id), str(run_id), failed=True)


async def run(
    producer: Producer, chain: Runnable[Any, Any], stream_id: asyncio.Future[str], *, job: str, asked: str
) -> None:
    """Run the chain once, from the opening of its stream to its end."""
    stream = await producer.open(chain="own-server", key=job)
    stream_id.set_result(stream.id)
    if stream.status in ("done", "failed", "cancelled"):  # the same job was requested before
        return
    try:
        async with stream.write() as out:
            if not out.finished:
                async for _ in chain.astream(asked, config={"callbacks": [ToStream(out)]}):
                    pass  # the callback has written the text
        await stream.done()
    except GatewayError:
        raise  # cancelled, or taken over by another run of the same job: nothing remains to be written
    except Exception:
        await stream.failed("chain_error", "The chain failed.")
        raise


def create_app(chain: Runnable[Any, Any] | None = None, producer: Producer | None = None) -> Starlette:
    """Return the server. `chain` takes a question."""
    running: set[asyncio.Task[None]] = set()

    async def ask(request: Request) -> Response:
        given = await request.json()
        stream_id: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        state = request.app.state
        task = asyncio.create_task(
            run(state.producer, state.chain, stream_id, job=given["job"], asked=given["question"])
        )
        running.add(task)
        task.add_done_callback(running.discard)
        opened: set[asyncio.Future[Any]] = {task, stream_id}
        await asyncio.wait(opened, return_when=asyncio.FIRST_COMPLETED)
        if not stream_id.done():
            await task  # an error that prevented the opening is raised in this request
        return JSONResponse({"stream": f"/stream/{stream_id.result()}"}, 202)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with producer or Producer.from_env() as app.state.producer:
            app.state.chain = chain or _model()
            yield
            await asyncio.gather(*running, return_exceptions=True)

    return Starlette(routes=[Route("/ask", ask, methods=["POST"])], lifespan=lifespan)


def _model() -> Runnable[Any, Any]:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model="gpt-4o-mini", streaming=True)
