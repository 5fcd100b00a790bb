"""Rebuild a graph's steps from `graph` events, as LangGraph's modes `updates` and `values` report them.

The log contains each message once, with a number. A value that contains the message refers to this number.
Each event about a state contains only what has changed since the event before it in the same namespace. Every
reader begins with an empty `Book` at the first event. A worker that continues the work of a failed worker
does the same. No I/O.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.protocol.events import Event, EventType

MESSAGE, UPDATES, VALUES, PIECE, LAST_PIECE = "message", "updates", "values", "piece", "last_piece"
# A mapping with one of these as its only name stands for a message, or for the mapping inside it.
REFERENCE, WHOLE = "$message", "$whole"
_OF_MESSAGE = ("response_metadata", "usage_metadata")


@dataclass(slots=True)
class Said:
    """One message of the graph. `began`: it came in pieces, which are the text events with its number."""

    id: str
    whole: dict[str, Any] | None = None  # None: the message is not complete yet
    began: bool = False
    # Data of the event that named the message first: node, ns, step.
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GraphStep:
    """The step of a graph that one event describes.

    `data` is the update, the whole state, or the message. `ns` is the namespace.
    """

    kind: str
    ns: str
    data: Any
    about: Mapping[str, Any]  # the data of the event itself
    number: int = 0  # the number of the message, if the step is a message


@dataclass(slots=True)
class Book:
    """Everything that the events so far have reported."""

    messages: dict[int, Said] = field(default_factory=dict)
    states: dict[str, Any] = field(default_factory=dict)  # keyed by namespace; messages are still references
    _pieces: list[str] = field(default_factory=list)

    def feed(self, data: Mapping[str, Any], *, reads: bool = True) -> GraphStep | None:
        """Apply the data of the next `graph` event.

        Returns None if the event is only a piece of a larger one. If `reads` is false, the caller does not
        need the state: a step of kind `values` then has no data.
        """
        kind = data["kind"]
        if kind in (PIECE, LAST_PIECE):
            self._pieces.append(data["text"])
            if kind == PIECE:
                return None
            text, self._pieces = "".join(self._pieces), []
            return self.feed(json.loads(text), reads=reads)
        ns = data.get("ns", "")
        if kind == MESSAGE:
            return self._message(data, ns)
        if kind == VALUES:
            self.states[ns] = changed(self.states.get(ns), data["changes"])
            return GraphStep(kind, ns, self.resolved(self.states[ns]) if reads else None, data)
        return GraphStep(kind, ns, self.resolved(data["data"]), data)

    def forget(self) -> None:
        """Forget everything: all events so far are void."""
        self.messages.clear()
        self.states.clear()
        self._pieces.clear()

    def state(self, ns: str = "") -> Any:
        """Return the newest state of a namespace, or None if no event has reported a state."""
        return self.resolved(self.states.get(ns))

    def resolved(self, value: Any) -> Any:
        """Return a value in which each reference to a message is replaced by the message."""
        if isinstance(value, dict):
            if len(value) == 1:
                if (number := value.get(REFERENCE)) is not None:
                    said = self.messages.get(number)
                    return said.whole if said is not None else None
                if WHOLE in value:
                    value = value[WHOLE]
            return {name: self.resolved(item) for name, item in value.items()}
        return [self.resolved(item) for item in value] if isinstance(value, list) else value

    def _message(self, data: Mapping[str, Any], ns: str) -> GraphStep:
        number, own = data["number"], data["own"]
        said = self.messages.setdefault(number, Said(own["id"], about=data))
        if data["state"] == "started":
            said.began = True
        else:
            said.whole = whole(data["message"], own, said.id)
        return GraphStep(MESSAGE, ns, said.whole, data, number)


def parted(message: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a message into two parts.

    The first part is the same when the next attempt produces the message again. The second part differs each
    time: ids and metadata.
    """
    data = dict(message)
    own: dict[str, Any] = {"id": data.pop("id", None)}
    own |= {name: value for name in _OF_MESSAGE if (value := data.pop(name, None)) is not None}
    if calls := data.get("tool_calls"):
        own["calls"] = [call.get("id") for call in calls]
        data["tool_calls"] = [{k: v for k, v in call.items() if k != "id"} for call in calls]
    if data.get("tool_call_id"):
        own["call"] = data.pop("tool_call_id")
    return data, own


def whole(data: Mapping[str, Any], own: Mapping[str, Any], message_id: str) -> dict[str, Any]:
    """Join the two parts of a message."""
    whole = {**data, "id": message_id}
    if data.get("type") in ("ai", "AIMessageChunk"):
        whole["usage_metadata"] = None
    whole["response_metadata"] = {}
    whole |= {name: own[name] for name in _OF_MESSAGE if name in own}
    if calls := data.get("tool_calls"):
        ids = own.get("calls", ())
        whole["tool_calls"] = [{**call, "id": one} for call, one in zip(calls, ids, strict=False)]
    if "call" in own:
        whole["tool_call_id"] = own["call"]
    return whole


def changes(before: Any, after: Any) -> dict[str, Any]:
    """Return the changes that turn `before` into `after`. Both contain references to messages.

    For a list that has grown, only the new items are returned.
    """
    if not isinstance(before, dict) or not isinstance(after, dict):
        return {"whole": after}
    members = {
        name: _grown(before.get(name), value)
        for name, value in after.items()
        if name not in before or before[name] != value
    }
    gone = [name for name in before if name not in after]
    return {"members": members} | ({"gone": gone} if gone else {})


def _grown(before: Any, after: Any) -> dict[str, Any]:
    if isinstance(before, list) and isinstance(after, list):
        same = 0
        for one, other in zip(before, after, strict=False):
            if one != other:
                break
            same += 1
        if same:
            return {"from": same, "add": after[same:]}
    return {"to": after}


def changed(before: Any, told: Mapping[str, Any]) -> Any:
    """Return the state after these changes."""
    if "whole" in told:
        return told["whole"]
    known = before if isinstance(before, dict) else {}
    after = {name: value for name, value in known.items() if name not in told.get("gone", ())}
    for name, change in told["members"].items():
        if "to" in change:
            after[name] = change["to"]
        else:
            after[name] = [*known[name][: change["from"]], *change["add"]]
    return after


def escaped(value: dict[str, Any]) -> dict[str, Any]:
    """Wrap a mapping of the graph itself that would look like a reference."""
    return {WHOLE: value} if len(value) == 1 and (REFERENCE in value or WHOLE in value) else value


def graph(kind: str, *, stage: str, run: int = 0, ns: str = "", **told: Any) -> Event:
    """Return the event for a step of a graph, or for a message of a graph."""
    data = {"kind": kind, "stage": stage, **told}
    return Event(EventType.GRAPH, data | ({"run": run} if run else {}) | ({"ns": ns} if ns else {}))


def calls_of(event: Event) -> list[str]:
    """Return the ids of the tool calls that a message in this event names."""
    own = event.data.get("own") or {}
    return [*own.get("calls", ()), *([own["call"]] if "call" in own else ())]


def with_calls(event: Event, ids: Mapping[str, str]) -> Event:
    """Return the event with tool call ids replaced: `ids` maps old ids to new ids."""
    own = event.data.get("own") or {}
    known: dict[str, Any] = {}
    if any(one in ids for one in own.get("calls", ())):
        known["calls"] = [ids.get(one, one) for one in own["calls"]]
    if own.get("call") in ids:
        known["call"] = ids[own["call"]]
    return Event(event.type, {**event.data, "own": {**own, **known}}) if known else event
