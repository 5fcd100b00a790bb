"""The scripted model as OpenAI's Responses."""

from __future__ import annotations

import asyncio
import json

from starlette.responses import JSONResponse, StreamingResponse

from tests.chains.mock import choose, named, usage_of, words


async def responses(request):
    asked = await request.json()
    given = asked["input"]
    given = [{"role": "user", "content": given}] if isinstance(given, str) else given
    msgs = []
    for m in given:
        if m.get("type") in (None, "message"):
            msgs.append({"role": m["role"], "content": m["content"]})
        elif m.get("type") == "function_call":
            msgs.append(
                {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": m["name"]}}]}
            )
        elif m.get("type") == "function_call_output":
            msgs.append({"role": "tool", "content": m["output"]})
    if asked.get("instructions"):
        msgs.insert(0, {"role": "system", "content": asked["instructions"]})
    tools = [t.get("name") or t["type"] for t in asked.get("tools") or []]
    step = choose(msgs, tools, asked, request.path_params["run"])
    n_in, n_out = usage_of(msgs, step)
    if step.status:
        return JSONResponse(step.body or {"error": {"message": "stub"}}, step.status)
    me = named(msgs)
    out = []
    if step.reason:
        out.append(
            {
                "type": "reasoning",
                "id": "rs_" + me,
                "summary": [{"type": "summary_text", "text": step.reason}],
            }
        )
    for i, (n, a) in enumerate(step.calls):
        call = {
            "id": f"fc_{me}{i}",
            "call_id": "call_" + named(n, a, i, msgs),
            "name": n,
            "arguments": json.dumps(a),
        }
        out.append({"type": "function_call", "status": "completed", **call})
    message = {"type": "message", "id": "msg_" + me, "role": "assistant", "status": "completed"}
    if step.say:
        out.append({**message, "content": [{"type": "output_text", "text": step.say, "annotations": []}]})
    if step.refusal:
        out.append({**message, "content": [{"type": "refusal", "refusal": step.refusal}]})
    usage = {
        "input_tokens": n_in, "output_tokens": n_out, "total_tokens": n_in + n_out,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": len(words(step.reason))},
    }  # fmt: skip
    short = step.finish == "length"
    whole = {
        "id": "resp_" + me, "object": "response", "created_at": 1, "model": asked.get("model"), "output": out,
        "usage": usage,
        "status": "incomplete" if short else "completed", "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if short else None, "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True, "temperature": 1, "tool_choice": "auto", "tools": [], "top_p": 1,
    }  # fmt: skip
    if not asked.get("stream"):
        return JSONResponse(whole)

    async def gen():
        n = 0

        def ev(kind, **more):
            nonlocal n
            n += 1
            return (
                f"event: {kind}\ndata: "
                + json.dumps({"type": kind, "sequence_number": n - 1, **more})
                + "\n\n"
            )

        begun = {**whole, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
        yield ev("response.created", response=begun)
        yield ev("response.in_progress", response=begun)
        for i, item in enumerate(out):
            at = {"item_id": item["id"], "output_index": i}
            if item["type"] == "reasoning":
                part, where = item["summary"][0], {**at, "summary_index": 0}
                yield ev("response.output_item.added", output_index=i, item={**item, "summary": []})
                yield ev(
                    "response.reasoning_summary_part.added",
                    **where,
                    part={"type": "summary_text", "text": ""},
                )
                for w in words(step.reason):
                    yield ev("response.reasoning_summary_text.delta", **where, delta=w)
                yield ev("response.reasoning_summary_text.done", **where, text=step.reason)
                yield ev("response.reasoning_summary_part.done", **where, part=part)
            elif item["type"] == "function_call":
                yield ev(
                    "response.output_item.added",
                    output_index=i,
                    item={**item, "arguments": "", "status": "in_progress"},
                )
                s = item["arguments"]
                for j in range(0, len(s), 7):
                    yield ev("response.function_call_arguments.delta", **at, delta=s[j : j + 7])
                yield ev("response.function_call_arguments.done", **at, arguments=s, name=item["name"])
            else:
                part, where = item["content"][0], {**at, "content_index": 0}
                key = "text" if part["type"] == "output_text" else "refusal"
                kind, logs = ("output_text", {"logprobs": []}) if key == "text" else ("refusal", {})
                yield ev(
                    "response.output_item.added",
                    output_index=i,
                    item={**item, "content": [], "status": "in_progress"},
                )
                yield ev("response.content_part.added", **where, part={**part, key: ""})
                for w in words(part[key]):
                    yield ev(f"response.{kind}.delta", **where, delta=w, **logs)
                    await asyncio.sleep(step.pace)
                yield ev(f"response.{kind}.done", **where, **{key: part[key]}, **logs)
                yield ev("response.content_part.done", **where, part=part)
            yield ev("response.output_item.done", output_index=i, item=item)
        yield ev("response.incomplete" if short else "response.completed", response=whole)

    return StreamingResponse(gen(), media_type="text/event-stream")
