"""Join characters that a model has cut in two.

Half a surrogate pair at a chunk's end waits for the other half. JSON uses UTF-16, so a model's server may
send a character beyond U+FFFF as two halves in two chunks. A first half waits for the next chunk of the same
text. It waits only until its stage or node ends. Then it is emitted alone, as the model has sent it.
Invariants: the concatenation of a text is what the model has sent; at most `MOST` halves wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.protocol import Event, EventType, sse

MOST = 100
FIRST, LAST = "\ud800", "\udbff"  # the range of first halves of surrogate pairs


class Halves:
    """The waiting halves of one stage and its nodes."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, Event] = {}  # key of the text -> an event with only the waiting half

    def concern(self, event: Event) -> bool:
        """Return whether `joined` must handle this event. This is called for every chunk of every model."""
        if event.type is EventType.MESSAGE:
            return bool(self._waiting) or FIRST <= event.data["delta_content"][-1:] <= LAST
        return bool(self._waiting) or _is_cut(_text_of(event))

    def joined(self, event: Event) -> Iterator[Event]:
        """Yield this event, or the events to emit instead of it, in order."""
        if not (text := _text_of(event)):
            if event.type is EventType.STAGE and event.data["state"] == "finished":
                yield from self._rest_of(event.data)
            yield event
            return
        # this key is the same for all pieces of one text
        key = sse.dumps([event.type, _with(event, "").data])
        if (before := self._waiting.pop(key, None)) is not None:
            text = paired(_text_of(before) + text)
        if _is_cut(text):
            self._waiting[key] = _with(event, text[-1])
            text = text[:-1]
        if text:
            yield _with(event, text)
        if len(self._waiting) > MOST:
            yield self._waiting.pop(next(iter(self._waiting)))

    def rest(self) -> Iterator[Event]:
        """Yield all events that still wait."""
        while self._waiting:
            yield self._waiting.pop(next(iter(self._waiting)))

    def _rest_of(self, ended: Any) -> Iterator[Event]:
        """Yield the waiting events of a node that has ended."""
        run = ended["name"], ended["run"]
        for key, event in list(self._waiting.items()):
            if (event.data["stage"], event.data.get("run")) == run:
                yield self._waiting.pop(key)


def paired(text: str) -> str:
    """Return the text with each pair of adjacent halves joined to one character."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return text


def _is_cut(text: str) -> bool:
    return FIRST <= text[-1:] <= LAST


def _text_of(event: Event) -> str:
    """Return the piece of text in an event; for any other event, an empty string."""
    holder, name = _place_of(event)
    return str(holder.get(name, ""))


def _with(event: Event, text: str) -> Event:
    """Return the same event with this text."""
    holder, name = _place_of(event)
    changed = {**holder, name: text}
    return Event(event.type, changed if holder is event.data else {**event.data, "data": changed})


def _place_of(event: Event) -> tuple[dict[str, Any], str]:
    """Return where an event has a piece of text: a mapping and a name in it.

    The name is empty if it has none.
    """
    data = event.data
    match event.type:
        case EventType.MESSAGE:
            return data, "delta_content"
        case EventType.REFUSAL:
            return data, "delta"
        case EventType.NESTED:
            return data, "delta" if "delta" in data else "reasoning"
        case EventType.CUSTOM if data["name"] == "reasoning" and isinstance(data["data"], dict):
            return (data["data"], "delta") if isinstance(data["data"].get("delta"), str) else (data, "")
    return data, ""
