"""Answer tool calls that an earlier attempt has made from the log, instead of calling the tools again.

A call of this attempt is the same as a call in the log on two conditions. Their events are the same, except
for the ids of calls. And every call that had ended before the logged call began has already been found. After
a call that is not in the log has ended, no more calls are answered from the log: this call may have changed
what later calls would find. Parallel calls may come in any order.

An answer is exactly what the tool's function returned. LangChain makes a new message from it, with this
attempt's call id. If the answer is not stored exactly, the tool runs again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from gateway.protocol import Event, EventType, sse

WITHIN = "within"  # marks events below a tool with the id of that tool's call
CALL_IDS = ("call_id", WITHIN)
NOTHING = object()
IN_LOG = b"{}"  # the function's return value equals the output in the log
# Longest wait for the events before an answer in the log. After this time they are no longer expected.
TURN_SECONDS = 0.5
LOOK_SECONDS = 0.005


@dataclass(slots=True)
class ToolEnd(Event):
    """The end of a tool call, with the function's return value as the record stores it.

    Empty: it cannot be stored.
    """

    answer: bytes = b""


@dataclass(slots=True)
class Logged:
    """One tool call in the log, and the events below it."""

    started: Event
    at: int  # the number of its first event
    ends: int | None = None  # the number of its last event
    end: Event | None = None
    below: list[Event] = field(default_factory=list)
    answer: bytes = b""
    is_taken: bool = False

    @property
    def is_unknown(self) -> bool:
        """Whether the call has begun, and it is unknown whether the tool has done its work."""
        return self.end is None

    def answered(self) -> Any:
        """Return what the tool's function returned, or NOTHING if the tool must be called again."""
        if self.end is None or self.end.data["state"] != "finished" or not self.answer:
            return NOTHING
        return _read(self.answer, self.end.data["output"])


class Replays:
    """The logged tool calls of one stage's run. Callbacks of several threads may use it at the same time."""

    def __init__(
        self,
        events: Sequence[Event] = (),
        answers: Mapping[str, bytes] | None = None,
        upcoming: Callable[[], Event | None] = lambda: None,
        doubtful: Sequence[Event] = (),
    ) -> None:
        """`events` are in the log and will be emitted again. `answers` are the stored answers of their calls.

        `upcoming` returns the event that must be emitted next, or None. `doubtful`: the starts of calls whose
        end is unknown, and that will not be emitted again.
        """
        self._upcoming = upcoming
        self._calls: list[Logged] = []
        self._doubtful = [Logged(event, 0) for event in doubtful]
        self._is_over = False  # True: a call was made that is not in the log
        self._lock = Lock()
        for number, event in enumerate(events):
            self._add(number, event, answers or {})

    def _add(self, number: int, event: Event, answers: Mapping[str, bytes]) -> None:
        data = event.data
        for call in self._calls if WITHIN in data else ():
            if call.ends is None and data[WITHIN] in _ids(call):
                call.below.append(event)
        if event.type is not EventType.TOOL:
            return
        if data["state"] == "started":
            self._calls.append(Logged(event, number))
            return
        same = (c for c in reversed(self._calls) if c.started.data["call_id"] == data["call_id"])
        found = next(same, None)
        if found is not None and found.ends is None:
            found.ends, found.end, found.answer = number, event, answers.get(name_of(event), b"")

    def take(self, started: Event) -> Logged | None:
        """Return the logged call that is the same as this one, by its event. None: there is none."""
        said = _comparable(started)
        with self._lock:
            if self._is_over:
                return None
            for call in self._calls:
                if not call.is_taken and _comparable(call.started) == said and self._may_begin(call):
                    call.is_taken = True
                    return call
        return None

    def take_unknown(self, started: Event) -> Logged | None:
        """Return the logged call that is the same as this one, if its end is unknown.

        Earlier calls need not match.
        """
        said = _comparable(started)
        with self._lock:
            for call in (*self._calls, *self._doubtful):
                if not call.is_taken and call.is_unknown and _comparable(call.started) == said:
                    call.is_taken = True
                    return call
        return None

    def end(self, call: Logged | None) -> None:
        """Note that a call has ended. None: the call is not in the log."""
        if call is None and self._calls:
            with self._lock:
                self._is_over = True

    def skip(self, call: Logged) -> None:
        """Mark the calls below an answered call as found, because they are not made again."""
        with self._lock:
            for other in self._calls:
                if any(event is other.started for event in call.below):
                    other.is_taken = True

    def has_turn(self, event: Event | None) -> bool:
        """Return whether this event is the next one in the log, or the log has no more events to match."""
        upcoming = self._upcoming()
        return upcoming is None or upcoming is event

    async def turn(self, event: Event | None) -> None:
        """Wait until this event is the next one in the log, for at most TURN_SECONDS.

        So parallel calls keep the log's order.
        """
        until = time.monotonic() + TURN_SECONDS
        while not self.has_turn(event) and time.monotonic() < until:  # noqa: ASYNC110 - callers are in threads
            await asyncio.sleep(LOOK_SECONDS)

    def turn_now(self, event: Event | None) -> None:
        """Do the same as `turn`, in a thread of a tool that is not async."""
        until = time.monotonic() + TURN_SECONDS
        while not self.has_turn(event) and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)

    def _may_begin(self, call: Logged) -> bool:
        """Return whether all calls that had ended before this call began have been found."""
        return all(c.is_taken for c in self._calls if c.ends is not None and c.ends < call.at)


def name_of(end: Event) -> str:
    """Return the name under which the record stores a tool's answer. It is a hash of the end event."""
    return hashlib.sha256(json.dumps(end.data, sort_keys=True).encode()).hexdigest()[:32]


def kept(raw: Any, said: Any) -> bytes:
    """Return what a tool's function returned, as the record stores it. Empty: it cannot be read back exactly.

    `said` is its output in the log.
    """
    if type(raw) is str and raw == said:
        return IN_LOG
    pair = type(raw) is tuple and len(raw) == 2  # LangChain's pair of content and artifact
    if not all(map(_is_exact, raw if pair else [raw])):
        return b""
    return sse.dumps({"pair" if pair else "raw": list(raw) if pair else raw})


def _read(answer: bytes, said: Any) -> Any:
    held = json.loads(answer)
    if "pair" in held:
        return tuple(held["pair"])
    return held.get("raw", said)


def _is_exact(value: Any) -> bool:
    """Return whether JSON gives exactly this value back."""
    if value is None or type(value) in (str, bool, int):
        return True
    if type(value) is float:
        return value - value == 0  # a finite number
    if type(value) is list:
        return all(map(_is_exact, value))
    return type(value) is dict and all(type(name) is str and _is_exact(item) for name, item in value.items())


def _ids(call: Logged) -> set[Any]:
    """Return the ids of the call and of the calls below it."""
    below = {event.data["call_id"] for event in call.below if event.type is EventType.TOOL}
    return {call.started.data["call_id"], *below}


def _comparable(event: Event) -> Mapping[str, Any]:
    return {name: value for name, value in event.data.items() if name not in CALL_IDS}
