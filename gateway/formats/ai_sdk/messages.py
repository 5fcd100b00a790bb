"""Converts a request of Vercel's AI SDK to a chain's input. No I/O.

Each `UIMessage` becomes messages of OpenAI's form. From an assistant's earlier answer the chain gets the text
that is not void, and the calls of tools that the client has run, with their answers. The answer's steps,
reasoning, data, and the tools that the chain has run are left out: they are only for the client. Raises
Invalid, which names the client's field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway.formats.ai_sdk.approvals import Answers, answers_in
from gateway.formats.ai_sdk.standing import standing
from gateway.protocol import sse
from gateway.protocol.errors import Invalid
from gateway.streams.images import check_image
from gateway.streams.messages import MOST_ID, MOST_NAME, call, check_arguments, check_word
from gateway.streams.start import DEFAULT, DEFAULT_CHAIN, Bounds, Start, check_text, parse_start, shown

APPROVALS = "approvals"  # in a stream's metadata: the client understands requests for approval
TRIGGERS = ("submit-message", "regenerate-message")
ROLES = ("system", "user", "assistant")
_ANSWERED = {"output-available": "output", "output-error": "errorText"}  # state: the field with the answer
_FIELDS = ("id", "messages", "trigger", "messageId", "chain", "params", "approvals")
# Fields that other transports of the same client add to each request. This gateway does not use them.
_UNSERVED = ("tools", "metadata", "system", "config", "callSettings")
_EMPTY: tuple[Any, ...] = (None, {}, [], "")
# A chat's id is part of a path. These characters need no escape in a path (RFC 3986, 3.3).
_CHAT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]{1,128}")


def is_chat(name: str) -> bool:
    """Return whether this text is allowed as a chat's id."""
    return bool(_CHAT.fullmatch(name)) and name not in (".", "..")


def parse_chat(
    value: Any, chains: Mapping[str, Any], bounds: Bounds = DEFAULT, default: str = DEFAULT_CHAIN
) -> tuple[str, Start | Answers]:
    """Parse the body of `POST /api/chat`.

    Return the chat's id (empty if the body has none), and the stream to start or the answers to approvals.
    Raises Invalid.
    """
    if not isinstance(value, dict):
        raise Invalid("body", "must be an object")
    for name in value:
        if name not in (*_FIELDS, *_UNSERVED):
            raise Invalid(shown(name), "is not a field of this request")
        if name in _UNSERVED and value[name] not in _EMPTY:
            raise Invalid(name, "must be empty: this gateway's chains have their own")
    chat = value.get("id", "")
    if not isinstance(chat, str) or not (is_chat(chat) or "id" not in value):
        raise Invalid("id", "must be 1 to 128 letters, digits or -._~!$&'()*+,;=:@, and not . or ..")
    if value.get("trigger", TRIGGERS[0]) not in TRIGGERS:
        raise Invalid("trigger", f"must be one of {', '.join(TRIGGERS)}")
    if not isinstance(value.get("messageId", ""), str | None):
        raise Invalid("messageId", "must be a string")
    approvals = value.get("approvals", False)
    if not isinstance(approvals, bool):
        raise Invalid("approvals", "must be true or false")
    if (answers := answers_in(value.get("messages"))) is not None:
        return chat, answers
    metadata = {**({"chat": chat} if chat else {}), **({APPROVALS: True} if approvals else {})}
    asked: dict[str, Any] = {"messages": _messages(value.get("messages"), bounds)}
    asked |= {"metadata": metadata} if metadata else {}
    given = {name: value[name] for name in ("chain", "params") if name in value}
    return chat, parse_start(asked | given, chains, bounds, default)


def _messages(value: Any, bounds: Bounds) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise Invalid("messages", "must be a list that is not empty")
    asked = [
        told
        for index, message in enumerate(value)
        for told in _message(f"messages[{index}]", message, bounds)
    ]
    if value[-1]["role"] == "assistant" and (not asked or asked[-1]["role"] != "tool"):
        rule = "the last message must not be the assistant's, unless it ends in answers of the client's tools"
        raise Invalid(f"messages[{len(value) - 1}].role", rule)
    return asked


def _message(where: str, message: Any, bounds: Bounds) -> list[dict[str, Any]]:
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
        return _answer(f"{where}.parts", parts, bounds)
    content = _content(f"{where}.parts", role, parts)
    if not content:
        raise Invalid(f"{where}.parts", "must hold a text")
    return [{"role": role, "content": content}]


def _answer(where: str, parts: list[dict[str, Any]], bounds: Bounds) -> list[dict[str, Any]]:
    """Convert an earlier answer to one message, or to several if the client ran tools between its texts."""
    told: list[dict[str, Any]] = []
    text, calls, answers = "", [], []  # of this step and the steps before it without calls
    places = {id(part): f"{where}[{index}]" for index, part in enumerate(parts)}
    for part in [*standing(parts), {"type": "step-start"}]:
        if part["type"] == "text":
            text += part["text"]
        elif _is_clients(part):
            made, answer = _ran(places[id(part)], part, bounds)
            calls.append(made)
            answers.append(answer)
        elif part["type"] == "step-start" and calls:
            told += [{"role": "assistant", "content": text, "tool_calls": calls}, *answers]
            text, calls, answers = "", [], []
    return [*told, {"role": "assistant", "content": text}] if text else told


def _is_clients(part: dict[str, Any]) -> bool:
    """Return whether this part is a tool call that the client has run, with its answer."""
    is_tool = part["type"] == "dynamic-tool" or part["type"].startswith("tool-")
    return is_tool and part.get("state") in _ANSWERED and part.get("providerExecuted") is not True


def _ran(where: str, part: dict[str, Any], bounds: Bounds) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a tool call that the client has run, and its answer, as a model's call and a tool's message."""
    call_id, given = part.get("toolCallId"), part.get("input")
    is_dynamic = part["type"] == "dynamic-tool"
    name = part.get("toolName") if is_dynamic else part["type"].removeprefix("tool-")
    check_word(f"{where}.toolCallId", call_id, MOST_ID)
    check_word(f"{where}.{'toolName' if is_dynamic else 'type'}", name, MOST_NAME)
    if not isinstance(given, dict):
        raise Invalid(f"{where}.input", "must be an object")
    arguments = sse.dumps(given).decode()
    check_arguments(f"{where}.input", arguments, bounds)
    field = _ANSWERED[part["state"]]
    output = part.get(field)
    content = output if isinstance(output, str) else sse.dumps(output).decode()
    check_text(f"{where}.{field}", content)
    answer = {"role": "tool", "content": content, "tool_call_id": call_id}
    return call(str(call_id), str(name), arguments), answer | (
        {"status": "error"} if field == "errorText" else {}
    )


def _check(where: str, part: Any) -> None:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise Invalid(where, "must be an object with a type")
    if part["type"] == "text":
        text = part.get("text")
        if not isinstance(text, str):
            raise Invalid(f"{where}.text", "must be a string")
        check_text(f"{where}.text", text)


def _content(where: str, role: str, parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Return a message's content: a text, or content parts if there are images.

    Parts with data of the application (`data-...`) are left out.
    """
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
