"""Converts a state to the agent streaming protocol: messages lose their empty fields. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TYPES = {"assistant": "ai", "user": "human"}
_KNOWN = frozenset({"human", "ai", "system", "tool", "function", "remove"})
_ALWAYS = ("id", "name")
INTERRUPT = "__interrupt__"
_DEEPEST = 200  # levels of nesting; an event may not have so many


def state(value: Any, levels: int = _DEEPEST) -> Any:
    """Return a state, or an update of a state, with all messages in it in the protocol's form."""
    if levels == 0:
        return value
    if isinstance(value, Mapping):
        if _is_message(value):
            return message(value)
        return {name: state(item, levels - 1) for name, item in value.items() if name != INTERRUPT}
    return [state(item, levels - 1) for item in value] if isinstance(value, list) else value


def message(one: Mapping[str, Any]) -> dict[str, Any]:
    """Return one message in the protocol's form."""
    kind = _TYPES.get(one["type"], one["type"])
    told: dict[str, Any] = {"type": kind, "content": one.get("content", "")}
    told |= {name: one[name] for name in _ALWAYS if isinstance(one.get(name), str)}
    if one.get("response_metadata"):
        told["response_metadata"] = one["response_metadata"]
    if kind == "tool":
        told |= {name: one[name] for name in ("tool_call_id", "status", "artifact") if name in one}
    if kind == "ai":
        if calls := one.get("tool_calls"):
            told["tool_calls"] = [call_of(call) for call in calls]
        if isinstance(told["content"], str) and (one.get("response_metadata") or one.get("usage_metadata")):
            told |= _in_blocks(told)
        if invalid := one.get("invalid_tool_calls"):
            told["invalid_tool_calls"] = invalid
        if refusal := (one.get("additional_kwargs") or {}).get("refusal"):
            told["additional_kwargs"] = {"refusal": refusal}
    return told


def _in_blocks(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's text and tool calls as blocks of content, as LangChain does in this protocol."""
    text = told["content"]
    blocks: list[Any] = [{"type": "text", "text": text, "index": 0}] if text else []
    metadata = {**told.get("response_metadata", {}), "output_version": "v1"}
    return {"content": [*blocks, *told.get("tool_calls", ())], "response_metadata": metadata}


def call_of(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool call in the protocol's form, which is also its form as a block of content."""
    told = {"type": "tool_call", "id": call.get("id"), "name": call.get("name")}
    return {**told, "args": call.get("args") or {}}


def _is_message(value: Mapping[str, Any]) -> bool:
    kind = value.get("type")
    return isinstance(kind, str) and "content" in value and _TYPES.get(kind, kind) in _KNOWN
