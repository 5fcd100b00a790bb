"""What `graph` events amount to: the steps of a graph, as LangGraph's modes `updates` and `values` tell them.

A message stands in the log once, by a number, and whatever has it among its values refers to that number. Of
a state each event tells what has changed since the one before, in the same namespace. A worker that goes on
where another fell, and each reader, begin a `Book` at the first event. No I/O.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.protocol.events import Event, EventType

MESSAGE, UPDATES, VALUES, PIECE, LAST_PIECE = "message", "updates", "values", "piece", "last_piece"
REFERENCE, WHOLE = "$message", "$whole"  # the only name of a mapping that stands for a message, or for itself
_OF_MESSAGE = ("response_metadata", "usage_metadata")


@dataclass(slots=True)
class Said:
    """One message of the graph's. `began`: it came in pieces, which are the text events with its number."""

    id: str
    whole: dict[str, Any] | None = None  # None: it is being said
    began: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)  # the event that has told it first: node, ns, step


@dataclass(frozen=True, slots=True)
class GraphStep:
    """What one event tells. `data` is the update, the whole state, or the message; `ns` the namespace."""

    kind: str
    ns: str
    data: Any
    about: Mapping[str, Any]  # the event's own data
    number: int = 0  # of a message


@dataclass(slots=True)
class Book:
    """All that the events so far have told."""

    messages: dict[int, Said] = field(default_factory=dict)
    states: dict[str, Any] = field(default_factory=dict)  # by namespace, with references
    _pieces: list[str] = field(default_factory=list)

    def feed(self, data: Mapping[str, Any], *, reads: bool = True) -> GraphStep | None:
        """Take the data of the next `graph` event; None where it tells nothing yet.

        Without `reads` nobody looks at a state that it tells: the step has none.
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
        """All of it is void."""
        self.messages.clear()
        self.states.clear()
        self._pieces.clear()

    def state(self, ns: str = "") -> Any:
        """The newest state of a namespace; None where none was told."""
        return self.resolved(self.states.get(ns))

    def resolved(self, value: Any) -> Any:
        """A value with its messages in the places that refer to them."""
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
    """A message in two parts: what the next attempt says again, and what is its own each time."""
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
    """The message of two parts."""
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
    """What makes `after` of `before`, both with references; of a list that has grown, its new items alone."""
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
    """The state after these changes."""
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
    """A mapping of the graph's own that would be taken for a reference."""
    return {WHOLE: value} if len(value) == 1 and (REFERENCE in value or WHOLE in value) else value


def graph(kind: str, *, stage: str, run: int = 0, ns: str = "", **told: Any) -> Event:
    """A step of a graph, or a message of its."""
    data = {"kind": kind, "stage": stage, **told}
    return Event(EventType.GRAPH, data | ({"run": run} if run else {}) | ({"ns": ns} if ns else {}))


def calls_of(event: Event) -> list[str]:
    """The ids of tool calls that a message in this event names."""
    own = event.data.get("own") or {}
    return [*own.get("calls", ()), *([own["call"]] if "call" in own else ())]


def with_calls(event: Event, ids: Mapping[str, str]) -> Event:
    """The event, with those ids replaced."""
    own = event.data.get("own") or {}
    known: dict[str, Any] = {}
    if any(one in ids for one in own.get("calls", ())):
        known["calls"] = [ids.get(one, one) for one in own["calls"]]
    if own.get("call") in ids:
        known["call"] = ids[own["call"]]
    return Event(event.type, {**event.data, "own": {**own, **known}}) if known else event
