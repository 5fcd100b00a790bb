"""Tool calls that an earlier attempt has made: answered from the log, instead of being made again.

A call of this attempt is one of the log's where its event is the same but for the ids of calls, and where
every call that had ended before it began was met before. After a call that the log does not know has ended,
nothing is answered any more: it may have changed what later ones would find. Calls at the same time may come
in any order.

What a tool has answered is given back exactly as its function gave it: LangChain makes the message of it
anew, with this attempt's call id. Where that cannot be had, the tool is run again.
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

WITHIN = "within"  # marks what happens below a tool: the id of that tool's call
CALL_IDS = ("call_id", WITHIN)
NOTHING = object()
IN_LOG = b"{}"  # the tool's output in the log is what its function gave
TURN_SECONDS = 0.5  # what stood before an answer in the log is said again within this, or not at all
LOOK_SECONDS = 0.005


@dataclass(slots=True)
class ToolEnd(Event):
    """A tool's end, with what its function gave, as the record keeps it; empty: that cannot be kept."""

    answer: bytes = b""


@dataclass(slots=True)
class Logged:
    """One call that stands in the log, and what was said below it."""

    started: Event
    at: int  # the number of the event with which it began
    ends: int | None = None  # of that with which it ended
    end: Event | None = None
    below: list[Event] = field(default_factory=list)
    answer: bytes = b""
    is_taken: bool = False

    @property
    def is_unknown(self) -> bool:
        """Whether it began, and nobody knows whether it has done its work."""
        return self.end is None

    def answered(self) -> Any:
        """What the tool's function gave; NOTHING where the call has to be made again."""
        if self.end is None or self.end.data["state"] != "finished" or not self.answer:
            return NOTHING
        return _read(self.answer, self.end.data["output"])


class Replays:
    """The calls of one run of a stage. Callbacks of several threads may ask at once."""

    def __init__(
        self,
        events: Sequence[Event] = (),
        answers: Mapping[str, bytes] | None = None,
        upcoming: Callable[[], Event | None] = lambda: None,
        doubtful: Sequence[Event] = (),
    ) -> None:
        """`events` stand in the log, and are to be said again; `answers` is what the record keeps of them.

        `upcoming` tells which of them is to be said next; None: none. `doubtful`: how calls began of which
        nobody knows the end, and that are not to be said again.
        """
        self._upcoming = upcoming
        self._calls: list[Logged] = []
        self._doubtful = [Logged(event, 0) for event in doubtful]
        self._is_over = False  # another call has been made than the log has
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
        """The call of the log that this one is, by its event; None where it is another."""
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
        """The call of the log that this one is, if nobody knows how it ended; whatever was called before."""
        said = _comparable(started)
        with self._lock:
            for call in (*self._calls, *self._doubtful):
                if not call.is_taken and call.is_unknown and _comparable(call.started) == said:
                    call.is_taken = True
                    return call
        return None

    def end(self, call: Logged | None) -> None:
        """A call has ended; None is one that the log does not know."""
        if call is None and self._calls:
            with self._lock:
                self._is_over = True

    def skip(self, call: Logged) -> None:
        """What was called below a call that is answered is not called, and is met all the same."""
        with self._lock:
            for other in self._calls:
                if any(event is other.started for event in call.below):
                    other.is_taken = True

    def has_turn(self, event: Event | None) -> bool:
        """Whether the log has this event next; also where it has no more that would be met."""
        upcoming = self._upcoming()
        return upcoming is None or upcoming is event

    async def turn(self, event: Event | None) -> None:
        """Wait until the log has this event next, within bounds: calls side by side keep the log's order."""
        until = time.monotonic() + TURN_SECONDS
        while not self.has_turn(event) and time.monotonic() < until:  # noqa: ASYNC110 - callers are in threads
            await asyncio.sleep(LOOK_SECONDS)

    def turn_now(self, event: Event | None) -> None:
        """The same in a thread of a tool that is not async."""
        until = time.monotonic() + TURN_SECONDS
        while not self.has_turn(event) and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)

    def _may_begin(self, call: Logged) -> bool:
        """Whether all that had ended before it began was met."""
        return all(c.is_taken for c in self._calls if c.ends is not None and c.ends < call.at)


def name_of(end: Event) -> str:
    """Under which name the record keeps what a tool's function gave: by all that its end says."""
    return hashlib.sha256(json.dumps(end.data, sort_keys=True).encode()).hexdigest()[:32]


def kept(raw: Any, said: Any) -> bytes:
    """What a tool's function gave, as the record keeps it; empty where it cannot be read back exactly.

    `said` is its output in the log.
    """
    if type(raw) is str and raw == said:
        return IN_LOG
    pair = type(raw) is tuple and len(raw) == 2  # LangChain's content and artifact
    if not all(map(_is_exact, raw if pair else [raw])):
        return b""
    return sse.dumps({"pair" if pair else "raw": list(raw) if pair else raw})


def _read(answer: bytes, said: Any) -> Any:
    held = json.loads(answer)
    if "pair" in held:
        return tuple(held["pair"])
    return held.get("raw", said)


def _is_exact(value: Any) -> bool:
    """Whether JSON gives this very value back."""
    if value is None or type(value) in (str, bool, int):
        return True
    if type(value) is float:
        return value - value == 0  # neither infinite nor no number
    if type(value) is list:
        return all(map(_is_exact, value))
    return type(value) is dict and all(type(name) is str and _is_exact(item) for name, item in value.items())


def _ids(call: Logged) -> set[Any]:
    """Of the call, and of the calls below it."""
    below = {event.data["call_id"] for event in call.below if event.type is EventType.TOOL}
    return {call.started.data["call_id"], *below}


def _comparable(event: Event) -> Mapping[str, Any]:
    return {name: value for name, value in event.data.items() if name not in CALL_IDS}
