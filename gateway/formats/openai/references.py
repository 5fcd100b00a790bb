"""References to items of responses that were stored here: some clients send these instead of the items.

An item of an answer becomes what it has said, and a call what it calls. What only the client keeps a record
of is left out: reasoning, calls that were made here, questions, and text that is void by now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway import protocol
from gateway.formats.base.serving import replayed
from gateway.formats.openai.common import unknown
from gateway.formats.openai.output import Responses
from gateway.protocol.errors import Invalid, StreamNotFound
from gateway.streams.messages import call
from gateway.streams.service import Gateway

MOST_REFERRED = 200  # responses that the references of one request name: each is read for it
_REFERENCE = "reference"  # a member of a message that stands for an item until it is looked up
_LEFT_OUT = ("rs", "mcp", "mcpr")
_LOOKED_UP = ("msg", "fc")


def reference_in(at: str, item: Mapping[str, Any]) -> dict[str, Any] | None:
    """A message that stands for the item; None where it is left out in any case. Raises Invalid."""
    name = item.get("id")
    kind, _, rest = name.partition("_") if isinstance(name, str) else ("", "", "")
    if kind in _LEFT_OUT:
        return None
    stream, _, number = rest.rpartition("_")
    is_one = kind in _LOOKED_UP and protocol.is_stream_id(stream) and number.isascii() and number.isdigit()
    if not is_one:
        raise Invalid(f"{at}.id", "must be the id of an item of a response of this gateway")
    return {"role": "assistant", "content": "", _REFERENCE: name}


def refers(said: Sequence[Mapping[str, Any]]) -> bool:
    """Whether something is to be looked up."""
    return any(_REFERENCE in message for message in said)


async def resolved(
    gateway: Gateway, said: Sequence[dict[str, Any]], places: Sequence[str], owner: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """These messages with what the references among them stand for, and their fields.

    Raises Invalid where too many responses are named, and StreamNotFound for an item that this caller does
    not have; both name the field.
    """
    known: dict[str, tuple[dict[str, Any], int]] = {}
    told: list[dict[str, Any]] = []
    at: list[str] = []
    for message, place in zip(said, places, strict=True):
        name = message.pop(_REFERENCE, None)
        calls = message.get("tool_calls", [])
        if name is not None:
            stream, _, number = name.partition("_")[2].rpartition("_")
            if stream not in known:
                if len(known) == MOST_REFERRED:
                    raise Invalid(f"{place}.id", f"names one more than {MOST_REFERRED} responses")
                known[stream] = await _items_of(gateway, stream, owner, f"{place}.id")
            items, count = known[stream]
            if int(number[:9]) >= count:
                raise unknown(f"{place}.id")
            item = items.get(name, {})
            if item.get("type") == "function_call":
                calls = [call(item["call_id"], item["name"], item["arguments"]), *calls]
            message["content"] = _text_of(item)
            if not message["content"] and not calls:
                continue
        if calls and not message["content"] and told and told[-1]["role"] == "assistant":
            told[-1].setdefault("tool_calls", []).extend(calls)
            continue
        told.append(message | ({"tool_calls": calls} if calls else {}))
        at.append(place)
    return told, at


async def _items_of(
    gateway: Gateway, stream: str, owner: str, field: str
) -> tuple[dict[str, dict[str, Any]], int]:
    """What stands of a response's output, by id, and how many items it has had."""
    try:
        record = await gateway.find(stream, owner)
    except StreamNotFound:
        raise unknown(field) from None
    response = await replayed(gateway, record, Responses)
    return {item["id"]: item for item in response.document()["output"]}, response.items


def _text_of(item: Mapping[str, Any]) -> str:
    """What a message says, or refuses with; nothing of any other item."""
    parts = item["content"] if item.get("type") == "message" else []
    return "".join(part.get("text", part.get("refusal", "")) for part in parts)
