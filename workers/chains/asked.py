"""What was asked, whichever way a client has put it: `user`, `messages`, or a text as the chain's `input`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def question(given: Any) -> str:
    """The text itself, or the last user message's. Raises ValueError where there is none."""
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
