"""A tool call of which nobody knows whether it has done its work: made again, refused, or asked about.

Its worker died while it was under way: it stands `started` in the log, without an end. What is done then is
the tool's own word, in its metadata: `{"unknown": "retry"}` (the default), `"fail"`, or `"ask"`, by
LangGraph's own `interrupt()`. Where nobody can be asked, as there is no graph with a checkpointer, `ask` is
`fail`.
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
    """What is done about a call of this tool, in a run of this configuration."""
    said = (tool.metadata or {}).get("unknown")
    if said == ASK and not (configurable.get(_SCRATCHPAD) and configurable.get(_CHECKPOINTER)):
        return FAIL
    return said if said in (ASK, FAIL) else RETRY


def settle(call: Call) -> Any:
    """What somebody has said that the tool's answer is; NOTHING where the call is to be made.

    Raises ToolUnknown, or LangGraph's GraphInterrupt, which asks.
    """
    rounds = _asked(call) + call.is_unknown
    if not rounds or call.policy == RETRY:
        return NOTHING
    if call.policy == FAIL:
        raise call.refused()
    from langgraph.types import interrupt

    for number in range(1, rounds + 1):  # LangGraph gives earlier answers back, in their order
        answer = interrupt(_question(call, number), response_schema=SCHEMA)
        if isinstance(answer, Mapping) and "output" in answer:
            has_artifact = call.tool.response_format == "content_and_artifact"
            return (answer["output"], None) if has_artifact else answer["output"]
        if answer != RETRY:
            raise call.refused()
    return NOTHING


def _asked(call: Call) -> int:
    """How often an earlier stream has asked about this very call; this one answers."""
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
