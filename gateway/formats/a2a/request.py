"""What A2A 1.0's clients send, as what a chain is asked. No I/O. Raises Invalid, which names the field.

A text is the user's message; so are images beside it. Data that is a message's only part is the chain's
input, or the answer to a question, as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.protocol.errors import HoldfastError, Invalid, UnansweredInterrupts
from gateway.streams.images import check_image
from gateway.streams.messages import MOST_ID, check_word
from gateway.streams.resume import Resume
from gateway.streams.start import Bounds, Start, check_text, check_thread, parse_start

OUTPUTS = ("text/plain", "application/json")
INPUTS = (*OUTPUTS, "image/png", "image/jpeg", "image/gif", "image/webp")
_ROLES = ("ROLE_USER", 1)
_KINDS = ("text", "data", "url", "raw")


class WrongContent(HoldfastError):
    """A part of the message, or an answer that would be taken, is of a kind that is not served here."""

    status = 422
    code = "content_type"


class NoPush(HoldfastError):
    """Push notifications are not served here."""

    status = 422
    code = "no_push"


@dataclass(frozen=True, slots=True)
class Sent:
    """A message. `content` is a text or content parts, or, where `is_data`, any JSON."""

    message_id: str
    task: str
    context: str
    content: Any = field(repr=False)
    is_data: bool
    metadata: Mapping[str, Any] = field(repr=False)
    at_once: bool  # the answer is the task as it stands, instead of as it ends

    def context_for(self, chain: str) -> str:
        """Its context; one that names none begins one that the same message begins again."""
        told = f"{chain}\0{self.message_id}".encode(errors="surrogatepass")
        return self.context or f"a2a-{hashlib.sha256(told).hexdigest()[:32]}"

    def start(self, chain: str, chains: Mapping[str, Any], bounds: Bounds) -> Start:
        """A new task of its context, which waits for its turn there."""
        asked: dict[str, Any] = {
            "chain": chain,
            "thread": self.context_for(chain),
            "multitask_strategy": "enqueue",
        }
        if self.is_data:
            asked["input"] = self.content
        else:
            asked["messages"] = [{"role": "user", "content": self.content}]
        rest = {name: value for name, value in self.metadata.items() if name != "params"}
        asked |= {"metadata": rest} if rest else {}
        asked |= {"params": self.metadata["params"]} if "params" in self.metadata else {}
        return parse_start(asked, chains, bounds)

    def answers(self, questions: Sequence[Mapping[str, Any]]) -> Resume:
        """The answer to these questions: to the only one as it is, to several by their ids."""
        ids = [one["id"] for one in questions]
        given = self.content
        if self.is_data and isinstance(given, dict) and given and set(given) <= set(ids):
            return Resume(given)
        if len(ids) > 1:
            raise UnansweredInterrupts(f"answer each of these by its id, in one data part: {', '.join(ids)}")
        return Resume(dict.fromkeys(ids, given))


def parse_send(params: Mapping[str, Any], bounds: Bounds) -> Sent:
    """The params of SendMessage and SendStreamingMessage."""
    if params.get("tenant"):
        raise Invalid("tenant", "must be empty: an agent of this gateway has none")
    message = params.get("message")
    if not isinstance(message, dict):
        raise Invalid("message", "must be an object")
    at_once = _configured(params.get("configuration") or {})
    check_word("message.messageId", message.get("messageId"), MOST_ID)
    if message.get("role") not in _ROLES:
        raise Invalid("message.role", "must be ROLE_USER")
    task, context = message.get("taskId") or "", message.get("contextId") or ""
    if not isinstance(task, str) or len(task) > MOST_ID:
        raise Invalid("message.taskId", "must be a task's id")
    if context:
        check_thread("message.contextId", context)
    metadata = params.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise Invalid("metadata", "must be an object")
    content, is_data = _content(message.get("parts"), bounds)
    return Sent(message["messageId"], task, context, content, is_data, metadata, at_once)


def parse_task(params: Mapping[str, Any]) -> str:
    """The task's id, in the params of GetTask, CancelTask and SubscribeToTask."""
    name = params.get("id")
    if not isinstance(name, str) or not 0 < len(name) <= MOST_ID:
        raise Invalid("id", "must be a task's id")
    return name


def _configured(given: Any) -> bool:
    """Whether the answer is wanted at once."""
    if not isinstance(given, dict):
        raise Invalid("configuration", "must be an object")
    if given.get("taskPushNotificationConfig"):
        raise NoPush
    modes = given.get("acceptedOutputModes") or []
    if not isinstance(modes, list) or not all(isinstance(one, str) for one in modes):
        raise Invalid("configuration.acceptedOutputModes", "must be a list of media types")
    if modes and not any(one in (*OUTPUTS, "text/*", "*/*", "text") for one in modes):
        raise WrongContent(f"answers are {' or '.join(OUTPUTS)}")
    at_once = given.get("returnImmediately") or False
    if not isinstance(at_once, bool):
        raise Invalid("configuration.returnImmediately", "must be true or false")
    return at_once


def _content(parts: Any, bounds: Bounds) -> tuple[Any, bool]:
    """A text, content parts, or the only part's data; and whether it is that."""
    if not isinstance(parts, list) or not parts:
        raise Invalid("message.parts", "must be a list that is not empty")
    if len(parts) > bounds.messages:
        raise Invalid("message.parts", f"must be at most {bounds.messages}")
    read = []
    for number, part in enumerate(parts):
        at = f"message.parts[{number}]"
        kinds = [kind for kind in _KINDS if isinstance(part, dict) and kind in part]
        if len(kinds) != 1:
            raise Invalid(at, f"must be an object with one of {', '.join(_KINDS)}")
        if kinds == ["data"]:
            if len(parts) > 1:
                raise WrongContent("data must be a message's only part")
            return part["data"], True
        read.append(_part(at, kinds[0], part))
    if all(one["type"] == "text" for one in read):
        text = "\n".join(one["text"] for one in read)
        if not text.strip():
            raise Invalid("message.parts", "must hold a text")
        return text, False
    return read, False


def _part(at: str, kind: str, part: Mapping[str, Any]) -> dict[str, Any]:
    value = part[kind]
    if not isinstance(value, str):
        raise Invalid(f"{at}.{kind}", "must be a string")
    check_text(f"{at}.{kind}", value)
    if kind == "text":
        return {"type": "text", "text": value}
    media = part.get("mediaType")
    if not isinstance(media, str) or not media.startswith("image/"):
        raise WrongContent(f"{at}: files must be images, and have a mediaType")
    url = value if kind == "url" else f"data:{media};base64,{value}"
    check_image(f"{at}.{kind}", url)
    return {"type": "image_url", "image_url": {"url": url}}
