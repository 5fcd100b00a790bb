"""A scripted OpenAI-compatible server. It streams exactly what the question specifies, and logs the requests.

The script is the content of the last message, as JSON (see `script`), or the content of an earlier message
whose script has `turns`. Any other text gets a fixed sentence as answer. A gate delays the answer until the
test opens it, so no test needs to sleep. A subclass can override `told` to answer in another way.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self
from zlib import crc32

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

DEFAULT_TEXT = "I am the scripted model and I say always the same."
DIMENSIONS = 64
# a client in the test's process would keep the connection longer than its event loop
CLOSE = {"connection": "close"}


def script(chunks: list[str] | None = None, **options: Any) -> str:
    """Return the content of a question that is answered with these chunks.

    Options: `gate` (a name) waits before chunk number `gate_at` (default 0). `status` answers with that HTTP
    status (only for the first `times` requests), with `retry_after` in its header. `cut_at` cuts the
    connection before that chunk; `broken_at` sends a chunk there that is not JSON; `error_at` sends an
    `error` and ends the stream; `unended` ends the stream cleanly but without its end marker (`cut_times`:
    only for the first requests). `error` is the content of an error's body, and `headers` are the headers of
    the answer. `finish` is another finish reason. `raw` is the whole body of a 200, and `media` its type.
    `usage`: `each` sends the usage with every chunk, `twice` sends it twice at the end. `pace` is the number
    of seconds between chunks. `tool_calls`, each `{"name", "pieces"}`: the arguments are streamed in these
    pieces. `again`: the chunks for each repetition of the same question. Or, in place of all of these,
    `turns`: such options for each answer of a conversation.
    """
    return json.dumps(({} if chunks is None else {"chunks": chunks}) | options)


class ModelServer:
    """`async with ModelServer() as model`; then `model.environment()` for a gateway process."""

    def __init__(self) -> None:
        self.requests: list[Any] = []  # bodies of the requests, in order
        self.headers: list[Mapping[str, str]] = []  # headers of the requests, in order
        self.embedded: list[Any] = []  # texts that were embedded
        self.open_answers = 0  # number of answers that are being streamed now
        self.cut_answers = 0  # number of answers whose client disconnected
        self.changed = asyncio.Condition()
        self._gates: dict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def environment(self) -> dict[str, str]:
        return {
            "OPENAI_BASE_URL": f"{self.url}/v1",
            "OPENAI_API_KEY": "test-key",
            "GATEWAY_MODEL": "scripted",
        }

    def open_gate(self, name: str) -> None:
        self._gates[name].set()

    async def until(self, requests: int = 0, cut: int = 0) -> None:
        """Wait for this number of requests, and for this number of answers that were cut by their clients."""
        async with asyncio.timeout(60), self.changed:
            await self.changed.wait_for(lambda: len(self.requests) >= requests and self.cut_answers >= cut)

    def told(self, body: Any) -> dict[str, Any]:
        """Return the options of `script` with which to answer a request."""
        messages = _asked(body)
        for content in [messages[-1]["content"], *(message["content"] for message in messages)]:
            try:
                found: dict[str, Any] = json.loads(content)
                if "turns" in found:
                    answered = sum(message["role"] == "assistant" for message in messages)
                    return {"chunks": [], **found["turns"][answered]}
                if content == messages[-1]["content"] and "chunks" in found:
                    asked = [_asked(one)[-1]["content"] for one in self.requests].count(content)
                    return found | ({"chunks": found["again"]} if asked > 1 and "again" in found else {})
            except (ValueError, TypeError):
                continue
        return {"chunks": [word + " " for word in DEFAULT_TEXT.split()]}

    async def __aenter__(self) -> Self:
        bound = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        paths = (
            "/v1/chat/completions",
            "/openai/v1/chat/completions",
            "/openai/deployments/{name}/chat/completions",
        )
        app = Starlette(
            routes=[
                *(Route(path, self._answer, methods=["POST"]) for path in paths),
                Route("/v1/responses", self._answer, methods=["POST"]),
                Route("/v1/embeddings", self._embed, methods=["POST"]),
            ]
        )
        config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1, lifespan="off")
        self._server = uvicorn.Server(config)
        self._task = asyncio.create_task(self._server._serve([bound]), name="model-server")
        return self

    async def __aexit__(self, *_: object) -> None:
        for gate in self._gates.values():
            gate.set()
        self._server.should_exit = True
        await self._task

    async def _answer(self, request: Request) -> Response:
        body = await request.json()
        async with self.changed:
            self.requests.append(body)
            self.headers.append(request.headers)
            self.changed.notify_all()
        told = self.told(body)
        if "status" in told and len(self.requests) <= told.get("times", len(self.requests)):
            content = _asked(body)[-1]["content"]
            error = {"message": f"scripted, asked {content}", "type": "scripted", "code": "scripted"}
            after = {"retry-after": str(told["retry_after"])} if "retry_after" in told else {}
            headers = CLOSE | after | told.get("headers", {})
            return JSONResponse({"error": error | told.get("error", {})}, told["status"], headers=headers)
        if len(self.requests) > told.get("cut_times", len(self.requests)):
            told = told | {"cut_at": None, "broken_at": None, "error_at": None, "unended": False, "raw": None}
        if told.get("raw") is not None:
            return Response(told["raw"], media_type=told.get("media", "text/event-stream"), headers=CLOSE)
        stream = self._stream(told) if "messages" in body else self._responses(told, len(self.requests))
        return StreamingResponse(stream, media_type="text/event-stream", headers=CLOSE)

    async def _stream(self, told: dict[str, Any]) -> AsyncIterator[bytes]:
        self.open_answers += 1
        ended = False
        try:
            for number, text in enumerate(told["chunks"]):
                if told.get("gate") and number == told.get("gate_at", 0):
                    await self._gates[told["gate"]].wait()
                if number == told.get("cut_at"):
                    ended = True
                    raise ConnectionAbortedError("scripted cut")
                if number == told.get("broken_at"):
                    yield b'data: {"choices": [{"delta"\n\n'
                if number == told.get("error_at"):
                    yield b"data: " + json.dumps({"error": told["error"]}).encode() + b"\n\n"
                    ended = True
                    return
                so_far = {"prompt_tokens": 7, "completion_tokens": number + 1}
                yield _chunk({"content": text}, usage=so_far if told.get("usage") == "each" else None)
                if told.get("pace"):
                    await asyncio.sleep(told["pace"])
            for delta in _calls(told.get("tool_calls", []), len(self.requests)):
                yield _chunk({"tool_calls": [delta]})
            if told.get("unended"):
                ended = True
                return
            yield _chunk({}, finish=told.get("finish", "tool_calls" if told.get("tool_calls") else "stop"))
            for _ in range(2 if told.get("usage") == "twice" else 1):
                yield _chunk(None, usage={"prompt_tokens": 7, "completion_tokens": len(told["chunks"])})
            yield b"data: [DONE]\n\n"
            ended = True
        finally:
            self.open_answers -= 1
            if not ended:
                self.cut_answers += 1
            async with self.changed:
                self.changed.notify_all()

    async def _responses(self, told: dict[str, Any], number: int) -> AsyncIterator[bytes]:
        """Stream the same answer with OpenAI's Responses API. `error` ends it with `response.failed`."""
        whole: dict[str, Any] = {
            "id": f"resp-{number}", "object": "response", "created_at": 1, "model": "scripted", "output": [],
            "status": "in_progress", "error": None, "incomplete_details": None, "instructions": None,
            "metadata": {}, "parallel_tool_calls": True, "temperature": 1, "tool_choice": "auto", "tools": [],
            "top_p": 1, "usage": None,
        }  # fmt: skip
        yield _event("response.created", response=whole)
        at = {"item_id": f"item-{number}", "output_index": 0}
        for text in told["chunks"]:
            yield _event("response.output_text.delta", **at, content_index=0, delta=text, logprobs=[])
        for index, call in enumerate(told.get("tool_calls", []), 1):
            item = {
                "type": "function_call",
                "id": f"fc-{number}-{index}",
                "call_id": f"call-{number}-{index}",
            }
            of = {"item_id": item["id"], "output_index": index}
            item |= {"name": call["name"], "arguments": "", "status": "in_progress"}
            yield _event("response.output_item.added", output_index=index, item=item)
            for piece in call["pieces"]:
                yield _event("response.function_call_arguments.delta", **of, delta=piece)
        if told.get("unended"):
            return
        if "error" in told:
            failed = whole | {"status": "failed", "error": told["error"]}
            yield _event("response.failed", response=failed)
            return
        usage = {
            "input_tokens": 7, "output_tokens": 2, "total_tokens": 9,
            "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
        }  # fmt: skip
        reason = told.get("finish")
        status = "incomplete" if reason else "completed"
        ended = whole | {
            "status": status,
            "usage": usage,
            "incomplete_details": reason and {"reason": reason},
        }
        yield _event(f"response.{status}", response=ended)

    async def _embed(self, request: Request) -> Response:
        """Return an embedding of a text: counts of the hashes of its words. Texts that share words have near
        vectors."""
        body = await request.json()
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        self.embedded += texts
        data = [
            {"object": "embedding", "index": index, "embedding": _vector(text)}
            for index, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return JSONResponse(
            {"object": "list", "data": data, "model": body["model"], "usage": usage}, headers=CLOSE
        )


def _asked(body: Any) -> Any:
    """Return the conversation of a request of either API."""
    return body["messages"] if "messages" in body else body["input"]


def _event(kind: str, **fields: Any) -> bytes:
    data = json.dumps({"type": kind, "sequence_number": 0, **fields})
    return f"event: {kind}\ndata: {data}\n\n".encode()


def _vector(text: Any) -> list[float]:
    vector = [0.01] * DIMENSIONS
    for word in re.findall(r"[a-z0-9]+", str(text).lower()):
        vector[crc32(word.encode()) % DIMENSIONS] += 1.0
    return vector


def _calls(calls: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """Return the deltas of tool calls: the name first, then the arguments in pieces."""
    deltas: list[dict[str, Any]] = []
    for index, call in enumerate(calls):
        first = {"name": call["name"], "arguments": ""}
        known: dict[str, Any] = {"id": f"call-{number}-{index}", "type": "function", "function": first}
        pieces = [{"function": {"arguments": piece}} for piece in call["pieces"]]
        deltas += [{"index": index, **delta} for delta in (known, *pieces)]
    return deltas


def _chunk(
    delta: dict[str, Any] | None, *, finish: str | None = None, usage: dict[str, int] | None = None
) -> bytes:
    whole: dict[str, Any] = {
        "id": "chatcmpl-scripted",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "scripted",
        "choices": [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    if usage is not None:
        whole["usage"] = usage | {"total_tokens": sum(usage.values())}
    return b"data: " + json.dumps(whole).encode() + b"\n\n"
