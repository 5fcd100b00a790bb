"""Read the content of a message: its text, its reasoning, its refusal and its citations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def text_of(chunk: Any) -> str:
    """Return the text of a chunk: a string, or the text of a message with its content blocks.

    Raises TypeError for anything else: an object with a field `content` need not be a message.
    """
    from langchain_core.messages import BaseMessage

    if isinstance(chunk, str):
        return str(chunk)
    if isinstance(chunk, BaseMessage):
        return text_in(chunk.content)
    raise TypeError(f"a chain must stream text or messages, not {type(chunk).__name__}")


def text_in(content: str | list[Any]) -> str:
    """Return the text of a message's content, as LangChain's own `message.text` does."""
    if isinstance(content, str):
        return content
    return "".join(part if isinstance(part, str) else _text_block(part) for part in content)


def _text_block(part: Any) -> str:
    text = part.get("text") if part.get("type") == "text" else None
    return text if isinstance(text, str) else ""


def reasoning_of(message: Any) -> str:
    """Return a model's reasoning, from the content blocks or (some servers) from `additional_kwargs`."""
    if isinstance(message.content, str):
        beside = getattr(message, "additional_kwargs", None)
        return str(beside.get("reasoning_content") or "") if beside else ""
    return "".join(_reasoning(part) for part in message.content if isinstance(part, dict))


def _reasoning(part: Mapping[str, Any]) -> str:
    if part.get("type") == "thinking":
        return str(part.get("thinking") or "")
    if part.get("type") != "reasoning":
        return ""
    summary = part.get("summary") or []
    return str(part.get("reasoning") or "") + "".join(str(item.get("text") or "") for item in summary)


def refusal_in(message: Any) -> str:
    """Return a model's refusal, if its server separates it from the text; otherwise an empty string."""
    if (beside := getattr(message, "additional_kwargs", None)) and beside.get("refusal"):
        return str(beside["refusal"])
    content = getattr(message, "content", None)
    if not content or isinstance(content, str):
        return ""
    return "".join(_refusal(part) for part in content if isinstance(part, dict))


def _refusal(part: Mapping[str, Any]) -> str:
    inner = part.get("value") if part.get("type") == "non_standard" else part
    if not isinstance(inner, Mapping) or inner.get("type") != "refusal":
        return ""
    return str(inner.get("refusal") or "")


def citations_in(message: Any) -> list[Any]:
    """Return what a message's text cites, as the model's server sends it (`annotations`, `citations`)."""
    if isinstance(message.content, str):
        return []
    blocks = [part for part in message.content if isinstance(part, dict) and part.get("type") == "text"]
    return [one for part in blocks for one in part.get("annotations") or part.get("citations") or ()]
