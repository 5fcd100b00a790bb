"""Compares the events of a new attempt with those that an earlier attempt has published. No I/O.

An event that equals the published one is not written again. Two events are equal when their types and data
are. Ids of tool calls are left out, because they may differ from run to run, and of a graph's message all
that is its own each time (`protocol/steps.py`). Nodes of a graph (`stage` events with a parent) are compared
as text is. At the first difference one `reset` is written, together with all events of the stage so far
(`docs/protocol.md`, Attempts). The same happens at the end of the stage when published events are left that
found no match.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any

from gateway import protocol
from gateway.protocol import Event, EventType, steps
from gateway.protocol.sse import Message

_COMPARED = frozenset(
    {
        EventType.MESSAGE,
        EventType.TOOL,
        EventType.CUSTOM,
        EventType.NESTED,
        EventType.REFUSAL,
        EventType.CITATIONS,
        EventType.GRAPH,
    }
)
CALL_IDS = ("call_id", "within")  # the fields of an event that name a tool call
_PAST = -1  # the state of a matcher that has nothing left to match


@dataclass(slots=True)
class Published:
    """What stands in the log of the stage that is not finished yet.

    `doubtful`: the events with which calls of tools began that a `reset` has voided before they had ended.
    """

    stage: str = ""
    run: int = 0
    started_id: str = ""
    finished: list[tuple[str, int]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    doubtful: list[Event] = field(default_factory=list)

    @classmethod
    def read(cls, messages: Iterable[Message]) -> Published:
        """The last unfinished stage of a log's messages, with the events of it that no `reset` has voided."""
        state = cls()
        for message in messages:
            event = message.event()
            if event.type in _COMPARED or (event.type is EventType.STAGE and "parent" in event.data):
                state.events.append(event)
            elif event.type is EventType.STAGE and event.data["state"] == "started":
                state.stage, state.run = event.data["name"], event.data["run"]
                state.started_id, state.events, state.doubtful = message.id, [], []
            elif event.type is EventType.STAGE:
                state.finished.append((event.data["name"], event.data["run"]))
                state.stage, state.run, state.started_id = "", 0, ""
                state.events, state.doubtful = [], []
            elif event.type is EventType.RESET and event.data["discard_after"] == state.started_id:
                state.doubtful += _under_way(state.events)
                state.events = []
        return state


def _under_way(events: Iterable[Event]) -> Iterable[Event]:
    """The events with which calls of tools began that have no end among these."""
    began: dict[str, Event] = {}
    for event in events:
        if event.type is EventType.TOOL:
            if event.data["state"] == "started":
                began[event.data["call_id"]] = event
            else:
                began.pop(event.data["call_id"], None)
    return began.values()


class Matcher:
    """Takes a stage's events, and gives the events that must be written.

    `standing` has the numbers of the published events that the stage will not say again, because its graph
    goes on after them. These events need no match, and a `reset` repeats them.
    """

    def __init__(
        self,
        published: Published,
        attempt: int,
        reason: str = "attempt_differs",
        standing: Set[int] = frozenset(),
    ) -> None:
        self._expected = deque(e for number, e in enumerate(published.events) if number not in standing)
        self._standing = [e for number, e in enumerate(published.events) if number in standing]
        self._own: list[Event] = []
        self._call_ids: dict[str, str] = {}  # ids of this attempt's tool calls → ids of the published ones
        self._reset = protocol.reset(
            attempt=attempt,
            stage_name=published.stage,
            discard_after=published.started_id,
            reason=reason,
        )

    def upcoming(self) -> Event | None:
        """The published event that must come next, or None. Any thread may call this."""
        try:
            return self._expected[0]
        except IndexError:
            return None

    def take(self, event: Event) -> list[Event]:
        """Take the next event of this attempt. Answers the events to write, which may be none."""
        if not self._expected:
            return [self._as_published(event)] if self._call_ids else [event]
        self._own.append(event)
        if _comparable(event) == _comparable(self._expected[0]):
            published = self._expected.popleft()
            if event.type is EventType.TOOL:
                self._call_ids[event.data["call_id"]] = published.data["call_id"]
            elif event.type is EventType.GRAPH:
                self._call_ids.update(zip(steps.calls_of(event), steps.calls_of(published), strict=False))
            if not self._expected:
                self._own.clear()
            return []
        return self._give_up()

    def end(self) -> list[Event]:
        """The stage is at its end. Answers a `reset`, if published events have found no match."""
        return self._give_up() if self._expected else []

    def state(self) -> tuple[int, dict[str, str]]:
        """How many events have matched (-1: none is left to match), and the published ids of tool calls."""
        return len(self._own) if self._expected else _PAST, dict(self._call_ids)

    def go_on(self, matched: int, call_ids: Mapping[str, str]) -> None:
        """Take over the state of a matcher with the same published events. Only for a matcher just made."""
        self._call_ids = dict(call_ids)
        if matched == _PAST:
            self._expected.clear()
        ours = {theirs: own for own, theirs in call_ids.items()}
        for _ in range(min(matched, len(self._expected))):
            self._own.append(_with_calls(self._expected.popleft(), ours))
        if not self._expected:
            self._own.clear()

    def _as_published(self, event: Event) -> Event:
        """The event with the ids that its tool calls have in the log."""
        return _with_calls(event, self._call_ids)

    def _give_up(self) -> list[Event]:
        own, self._own = self._own, []
        self._call_ids.clear()
        self._expected.clear()
        return [self._reset, *self._standing, *own]


def _with_calls(event: Event, ids: Mapping[str, str]) -> Event:
    """The event, with the ids of its tool calls replaced."""
    if event.type is EventType.GRAPH:
        return steps.with_calls(event, ids)
    data = event.data
    known = {name: ids[data[name]] for name in CALL_IDS if data.get(name) in ids}
    return replace(event, data={**data, **known}) if known else event


def _comparable(event: Event) -> tuple[str, Any]:
    data = event.data
    if event.type is EventType.GRAPH:
        return event.type, {name: value for name, value in data.items() if name != "own"}
    if "call_id" in data or "within" in data:
        data = {name: value for name, value in data.items() if name not in CALL_IDS}
    return event.type, data
