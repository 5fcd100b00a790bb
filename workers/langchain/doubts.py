"""Handle a tool call that may or may not have done its work: repeat it, refuse it, or ask about it.

The worker of such a call died during the call. The log has its `started` event, but no end. The tool's
metadata decides what is done: `{"unknown": "retry"}` (the default), `"fail"`, or `"ask"`. `ask` uses
LangGraph's own `interrupt()`. Without a graph with a checkpointer no one can be asked, and `ask` is the same
as `fail`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.streams.doubt import REASON, RETRY
from workers.langchain.replays import NOTHING

if TYPE_CHECKING:
    from workers.langchain.keys import Call

ASK, FAIL = "ask", "fail"
_SCRATCHPAD, _CHECKPOINTER = "__pregel_scratchpad", "__pregel_checkpointer"  # LangGraph's names
_OUTPUT = {
    "type": "object",
    "properties": {"output": {}},
    "required": ["output"],
    "additionalProperties": False,
}
SCHEMA = {"anyOf": [{"const": RETRY}, _OUTPUT]}


class ToolUnknown(Exception):
    """A tool may have done its work, and may not be called again."""

    is_retryable = False


def policy_of(tool: Any, configurable: Mapping[str, Any]) -> str:
    """Return what to do about such a call of this tool, in a run with this configuration."""
    said = (tool.metadata or {}).get("unknown")
    if said == ASK and not (configurable.get(_SCRATCHPAD) and configurable.get(_CHECKPOINTER)):
        return FAIL
    return said if said in (ASK, FAIL) else RETRY


def settle(call: Call) -> Any:
    """Return the tool's answer, if a caller has given it. Return NOTHING if the tool must be called.

    Raises ToolUnknown. Raises LangGraph's GraphInterrupt to ask the caller.
    """
    rounds = _asked(call) + call.is_unknown
    if not rounds or call.policy == RETRY:
        return NOTHING
    if call.policy == FAIL:
        raise call.refused()
    from langgraph.types import interrupt

    for number in range(1, rounds + 1):  # LangGraph returns earlier answers in their order
        answer = interrupt(_question(call, number), response_schema=SCHEMA)
        if isinstance(answer, Mapping) and "output" in answer:
            has_artifact = call.tool.response_format == "content_and_artifact"
            return (answer["output"], None) if has_artifact else answer["output"]
        if answer != RETRY:
            raise call.refused()
    return NOTHING


def _asked(call: Call) -> int:
    """Return how often earlier streams have asked about this same call.

    This stream has the caller's answer.
    """
    if not call.doubted:
        return 0
    scratchpad = call.own.get(_SCRATCHPAD)
    if scratchpad is None or not scratchpad.resume:
        return 0
    same = (one for one in call.doubted if (one["tool"], one["input"]) == (call.name, call.input))
    return max((one.get("times", 1) for one in same), default=0)


def _question(call: Call, number: int) -> dict[str, Any]:
    question = {"reason": REASON, "tool": call.name, "call_id": call.call_id, "input": call.input}
    return question | ({"times": number} if number > 1 else {})
