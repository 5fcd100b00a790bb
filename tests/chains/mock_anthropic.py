"""The scripted model as Anthropic's messages."""

from __future__ import annotations

import asyncio
import json

from starlette.responses import JSONResponse, StreamingResponse

from tests.chains.mock import choose, named, text, usage_of, words


async def anthropic(request):
    asked = await request.json()
    msgs = []
    if asked.get("system"):
        msgs.append({"role": "system", "content": asked["system"]})
    for m in asked["messages"]:
        blocks = m["content"] if isinstance(m["content"], list) else [{"type": "text", "text": m["content"]}]
        results = [b for b in blocks if b["type"] == "tool_result"]
        msgs += [{"role": "tool", "content": text(b.get("content"))} for b in results]
        if not results:
            calls = [{"function": {"name": b["name"]}} for b in blocks if b["type"] == "tool_use"]
            said = [b for b in blocks if b["type"] == "text"]
            msgs.append({"role": m["role"], "content": said, "tool_calls": calls})
    tools = [t["name"] for t in asked.get("tools") or []]
    step = choose(msgs, tools, asked, request.path_params["run"])
    if step.status:
        return JSONResponse({"type": "error", "error": {"type": "api_error", "message": "stub"}}, step.status)
    n_in, n_out = usage_of(msgs, step)
    blocks = []
    if step.reason:
        blocks.append({"type": "thinking", "thinking": step.reason, "signature": "sig"})
    if step.say:
        blocks.append({"type": "text", "text": step.say})
    for i, (n, a) in enumerate(step.calls):
        blocks.append({"type": "tool_use", "id": "toolu_" + named(n, a, i, msgs), "name": n, "input": a})
    stop = {"length": "max_tokens", "refusal": "refusal"}.get(step.finish) or (
        "tool_use" if step.calls else "end_turn"
    )
    head = {
        "id": "msg_" + named(msgs), "type": "message", "role": "assistant", "model": asked["model"],
        "stop_reason": None, "stop_sequence": None,
    }  # fmt: skip
    if not asked.get("stream"):
        usage = {"input_tokens": n_in, "output_tokens": n_out}
        return JSONResponse({**head, "content": blocks, "stop_reason": stop, "usage": usage})

    async def gen():
        def ev(kind, **more):
            return f"event: {kind}\ndata: " + json.dumps({"type": kind, **more}) + "\n\n"

        yield ev(
            "message_start",
            message={**head, "content": [], "usage": {"input_tokens": n_in, "output_tokens": 1}},
        )
        for i, b in enumerate(blocks):
            if b["type"] == "thinking":
                yield ev(
                    "content_block_start",
                    index=i,
                    content_block={"type": "thinking", "thinking": "", "signature": ""},
                )
                for w in words(b["thinking"]):
                    yield ev("content_block_delta", index=i, delta={"type": "thinking_delta", "thinking": w})
                yield ev(
                    "content_block_delta", index=i, delta={"type": "signature_delta", "signature": "sig"}
                )
            elif b["type"] == "text":
                yield ev("content_block_start", index=i, content_block={"type": "text", "text": ""})
                for w in words(b["text"]):
                    yield ev("content_block_delta", index=i, delta={"type": "text_delta", "text": w})
                    await asyncio.sleep(step.pace)
            else:
                yield ev("content_block_start", index=i, content_block={**b, "input": {}})
                s = json.dumps(b["input"])
                for j in range(0, len(s), 7):
                    yield ev(
                        "content_block_delta",
                        index=i,
                        delta={"type": "input_json_delta", "partial_json": s[j : j + 7]},
                    )
            yield ev("content_block_stop", index=i)
        usage = {"input_tokens": n_in, "output_tokens": n_out}
        yield ev("message_delta", delta={"stop_reason": stop, "stop_sequence": None}, usage=usage)
        yield ev("message_stop")

    return StreamingResponse(gen(), media_type="text/event-stream")
