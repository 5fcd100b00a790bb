"""Reads a web page's answers to the approvals that the chat's last message asks for. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.formats.ai_sdk.projection import AnsweredCall
from gateway.formats.ai_sdk.standing import standing
from gateway.formats.base.approvals import Decision
from gateway.protocol.errors import Invalid
from gateway.streams.messages import MOST_ID, MOST_NAME, check_word
from gateway.streams.strict_json import check_text

_RESPONDED = "approval-responded"


@dataclass(frozen=True, slots=True)
class Answers:
    """All answers in a message: the decisions, and the tool calls that they decide."""

    decisions: list[Decision]
    settled: list[AnsweredCall]


def answers_in(messages: Any) -> Answers | None:
    """Return the answers in the last message, or None. Earlier messages are not read. Raises Invalid."""
    if not isinstance(messages, list) or not messages or not isinstance(messages[-1], Mapping):
        return None
    last, where = messages[-1], f"messages[{len(messages) - 1}].parts"
    parts = last.get("parts")
    if last.get("role") != "assistant" or not isinstance(parts, list):
        return None
    if not all(isinstance(part, dict) and isinstance(part.get("type"), str) for part in parts):
        return None  # the parser of the conversation refuses these parts
    places = {id(part): f"{where}[{index}]" for index, part in enumerate(parts)}
    found = Answers([], [])
    for part in standing(parts):
        if part.get("state") == _RESPONDED:
            _take(found, places[id(part)], part)
    return found if found.decisions else None


def _take(found: Answers, at: str, part: Mapping[str, Any]) -> None:
    approval = part.get("approval")
    if not isinstance(approval, dict):
        raise Invalid(f"{at}.approval", "must be an object")
    name, is_approved, reason = (approval.get(one) for one in ("id", "approved", "reason"))
    if not isinstance(name, str):
        raise Invalid(f"{at}.approval.id", "must be a string")
    if not isinstance(is_approved, bool):
        raise Invalid(f"{at}.approval.approved", "must be true or false")
    if not isinstance(reason, str | None):
        raise Invalid(f"{at}.approval.reason", "must be a string")
    check_text(f"{at}.approval.reason", reason or "")
    call_id = part.get("toolCallId")
    tool = part.get("toolName", part["type"].removeprefix("tool-"))
    check_word(f"{at}.toolCallId", call_id, MOST_ID)
    check_word(f"{at}.toolName", tool, MOST_NAME)
    found.decisions.append(Decision(f"{at}.approval", name, is_approved, reason or ""))
    found.settled.append(AnsweredCall(str(call_id), str(tool), is_approved, part.get("input")))
