"""Read the question from the input, in each form in which a client may send it.

The forms are `user`, `messages`, and a text as the chain's `input`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PART = {"type": "object", "required": ["type"]}
_CALL = {"type": "object", "required": ["id", "type", "function"]}
_MESSAGE = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
        "tool_calls": {"type": "array", "items": _CALL, "minItems": 1},
        "tool_call_id": {"type": "string", "minLength": 1},
        "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": _PART, "minItems": 1}]},
    },
}
ASKED: Mapping[str, Any] = {
    "description": "A question, or a conversation",
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": _MESSAGE, "minItems": 1},
    ],
}


def question(given: Any) -> str:
    """Return the text itself, or the text of the last user message. Raises ValueError when there is none."""
    if isinstance(given, str):
        return given
    if isinstance(given, list):
        for message in reversed(given):
            if isinstance(message, Mapping) and message.get("role") == "user":
                return _text(message["content"])
    raise ValueError("the input holds no question")


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
