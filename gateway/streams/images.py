"""Check addresses in a message's content parts, because the model's server fetches these addresses.

So a caller chooses what that server opens. Only `https:` and `data:` are passed on. `file:` and similar
schemes would read the server's own disk. Plain `http:` reaches services of its network that trust every
client inside.
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
# ^The names under which content parts of OpenAI, Anthropic, Google, vLLM and LangChain have an address:
# `url`, `image_url`, `video_url`, `imageUrl`, `uri`, `fileUri`.
_ADDRESS = re.compile(r"ur[il]$", re.IGNORECASE)
# ^The words that LangChain accepts as a message's role or type (`_create_message_from_message_type` in
# langchain_core/messages/utils.py).
_KINDS = frozenset(("human", "user", "ai", "assistant", "system", "developer", "function", "tool", "remove"))


def check_image(where: str, url: Any) -> str:
    """Return the address. Raises Invalid unless it is the address of an image and may be passed on."""
    if not isinstance(url, str) or not _IMAGE.match(url):
        raise Invalid(where, RULE)
    return url


def check_parts(where: str, content: Any) -> None:
    """Raise Invalid, which names the field, if these content parts have an address that may not be passed on.

    Accepts any JSON. A value that is not a list of content parts has no addresses.
    """
    for index, part in enumerate(content if isinstance(content, list) else ()):
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(part, dict) or (isinstance(kind, str) and kind in _TEXTS):
            continue
        is_image = isinstance(kind, str) and "image" in kind
        _check(f"{where}[{index}]", part, _IMAGE.match if is_image else _OTHER.match)


def check_messages(where: str, messages: Any) -> None:
    """Do what `check_parts` does, for messages that only their chain understands, as in a graph's state.

    Accepts any JSON.
    """
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        if isinstance(message, dict):
            check_parts(f"{where}[{index}].content", message.get("content"))


def check_input(where: str, value: Any) -> None:
    """Do what `check_parts` does, for an input that only its chain understands.

    All messages in the input are checked, in each of LangChain's forms: an object with a role or a type and a
    content, a list of a role and a content, and the output of LangChain's `dumps`. Other objects belong to
    the chain, and their addresses are not checked.
    """
    if isinstance(value, dict):
        check_messages(f"{where}.messages", value.get("messages"))
    # The place of a value: a text, or (the place of its parent, name or index).
    waiting: list[tuple[Any, Any]] = [(where, value)]
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
    """Check one content part.

    An address may be nested in the part: `{"image_url": {"url": …}}`, `{"source": {"url": …}}`.
    """
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
