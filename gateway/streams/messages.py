"""A conversation as clients send it: messages of OpenAI's form, with tool calls and their answers. No I/O.

In an earlier message the model has called tools that the client runs. This message has `tool_calls`, and each
answer is a message of the role `tool`. The chain receives them in LangChain's form, as
`AIMessage(tool_calls=…)` and `ToolMessage`.

Every rule is checked here, for every format. Raises Invalid, which names the field and the rule.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gateway.protocol.errors import HoldfastError, Invalid
from gateway.streams.images import check_parts
from gateway.streams.strict_json import DEFAULT, Bounds, check_text, parse_json

ROLES = ("system", "developer", "user", "assistant", "tool")
# Limits in characters: of a call's id, and of a tool's name.
MOST_ID, MOST_NAME = 256, 200
STATUSES = ("success", "error")  # of a tool's answer, as in LangChain's ToolMessage
_FIELDS = frozenset(("role", "content"))
_MORE = {"assistant": frozenset(("tool_calls",)), "tool": frozenset(("tool_call_id", "name", "status"))}
ARGUMENTS = "must be the JSON text of an object"
UNASKED = "must be the id of a call in a message before it"


def conversation(where: str, given: Sequence[Any], bounds: Bounds = DEFAULT) -> list[dict[str, Any]]:
    """Check these messages one by one, and return them in their order.

    `where` is the name of the field that has the messages. If a message has calls and no content, its content
    becomes the empty text.
    """
    known: set[str] = set()
    messages = []
    for index, message in enumerate(given):
        at = f"{where}[{index}]"
        checked = _message(at, message, bounds)
        known.update(one["id"] for one in checked.get("tool_calls", ()))
        if checked["role"] == "tool" and checked["tool_call_id"] not in known:
            raise Invalid(f"{at}.tool_call_id", UNASKED)
        messages.append(checked)
    return messages


def call(call_id: Any, name: Any, arguments: Any) -> dict[str, Any]:
    """Return a call in the form of a message's `tool_calls`, unchecked.

    `arguments` is the JSON text of an object.
    """
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def with_answers(
    messages: Iterable[Mapping[str, Any]], later: Iterable[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Return stored messages without tool calls that have no answer in these or in `later` messages.

    No model accepts a call without an answer. A message that becomes empty is dropped.
    """
    messages = list(messages)
    ids = {one["tool_call_id"] for one in (*messages, *later) if one["role"] == "tool"}
    kept = []
    for message in map(dict, messages):
        calls = [one for one in message.pop("tool_calls", ()) if one["id"] in ids]
        if calls:
            message["tool_calls"] = calls
        if calls or message["content"] or message["role"] != "assistant":
            kept.append(message)
    return kept


def _message(at: str, given: Any, bounds: Bounds) -> dict[str, Any]:
    message: dict[str, Any] = given
    if not isinstance(message, dict) or "role" not in message:
        raise Invalid(at, "must be an object with role and content, and nothing else")
    role = message["role"]
    if not isinstance(role, str) or role not in ROLES:
        raise Invalid(f"{at}.role", f"must be one of {', '.join(ROLES)}")
    calls, allowed = message.get("tool_calls"), _FIELDS | _MORE.get(role, frozenset())
    if calls is not None and role == "assistant" and message.get("content") is None:
        message = {**message, "content": ""}
    if not _FIELDS <= set(message) <= allowed:
        more = f", perhaps {', '.join(sorted(allowed - _FIELDS))}" if role in _MORE else ""
        raise Invalid(at, f"must be an object with role and content{more}, and nothing else")
    _check_content(f"{at}.content", message["content"])
    if role == "tool":
        _check_answer(at, message)
    elif "tool_calls" in message:
        _check_calls(f"{at}.tool_calls", calls, bounds)
    return message


def _check_content(at: str, content: Any) -> None:
    parts = isinstance(content, list) and content
    if not isinstance(content, str) and not (
        parts and all(isinstance(part, dict) and "type" in part for part in content)
    ):
        raise Invalid(at, "must be a string, or a list of content parts")
    if isinstance(content, str):
        check_text(at, content)
    check_parts(at, content)


def _check_answer(at: str, message: Mapping[str, Any]) -> None:
    check_word(f"{at}.tool_call_id", message.get("tool_call_id"), MOST_ID)
    if "name" in message:
        check_word(f"{at}.name", message["name"], MOST_NAME)
    if message.get("status", STATUSES[0]) not in STATUSES:
        raise Invalid(f"{at}.status", f"must be one of {', '.join(STATUSES)}")


def _check_calls(at: str, calls: Any, bounds: Bounds) -> None:
    if not isinstance(calls, list) or not calls:
        raise Invalid(at, "must be a list of calls that is not empty")
    for index, one in enumerate(calls):
        function = one.get("function") if isinstance(one, dict) else None
        if not isinstance(function, dict) or set(one) != {"id", "type", "function"}:
            raise Invalid(
                at, f"must be calls, each with id, type and function, and nothing else: [{index}] is none"
            )
        if one["type"] != "function":
            raise Invalid(f"{at}[{index}].type", "must be function")
        if set(function) != {"name", "arguments"}:
            raise Invalid(f"{at}[{index}].function", "must have name and arguments, and nothing else")
        check_word(f"{at}[{index}].id", one["id"], MOST_ID)
        check_word(f"{at}[{index}].function.name", function["name"], MOST_NAME)
        check_arguments(f"{at}[{index}].function.arguments", function["arguments"], bounds)


def check_arguments(at: str, arguments: Any, bounds: Bounds) -> None:
    """Check that the arguments are the JSON text of an object, within the bounds of a body."""
    if not isinstance(arguments, str):
        raise Invalid(at, ARGUMENTS)
    check_text(at, arguments)
    try:
        value = parse_json(arguments.encode(), bounds)
    except HoldfastError as error:
        rule = error.extensions.get("rule") if isinstance(error, Invalid) else None
        raise Invalid(at, str(rule or ARGUMENTS)) from None
    if not isinstance(value, dict):
        raise Invalid(at, ARGUMENTS)
    check_text(at, json.dumps(value, ensure_ascii=False))


def check_word(at: str, word: Any, most: int) -> None:
    """Check that the value is a text that is not empty and has at most `most` characters."""
    if not isinstance(word, str) or not 0 < len(word) <= most:
        raise Invalid(at, f"must be a string of 1 to {most} characters")
    check_text(at, word)
