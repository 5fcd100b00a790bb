"""Addresses in a message's content parts: the model's server fetches what stands there.

So a caller chooses what that server opens. Only `https:` and `data:` are handed on. `file:` and the like
would read its own disk. Plain `http:` reaches services of its network that trust whoever is inside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from gateway.protocol.errors import Invalid

RULE = "must be an https address or a data URL of an image"
_IMAGE = re.compile(r"https://|data:image/", re.IGNORECASE)  # schemes have no case (RFC 3986, 3.1)
_OTHER = re.compile(r"https://|data:", re.IGNORECASE)
_TEXTS = frozenset(("text", "input_text", "output_text", "refusal"))
# Where OpenAI's, Anthropic's, Google's, vLLM's and LangChain's content parts have an address: `url`,
# `image_url`, `video_url`, `imageUrl`, `uri`, `fileUri`.
_ADDRESS = re.compile(r"ur[il]$", re.IGNORECASE)
# What LangChain takes for a message's role or type (`_create_message_from_message_type` in
# langchain_core/messages/utils.py).
_KINDS = frozenset(("human", "user", "ai", "assistant", "system", "developer", "function", "tool", "remove"))


def check_image(where: str, url: Any) -> str:
    """This address. Raises Invalid unless it is one of an image that may be handed on."""
    if not isinstance(url, str) or not _IMAGE.match(url):
        raise Invalid(where, RULE)
    return url


def check_parts(where: str, content: Any) -> None:
    """Raises Invalid, which names the field, for an address in these content parts that may not be handed on.

    Takes any JSON; what is no list of content parts has no addresses.
    """
    for index, part in enumerate(content if isinstance(content, list) else ()):
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(part, dict) or (isinstance(kind, str) and kind in _TEXTS):
            continue
        is_image = isinstance(kind, str) and "image" in kind
        _check(f"{where}[{index}]", part, _IMAGE.match if is_image else _OTHER.match)


def check_messages(where: str, messages: Any) -> None:
    """The same of messages that only their chain knows, as in a graph's state. Takes any JSON."""
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        if isinstance(message, dict):
            check_parts(f"{where}[{index}].content", message.get("content"))


def check_input(where: str, value: Any) -> None:
    """The same of an input that only its chain knows: of all messages in it, in each form of LangChain's.

    These are an object with a role or a type and a content, a list of a role and a content, and what
    LangChain's `dumps` writes. Other objects are the chain's own, whatever addresses they have.
    """
    if isinstance(value, dict):
        check_messages(f"{where}.messages", value.get("messages"))
    waiting: list[tuple[Any, Any]] = [(where, value)]  # where: a text, or (where, name or index)
    while waiting:
        at, whole = waiting.pop()
        if isinstance(whole, dict):
            if whole.get("lc") == 1 and isinstance(whole.get("kwargs"), dict):
                check_parts(f"{_path(at)}.kwargs.content", whole["kwargs"].get("content"))
            elif any(_is_kind(whole.get(name)) for name in ("role", "type")):
                check_parts(f"{_path(at)}.content", whole.get("content"))
            items: Iterable[tuple[Any, Any]] = whole.items()
        else:
            if len(whole) == 2 and _is_kind(whole[0]):
                check_parts(f"{_path(at)}[1]", whole[1])
            items = enumerate(whole)
        waiting += [((at, name), item) for name, item in items if isinstance(item, (dict, list))]


def _is_kind(value: Any) -> bool:
    return isinstance(value, str) and value in _KINDS


def _path(at: Any) -> str:
    steps: list[str] = []
    while isinstance(at, tuple):
        at, step = at
        steps.append(f"[{step}]" if isinstance(step, int) else f".{step[:64]}")
    return "".join([at, *reversed(steps)])


def _check(where: str, part: dict[str, Any], is_right: Callable[[str], object]) -> None:
    """An address may stand deeper in the part: `{"image_url": {"url": …}}`, `{"source": {"url": …}}`."""
    waiting: list[tuple[str, Any]] = [(where, part)]
    while waiting:
        at, whole = waiting.pop()
        if isinstance(whole, list):
            waiting += [(f"{at}[{index}]", item) for index, item in enumerate(whole)]
        for name, value in whole.items() if isinstance(whole, dict) else ():
            if isinstance(value, (dict, list)):
                waiting.append((f"{at}.{name}", value))
            elif isinstance(value, str) and _ADDRESS.search(name) and not is_right(value):
                raise Invalid(f"{at}.{name}", RULE)
