"""Compare the events of a new attempt with the events that an earlier attempt published. No I/O.

An event that equals the published event is not written again. Two events are equal if their types and data
are equal. The ids of tool calls are not compared, because they may differ from run to run. Of a graph's
message the fields that are different in each run are not compared either (`protocol/steps.py`). Events of
nodes of a graph (`stage` events with a parent) are compared like text. At the first difference one `reset` is
written, together with all events of the stage so far (`docs/protocol.md`, Attempts). The same happens at the
end of the stage if published events have no match.
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
CALL_IDS = ("call_id", "within")  # fields of an event that contain the id of a tool call
_PAST = -1  # state of a matcher that has no published events left


@dataclass(slots=True)
class Published:
    """The published events of the stage that is not finished yet.

    `doubtful`: the start events of tool calls that were still running when a `reset` discarded them.
    """

    stage: str = ""
    run: int = 0
    started_id: str = ""
    finished: list[tuple[str, int]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    doubtful: list[Event] = field(default_factory=list)

    @classmethod
    def read(cls, messages: Iterable[Message]) -> Published:
        """Read the last unfinished stage from a log. Events that a `reset` discarded are left out."""
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
    """Return the start events of the tool calls that have no end event in `events`."""
    began: dict[str, Event] = {}
    for event in events:
        if event.type is EventType.TOOL:
            if event.data["state"] == "started":
                began[event.data["call_id"]] = event
            else:
                began.pop(event.data["call_id"], None)
    return began.values()


class Matcher:
    """Receives the events of a stage, and returns the events that must be written.

    `standing` contains the numbers of published events that the stage will not produce again, because its
    graph continues after them. These events need no match. A `reset` repeats them.
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
        self._call_ids: dict[str, str] = {}  # this attempt's ids of tool calls → the published ids
        self._reset = protocol.reset(
            attempt=attempt,
            stage_name=published.stage,
            discard_after=published.started_id,
            reason=reason,
        )

    def upcoming(self) -> Event | None:
        """Return the published event that must come next, or None. Any thread may call this."""
        try:
            return self._expected[0]
        except IndexError:
            return None

    def take(self, event: Event) -> list[Event]:
        """Compare the next event of this attempt. Return the events to write; the list may be empty."""
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
        """Finish the stage. Return a `reset` and the events to repeat, if published events have no match."""
        return self._give_up() if self._expected else []

    def state(self) -> tuple[int, dict[str, str]]:
        """Return how many events have matched, and the published ids of tool calls.

        The number is -1 if no published event is left to match.
        """
        return len(self._own) if self._expected else _PAST, dict(self._call_ids)

    def go_on(self, matched: int, call_ids: Mapping[str, str]) -> None:
        """Restore the state of a matcher that had the same published events.

        Call this only before the first `take`.
        """
        self._call_ids = dict(call_ids)
        if matched == _PAST:
            self._expected.clear()
        ours = {theirs: own for own, theirs in call_ids.items()}
        for _ in range(min(matched, len(self._expected))):
            self._own.append(_with_calls(self._expected.popleft(), ours))
        if not self._expected:
            self._own.clear()

    def _as_published(self, event: Event) -> Event:
        """Return the event with the tool call ids that are in the log."""
        return _with_calls(event, self._call_ids)

    def _give_up(self) -> list[Event]:
        own, self._own = self._own, []
        self._call_ids.clear()
        self._expected.clear()
        return [self._reset, *self._standing, *own]


def _with_calls(event: Event, ids: Mapping[str, str]) -> Event:
    """Return the event with the ids of its tool calls replaced."""
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
