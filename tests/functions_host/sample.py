"""A function app that has one function of each kind, for the harness's own tests.

It is text, not a module: a test writes it into a folder of its own, as an app lies in
Azure. `/gates/{id}` is how a test decides when a generator goes on and how it learns that
one has ended: nothing here waits for a time.
"""

from pathlib import Path

HOST_JSON = '{"version": "2.0", "extensions": {"http": {"routePrefix": ""}}}'

FUNCTION_APP = """
import asyncio
import json
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import azure.functions as func
from azurefunctions.extensions.http.fastapi import (
    JSONResponse, Request, Response, StreamingResponse,
)
from starlette.types import Receive, Scope, Send

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)
gates: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
print("noise on stdout")


@app.route(route="/", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
async def root(req: Request) -> Response:
    return Response("the page", media_type="text/html")


@app.route(route="", methods=["GET"])
async def nameless(req: Request) -> Response:
    return Response("empty route")


@app.route(route="echo/{id}", methods=["GET", "POST"])
async def echo(req: Request) -> JSONResponse:
    return JSONResponse({
        "id": req.path_params["id"],
        "query": dict(req.query_params),
        "body": (await req.body()).decode(),
        "url": str(req.url),
        "headers": dict(req.headers),
    }, headers={"x-sample": "yes"})


@app.route(route="stream/{id}", methods=["GET"])
async def read_stream(req: Request) -> StreamingResponse:
    return StreamingResponse(chunks(req.path_params["id"]), media_type="text/event-stream")


async def chunks(stream_id: str) -> AsyncIterator[str]:
    try:
        yield "data: 1\\n\\n"
        await gates[stream_id].wait()
        yield "data: 2\\n\\n"
    finally:
        gates[stream_id + "-ended"].set()


@app.route(route="stream/{id}", methods=["DELETE"])
async def delete_stream(req: Request) -> JSONResponse:
    return JSONResponse({"deleted": req.path_params["id"]})


class UntilGone(Response):
    def __init__(self, name: str) -> None:
        super().__init__(media_type="text/event-stream")
        self.name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: 1\\n\\n", "more_body": True})
        while (message := await receive())["type"] != "http.disconnect":
            pass
        gates[self.name + "-ended"].set()


@app.route(route="custom/{id}", methods=["GET"])
async def custom(req: Request) -> UntilGone:
    return UntilGone(req.path_params["id"])


@app.route(route="gates/{id}", methods=["POST"])
async def open_gate(req: Request) -> Response:
    gates[req.path_params["id"]].set()
    return Response(status_code=204)


@app.route(route="gates/{id}", methods=["GET"])
async def await_gate(req: Request) -> Response:
    await gates[req.path_params["id"]].wait()
    return Response(status_code=204)


@app.route(route="docs", methods=["GET"])
async def docs(req: Request) -> Response:
    return Response("never seen")


@app.route(route="raise", methods=["GET"])
async def raise_(req: Request) -> Response:
    raise ValueError("a text that must not reach the client")


@app.route(route="cut", methods=["GET"])
async def cut(req: Request) -> StreamingResponse:
    async def broken() -> AsyncIterator[str]:
        yield "data: 1\\n\\n"
        raise ValueError("in the middle")

    return StreamingResponse(broken(), media_type="text/event-stream")


@app.queue_trigger(arg_name="msg", queue_name="%JOBS_QUEUE%", connection="AzureWebJobsStorage")
async def work(msg: func.QueueMessage) -> None:
    Path(os.environ["ECHO_FILE"]).write_text(json.dumps({
        "body": msg.get_body().decode(),
        "id": msg.id,
        "dequeue_count": msg.dequeue_count,
        "pop_receipt": msg.pop_receipt,
        "times": [
            time.isoformat()
            for time in (msg.insertion_time, msg.time_next_visible, msg.expiration_time)
        ],
    }))


@app.queue_trigger(arg_name="msg", queue_name="broken", connection="AzureWebJobsStorage")
async def fail(msg: func.QueueMessage) -> None:
    raise LookupError("no such job")


@app.timer_trigger(arg_name="timer", schedule="%SWEEP_SCHEDULE%")
async def sweep(timer: func.TimerRequest) -> None:
    Path(os.environ["ECHO_FILE"]).write_text(json.dumps({"past_due": timer.past_due}))
"""


def write_app(folder: Path, source: str = FUNCTION_APP) -> Path:
    """Write function_app.py and host.json into the folder; return the folder."""
    (folder / "function_app.py").write_text(source, "utf-8")
    (folder / "host.json").write_text(HOST_JSON, "utf-8")
    return folder
