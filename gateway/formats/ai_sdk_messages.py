"""What Vercel's AI SDK sends, as what a chain is asked: `UIMessage`s as messages of OpenAI's shape. No I/O.

Of an assistant's earlier answer the text that stands is said again; its steps, tools, reasoning and data are
the client's own record of it, and left out. Raises Invalid, which names the client's field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway.body import DEFAULT, Bounds, Start, check_text, parse_start, shown
from gateway.errors import Invalid
from gateway.formats.ai_sdk import OURS
from gateway.images import check_image

TRIGGERS = ("submit-message", "regenerate-message")
ROLES = ("system", "user", "assistant")
_FIELDS = ("id", "messages", "trigger", "messageId", "chain", "params")
# What may stand in a path as it is (RFC 3986, 3.3): a chat's id is asked for by its path.
_CHAT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]{1,128}")


def is_chat(name: str) -> bool:
    """Whether this may be a chat's id."""
    return bool(_CHAT.fullmatch(name)) and name not in (".", "..")


def parse_chat(value: Any, chains: Mapping[str, Any], bounds: Bounds = DEFAULT) -> tuple[str, Start]:
    """The body of `POST /api/chat`: the chat's id, and what is to be run."""
    if not isinstance(value, dict):
        raise Invalid("body", "must be an object")
    for name in value:
        if name not in _FIELDS:
            raise Invalid(shown(name), "is not a field of this request")
    chat = value.get("id")
    if not isinstance(chat, str) or not is_chat(chat):
        raise Invalid("id", "must be 1 to 128 letters, digits or -._~!$&'()*+,;=:@, and not . or ..")
    if value.get("trigger", TRIGGERS[0]) not in TRIGGERS:
        raise Invalid("trigger", f"must be one of {', '.join(TRIGGERS)}")
    if not isinstance(value.get("messageId", ""), str | None):
        raise Invalid("messageId", "must be a string")
    asked = {"messages": _messages(value.get("messages")), "metadata": {"chat": chat}}
    given = {name: value[name] for name in ("chain", "params") if name in value}
    return chat, parse_start(asked | given, chains, bounds)


def standing(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A message's parts without those that a later `data-reset` or `data-replay` makes void."""
    void: set[str] = set()
    kept = []
    for part in reversed(parts):
        data = part.get("data")
        if part["type"] == "data-replay":
            break
        if part["type"] == "data-reset":
            named = data.get("parts") if isinstance(data, dict) else None
            void |= {name for name in named if isinstance(name, str)} if isinstance(named, list) else set()
        elif _name_of(part) not in void:
            kept.append(part)
    return kept[::-1]


def _name_of(part: Any) -> str:
    """What a reset knows a text by."""
    for name in ("providerMetadata", OURS, "part"):
        part = part.get(name) if isinstance(part, dict) else None
    return part if isinstance(part, str) else ""


def _messages(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise Invalid("messages", "must be a list that is not empty")
    asked = [_message(f"messages[{index}]", message) for index, message in enumerate(value)]
    if value[-1]["role"] == "assistant":
        # The client would go on in that very message; a stream is a message of its own.
        raise Invalid(f"messages[{len(value) - 1}].role", "the last message must not be the assistant's")
    return [message for message in asked if message["content"]]


def _message(where: str, message: Any) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise Invalid(where, "must be an object")
    role, parts = message.get("role"), message.get("parts")
    if role not in ROLES:
        raise Invalid(f"{where}.role", f"must be one of {', '.join(ROLES)}")
    if not isinstance(parts, list):
        raise Invalid(f"{where}.parts", "must be a list")
    for index, part in enumerate(parts):
        _check(f"{where}.parts[{index}]", part)
    if role == "assistant":
        return {"role": role, "content": _joined(standing(parts))}
    content = _content(f"{where}.parts", role, parts)
    if not content:
        raise Invalid(f"{where}.parts", "must hold a text")
    return {"role": role, "content": content}


def _check(where: str, part: Any) -> None:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise Invalid(where, "must be an object with a type")
    if part["type"] == "text":
        text = part.get("text")
        if not isinstance(text, str):
            raise Invalid(f"{where}.text", "must be a string")
        check_text(f"{where}.text", text)


def _content(where: str, role: str, parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """A text, or content parts where there are images; an application's own data is left out."""
    content: list[dict[str, Any]] = []
    for index, part in enumerate(parts):
        kind = part["type"]
        if kind == "file" and role == "user":
            content.append(_image(f"{where}[{index}]", part))
        elif kind == "text":
            content.append({"type": "text", "text": part["text"]})
        elif not kind.startswith("data-"):
            raise Invalid(f"{where}[{index}].type", f"is no part that a {role} message may have")
    if any(part["type"] == "image_url" for part in content):
        return [part for part in content if part["type"] == "image_url" or part["text"]]
    return _joined(content)


def _image(where: str, part: dict[str, Any]) -> dict[str, Any]:
    kind, url = part.get("mediaType"), part.get("url")
    if not isinstance(kind, str) or kind.partition("/")[0] != "image":
        raise Invalid(f"{where}.mediaType", "must be an image's: other files are not taken")
    check_text(f"{where}.url", check_image(f"{where}.url", url))
    return {"type": "image_url", "image_url": {"url": url}}


def _joined(parts: list[dict[str, Any]]) -> str:
    return "".join(part["text"] for part in parts if part["type"] == "text")
