"""Parses and applies a reader's filter for a thread's events: channels, namespaces, first event. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.protocol.errors import Malformed
from gateway.streams.strict_json import shown

CHANNELS = (
    "values",
    "updates",
    "messages",
    "tools",
    "lifecycle",
    "input",
    "tasks",
    "checkpoints",
    "custom",
)
OF_NAME = "custom:"  # prefix of a channel that has only the custom events of one name
MOST_CHANNELS, MOST_NAMESPACES, MOST_SEGMENTS, MOST_CHARACTERS = 200, 200, 50, 500
# The number of an event (`seq`) is the number of the thread's turn, shifted left by this many bits, plus the
# event's place in the run's log.
PLACE_BITS = 32
_LARGEST = 2**53
_NUMBER = re.compile(r"[0-9]{1,16}", re.ASCII)

Namespace = tuple[str, ...]


def first_of_turn(number: int) -> int:
    """Return the number just below a turn's events: events of earlier turns have at most this number."""
    return number << PLACE_BITS


@dataclass(frozen=True, slots=True)
class EventFilter:
    """A reader's filter: it gets events of these channels and namespaces whose number is above `since`."""

    channels: frozenset[str]
    namespaces: tuple[Namespace, ...] = ()  # empty: all namespaces
    depth: int | None = None  # levels below these namespaces; None: no limit
    since: int = 0

    def wants(self, channel: str, namespace: Namespace, name: str = "") -> bool:
        """Return whether the reader wants events of a channel in a namespace; `name`: of a custom event."""
        if channel not in self.channels and (
            channel != "custom" or not name or f"{OF_NAME}{name}" not in self.channels
        ):
            return False
        return not self.namespaces or any(self._within(namespace, one) for one in self.namespaces)

    def _within(self, namespace: Namespace, asked: Namespace) -> bool:
        if len(asked) > len(namespace):
            return False
        if self.depth is not None and len(namespace) - len(asked) > self.depth:
            return False
        pairs = zip(namespace, asked, strict=False)
        return all(one == part or one.partition(":")[0] == part for one, part in pairs)


def parse_filter(value: Any, last_event_id: str | None = None) -> EventFilter:
    """Parse the body of a subscription. The header `last_event_id`, if it is given, replaces `since`.

    Values that LangGraph's server ignores are ignored here, too. Raises Malformed.
    """
    if not isinstance(value, dict):
        raise Malformed("the body must be an object")
    channels = value.get("channels")
    if not isinstance(channels, list) or not 1 <= len(channels) <= MOST_CHANNELS:
        raise Malformed(f"channels must be a list of 1 to {MOST_CHANNELS} names")
    for one in channels:
        if not _is_channel(one):
            told = shown(one) if isinstance(one, str) else type(one).__name__
            raise Malformed(f"channels: {told} is none of {', '.join(CHANNELS)}, custom:<name>")
    depth, since = value.get("depth"), value.get("since")
    if last_event_id:
        if not _NUMBER.fullmatch(last_event_id):
            raise Malformed("Last-Event-ID is not the number of an event of this gateway")
        since = int(last_event_id)
    return EventFilter(
        frozenset(channels),
        _namespaces(value.get("namespaces")),
        depth if type(depth) is int and depth >= 0 else None,
        since if type(since) is int and 0 <= since < _LARGEST else 0,
    )


def _is_channel(given: Any) -> bool:
    if not isinstance(given, str) or len(given) > MOST_CHARACTERS:
        return False
    return given in CHANNELS or (given.startswith(OF_NAME) and given != OF_NAME)


def _namespaces(given: Any) -> tuple[Namespace, ...]:
    if not isinstance(given, list):
        return ()
    if len(given) > MOST_NAMESPACES:
        raise Malformed(f"namespaces must be at most {MOST_NAMESPACES}")
    return tuple(tuple(one) for one in given if _is_namespace(one))


def _is_namespace(given: Any) -> bool:
    return (
        isinstance(given, list)
        and len(given) <= MOST_SEGMENTS
        and all(isinstance(one, str) and len(one) <= MOST_CHARACTERS for one in given)
    )


def object_in(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the member `name` if it is an object, else an empty object."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def strings(given: Any) -> Sequence[str] | None:
    """Return `given` if it is a list of strings, else None."""
    return given if isinstance(given, list) and all(isinstance(one, str) for one in given) else None
