"""The messages of AG-UI: as a chain is asked them, and as a client is told them again. No I/O.

A conversation is the client's own: each run brings all of it. What a sub-agent has said, reasoning and
activities are the client's record of it, and no chain is asked them. Raises Invalid, which names the client's
field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.protocol.errors import Invalid
from gateway.streams.images import check_image
from gateway.streams.messages import MOST_ID, MOST_NAME, call, check_arguments, check_word, with_answers
from gateway.streams.start import Bounds, check_text

ROLES = ("developer", "system", "assistant", "user", "tool", "reasoning", "activity")
SUBAGENT = "subagentRunId"
FAILED = {"holdfast": {"failed": True}}  # the metadata of a tool's answer that is an error
_SPELLED = {"tool_calls": "toolCalls", "tool_call_id": "toolCallId"}  # as Python's clients may send them
_MEDIA = ("image", "audio", "video", "document")


@dataclass(frozen=True, slots=True)
class Dialogue:
    """`asked`: as a chain takes it. `shown`: as AG-UI has it, with the fields of the protocol alone."""

    asked: list[dict[str, Any]] = field(default_factory=list, repr=False)
    shown: list[dict[str, Any]] = field(default_factory=list, repr=False)


def conversation_of(value: Any, bounds: Bounds) -> Dialogue:
    """The `messages` of a run's input."""
    if not isinstance(value, list):
        raise Invalid("messages", "must be a list")
    if len(value) > bounds.messages:
        raise Invalid("messages", f"must be at most {bounds.messages}")
    found = Dialogue()
    known: set[str] = set()
    for index, message in enumerate(value):
        _take(found, known, f"messages[{index}]", message, bounds)
    return Dialogue(with_answers(found.asked), found.shown)


def _take(found: Dialogue, known: set[str], at: str, message: Any, bounds: Bounds) -> None:
    if not isinstance(message, dict):
        raise Invalid(at, "must be an object")
    message = {_SPELLED.get(field_name, field_name): one for field_name, one in message.items()}
    role, name = message.get("role"), message.get("id")
    if role not in ROLES:
        raise Invalid(f"{at}.role", f"must be one of {', '.join(ROLES)}")
    if name is not None:
        check_word(f"{at}.id", name, MOST_ID)
    if role == "activity":  # the client keeps these by itself
        return
    shown = {"id": name or at, "role": role, **_common(at, message)}
    if role == "assistant":
        calls = _calls(f"{at}.toolCalls", message.get("toolCalls"), bounds)
        content = message.get("content")
        said = "" if content is None else _text(f"{at}.content", content)
        asked = {"role": role, "content": said} | ({"tool_calls": calls} if calls else {})
        shown |= {"content": said} | ({"toolCalls": calls} if calls else {})
    elif role == "tool":
        asked, more = _answer(at, message)
        shown |= more
    else:
        content = _content(f"{at}.content", message.get("content"), role)
        asked, shown["content"] = {"role": role, "content": content[0]}, content[1]
    found.shown.append(shown)
    if role == "reasoning" or SUBAGENT in shown:
        return
    if role == "tool" and asked["tool_call_id"] not in known:
        raise Invalid(f"{at}.toolCallId", "must be the id of a call in a message before it")
    known.update(one["id"] for one in asked.get("tool_calls", ()))
    found.asked.append(asked)


def _common(at: str, message: Mapping[str, Any]) -> dict[str, Any]:
    """What messages of every role may have beside."""
    told: dict[str, Any] = {}
    for name in ("name", "encryptedValue", SUBAGENT):
        value = message.get(name)
        if isinstance(value, str) and (name != "name" or message["role"] not in ("tool", "reasoning")):
            check_text(f"{at}.{name}", value)
            told[name] = value
    if isinstance(message.get("metadata"), dict):
        told["metadata"] = message["metadata"]
    return told


def _calls(at: str, given: Any, bounds: Bounds) -> list[dict[str, Any]]:
    calls = []
    if given is not None and not isinstance(given, list):
        raise Invalid(at, "must be a list")
    for index, one in enumerate(given or ()):
        function = one.get("function") if isinstance(one, dict) else None
        if not isinstance(function, dict):
            raise Invalid(f"{at}[{index}]", "must be a call, with id, type and function")
        arguments = function.get("arguments") or "{}"
        check_word(f"{at}[{index}].id", one.get("id"), MOST_ID)
        check_word(f"{at}[{index}].function.name", function.get("name"), MOST_NAME)
        check_arguments(f"{at}[{index}].function.arguments", arguments, bounds)
        calls.append(call(one["id"], function["name"], arguments))
    return calls


def _answer(at: str, message: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a tool has answered; an `error` is the text where it has no other."""
    call_id, error = message.get("toolCallId"), message.get("error")
    check_word(f"{at}.toolCallId", call_id, MOST_ID)
    content = message.get("content")
    said = _content(f"{at}.content", content if content is not None else error, "tool")
    failed = isinstance(error, str) or _is_failed(message.get("metadata"))
    asked = {"role": "tool", "content": said[0] or (error if failed else ""), "tool_call_id": call_id}
    if isinstance(error, str):
        check_text(f"{at}.error", error)
    shown = {"content": said[1], "toolCallId": call_id} | ({"error": error} if isinstance(error, str) else {})
    return asked | ({"status": "error"} if failed else {}), shown


def _is_failed(metadata: Any) -> bool:
    """Whether this gateway has told it as a failure before."""
    own = metadata.get("holdfast") if isinstance(metadata, dict) else None
    return isinstance(own, dict) and own.get("failed") is True


def _text(at: str, value: Any) -> str:
    if not isinstance(value, str):
        raise Invalid(at, "must be a string")
    check_text(at, value)
    return value


def _content(at: str, value: Any, role: str) -> tuple[Any, Any]:
    """A content, as a chain takes it and as AG-UI has it: a text, or parts of a user's or tool's message."""
    if not isinstance(value, list) or role not in ("user", "tool"):
        text = _text(at, value)
        return text, text
    told = [_part(f"{at}[{index}]", part, role) for index, part in enumerate(value)]
    asked, shown = [one for one, _ in told], [one for _, one in told]
    if all(one["type"] == "text" for one in asked):
        return "".join(one["text"] for one in asked), shown
    return asked, shown


def _part(at: str, part: Any, role: str) -> tuple[dict[str, Any], dict[str, Any]]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        told = {"type": "text", "text": _text(f"{at}.text", part.get("text"))}
        return told, told
    if kind not in _MEDIA:
        raise Invalid(f"{at}.type", f"must be text or one of {', '.join(_MEDIA)}")
    if kind != "image" or role != "user":
        raise Invalid(f"{at}.type", "is not taken here: text, and images of the user's, are")
    source = part.get("source")
    if not isinstance(source, dict) or not isinstance(source.get("value"), str):
        raise Invalid(f"{at}.source", "must be an object with type and value")
    kinds = {name: source[name] for name in ("type", "value", "mimeType") if name in source}
    url = source["value"]
    if source.get("type") == "data":
        check_word(f"{at}.source.mimeType", source.get("mimeType"), MOST_NAME)
        url = f"data:{source['mimeType']};base64,{url}"
    elif source.get("type") != "url":
        raise Invalid(f"{at}.source.type", "must be url or data")
    check_text(f"{at}.source.value", check_image(f"{at}.source.value", url))
    return {"type": "image_url", "image_url": {"url": url}}, {"type": kind, "source": kinds}
