"""Addresses in a message's content parts: the model's server fetches what stands there.

So a caller chooses what that server opens. Only `https:` and `data:` are handed on. `file:` and the like
would read its own disk. Plain `http:` reaches services of its network that trust whoever is inside.
"""

from __future__ import annotations

import re
from typing import Any

from gateway.errors import Invalid

RULE = "must be an https address or a data URL of an image"
_IMAGE = re.compile(r"https://|data:image/", re.IGNORECASE)  # schemes have no case (RFC 3986, 3.1)
_OTHER = re.compile(r"https://|data:", re.IGNORECASE)
_TEXTS = frozenset(("text", "input_text", "output_text", "refusal"))
# Where OpenAI's, Anthropic's, Google's and LangChain's content parts have an address.
_NAMES = frozenset(("url", "image_url", "file_url", "uri", "file_uri", "fileUri", "imageUrl"))


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
        if not isinstance(part, dict) or part.get("type") in _TEXTS:
            continue
        kind = part.get("type")
        is_image = isinstance(kind, str) and "image" in kind
        _check(f"{where}[{index}]", part, _IMAGE if is_image else _OTHER)


def check_messages(where: str, messages: Any) -> None:
    """The same of messages that only their chain knows, as in a graph's state. Takes any JSON."""
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        if isinstance(message, dict):
            check_parts(f"{where}[{index}].content", message.get("content"))


def _check(where: str, part: dict[str, Any], right: re.Pattern[str]) -> None:
    """An address may stand deeper in the part: `{"image_url": {"url": …}}`, `{"source": {"url": …}}`."""
    waiting: list[tuple[str, Any]] = [(where, part)]
    while waiting:
        at, whole = waiting.pop()
        if isinstance(whole, list):
            waiting += [(f"{at}[{index}]", item) for index, item in enumerate(whole)]
        for name, value in whole.items() if isinstance(whole, dict) else ():
            if isinstance(value, (dict, list)):
                waiting.append((f"{at}.{name}", value))
            elif name in _NAMES and isinstance(value, str) and not right.match(value):
                raise Invalid(f"{at}.{name}", RULE)
