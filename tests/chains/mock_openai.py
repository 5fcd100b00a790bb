"""The scripted model as OpenAI's chat completions (and Azure's) and embeddings."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import struct

from starlette.responses import JSONResponse, StreamingResponse

from tests.chains.mock import Cut, choose, named, usage_of, words


async def chat(request):
    asked = await request.json()
    azure = "/deployments/" in request.url.path
    msgs = asked["messages"]
    tools = [t["function"]["name"] for t in asked.get("tools") or [] if "function" in t]
    step = choose(msgs, tools, asked, request.path_params["run"])
    if step.status:
        return JSONResponse(
            step.body or {"error": {"message": "stub", "type": "server_error", "code": None}}, step.status
        )
    given, said = usage_of(msgs, step)
    usage = {"prompt_tokens": given, "completion_tokens": said, "total_tokens": given + said}
    finish = step.finish or ("tool_calls" if step.calls else "stop")
    base = {
        "id": "chatcmpl-" + named(msgs),
        "created": 1,
        "model": asked.get("model") or "stub",
        "system_fingerprint": "fp",
    }
    ids = ["call_" + named(n, a, i, msgs) for i, (n, a) in enumerate(step.calls)]
    if not asked.get("stream"):
        if step.cut:
            raise Cut
        m = {"role": "assistant", "content": step.say or None, "refusal": step.refusal or None}
        if step.calls:
            m["tool_calls"] = [
                {"id": c, "type": "function", "function": {"name": n, "arguments": json.dumps(a)}}
                for c, (n, a) in zip(ids, step.calls, strict=True)
            ]
        choice = {"index": 0, "message": m, "finish_reason": finish, "logprobs": None}
        return JSONResponse({**base, "object": "chat.completion", "choices": [choice], "usage": usage})

    def ev(delta=None, fin=None, **more):
        choices = (
            [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": fin, "logprobs": None}]
        )
        if azure and choices:
            choices[0]["content_filter_results"] = {"hate": {"filtered": False, "severity": "safe"}}
        return (
            "data: "
            + json.dumps({**base, "object": "chat.completion.chunk", "choices": choices, **more})
            + "\n\n"
        )

    async def gen():
        if azure:
            safe = {"hate": {"filtered": False, "severity": "safe"}}
            yield ev(
                None,
                prompt_filter_results=[{"prompt_index": 0, "content_filter_results": safe}],
                id="",
                model="",
            )
        yield ev({"role": "assistant", "content": "" if not step.calls else None, "refusal": None})
        for w in words(step.reason):
            yield ev({"reasoning_content": w})
        for n, w in enumerate(words(step.say)):
            if step.cut and n == step.cut:
                raise Cut
            yield ev({"content": w})
            await asyncio.sleep(step.pace)
        for w in words(step.refusal):
            yield ev({"refusal": w})
        for i, (n, a) in enumerate(step.calls):
            yield ev(
                {
                    "tool_calls": [
                        {
                            "index": i,
                            "id": ids[i],
                            "type": "function",
                            "function": {"name": n, "arguments": ""},
                        }
                    ]
                }
            )
            s = json.dumps(a)
            for k in range(0, len(s), 7):
                yield ev({"tool_calls": [{"index": i, "function": {"arguments": s[k : k + 7]}}]})
        yield ev({}, finish)
        if (asked.get("stream_options") or {}).get("include_usage"):
            yield ev(None, usage=usage)
        yield "data: [DONE]\n\n"

    return StreamingResponse(gen(), media_type="text/event-stream")


async def embeddings(request):
    asked = await request.json()
    data = []
    for i, t in enumerate(asked["input"] if isinstance(asked["input"], list) else [asked["input"]]):
        v = [0.0] * 16
        for w in re.findall(r"\w+", str(t).lower()):
            v[hashlib.sha1(w.encode()).digest()[0] % 16] += 1.0
        packed = (
            base64.b64encode(struct.pack("<16f", *v)).decode()
            if asked.get("encoding_format") == "base64"
            else v
        )
        data.append({"object": "embedding", "index": i, "embedding": packed})
    usage = {"prompt_tokens": 5, "total_tokens": 5}
    return JSONResponse({"object": "list", "data": data, "model": asked["model"], "usage": usage})
