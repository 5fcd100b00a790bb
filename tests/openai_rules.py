"""Requests that OpenAI's endpoints refuse. Each body breaks one rule; the expected answer names the wrong
field."""

from __future__ import annotations

from typing import Any

from gateway.streams.start import DEFAULT

HI = {"role": "user", "content": "hi"}
SURROGATE = "half \ud800"
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
FUNCTION_CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
CALLING = {"role": "assistant", "content": None}
CHAT_RULES: list[tuple[dict[str, Any], str]] = [
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": [HI, "x"]}, "messages"),
    ({"messages": [HI] * (DEFAULT.messages + 1)}, "messages"),
    ({"messages": [HI, {"content": "x"}]}, "messages[1].role"),
    ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "c"}]}, "messages[0].tool_call_id"),
    ({"messages": [{"role": "function", "content": "x", "name": "f"}]}, "messages[0].role"),
    ({"messages": [{**HI, "tool_calls": [CALL]}]}, "messages[0].tool_calls"),
    ({"messages": [{"role": "assistant", "content": "", "tool_calls": {"a": 1}}]}, "messages[0].tool_calls"),
    (
        {"messages": [{**CALLING, "tool_calls": [{**CALL, "type": "custom"}]}]},
        "messages[0].tool_calls",
    ),
    (
        {"messages": [{**CALLING, "tool_calls": [{**CALL, "id": None}]}]},
        "messages[0].tool_calls[0].id",
    ),
    ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": SURROGATE}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"type": 1}]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "u"}]}]},
        "messages[0].content[0].image_url",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": 1}}]}]},
        "messages[0].content[0].image_url.url",
    ),
    (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "https://u", "detail": 1}}],
                }
            ]
        },
        "messages[0].content[0].image_url.detail",
    ),
    ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}, "messages[0].tool_calls"),
    ({"model": None}, "model"),
    ({"model": ["chat"]}, "model"),
    ({"n": 2}, "n"),
    ({"n": True}, "n"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": ["none"]}, "tool_choice"),
    ({"functions": [{}]}, "functions"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"response_format": "text"}, "response_format"),
    ({"logprobs": True}, "logprobs"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"web_search_options": {}}, "web_search_options"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": 3}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"stop": [1]}, "stop"),
    ({"stop": ["a"] * 5}, "stop"),
    ({"logit_bias": {"1": "x"}}, "logit_bias"),
    ({"user": 1}, "user"),
    ({"metadata": []}, "metadata"),
    ({"metadata": {"a": 1}}, "metadata"),
    ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
    ({"metadata": {"a": "x" * 5000}}, "metadata"),
    ({"stream": "true"}, "stream"),
    ({"stream_options": []}, "stream_options"),
    ({"stream_options": {"include_usage": 1}}, "include_usage"),
    ({"temperatur": 1}, "temperatur"),
    ({"\r\n\0": 1}, "???"),
    ({"y" * 1000: 1}, "y" * 64),
]
RESPONSES_RULES: list[tuple[dict[str, Any], str]] = [
    ({"input": None}, "input"),
    ({"input": ""}, "input"),
    ({"input": []}, "input"),
    ({"input": {}}, "input"),
    ({"input": SURROGATE}, "input"),
    ({"input": [{"type": "reasoning"}]}, "input"),
    ({"input": [HI, 1]}, "input[1]"),
    ({"input": [HI] * (DEFAULT.messages + 1)}, "input"),
    ({"input": [HI, {"type": "function_call_output", "output": "x"}]}, "input[1].call_id"),
    ({"input": [HI, {"type": "function_call_output", "output": "x", "call_id": "c"}]}, "input[1].call_id"),
    ({"input": [HI, FUNCTION_CALL, {"type": "function_call_output", "call_id": "c"}]}, "input[2].output"),
    ({"input": [HI, FUNCTION_CALL | {"name": ""}]}, "input[1].name"),
    ({"input": [HI, FUNCTION_CALL | {"arguments": "["}]}, "input[1].arguments"),
    ({"input": [HI, {"type": "computer_call_output", "output": {}}]}, "input[1].type"),
    ({"input": [{"type": ["message"], **HI}]}, "input[0].type"),
    ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0].type"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        "input[0].content[0].image_url",
    ),
    ({"input": [{"role": "root", "content": "x"}]}, "input[0].role"),
    ({"instructions": ["x"]}, "instructions"),
    ({"instructions": SURROGATE}, "instructions"),
    ({"previous_response_id": 1}, "previous_response_id"),
    ({"background": "yes"}, "background"),
    ({"store": "yes"}, "store"),
    ({"stream_options": 1}, "stream_options"),
    ({"text": {"format": {"type": "json_schema"}}}, "text"),
    ({"text": "x"}, "text"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"prompt": {"id": "p"}}, "prompt"),
    ({"reasoning": "low"}, "reasoning"),
    ({"messages": [HI]}, "messages"),
]
