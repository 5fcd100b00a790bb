"""The content of a log, read without the product: the contract's sentences applied to the bytes, without its
fold.

A client's text for a stage is the concatenation of its text events that no later `reset` voids.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

Text = tuple[str, int, str, str]  # name, run, state and text of a stage
Said = tuple[str, Any]  # type of an event, and its data without the id of a call


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of a log, and the end of its frame."""

    end: int
    id: str
    type: str
    data: Any

    @property
    def said(self) -> Said:
        return self.type, {name: value for name, value in self.data.items() if name != "call_id"}


@dataclass(slots=True)
class Told:
    """One run of a stage, and its events that are not void."""

    name: str
    run: int
    started_id: str
    state: str = "started"
    events: list[Entry] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(entry.data["delta_content"] for entry in self.events if entry.type == "message")


@lru_cache(maxsize=256)
def entries_of(log: bytes) -> tuple[Entry, ...]:
    """Return the events of a log in order: `id:`, at most one `event:`, one `data:` for each event."""
    found, end = [], 0
    for frame in log.split(b"\n\n")[:-1]:
        end += len(frame) + 2
        lines = dict(line.split(": ", 1) for line in frame.decode().split("\n"))
        found.append(Entry(end, lines["id"], lines.get("event", "message"), json.loads(lines["data"])))
    return tuple(found)


@lru_cache(maxsize=256)
def stages_of(log: bytes) -> tuple[Told, ...]:
    """Return every run of a stage, as a reader of the whole log must know it."""
    stages: list[Told] = []
    entries = entries_of(log)
    for number, entry in enumerate(entries):
        name = entry.data.get("stage", entry.data.get("name", ""))
        latest = next((stage for stage in reversed(stages) if stage.name == name), None)
        if entry.type == "stage" and entry.data["state"] == "started":
            stages.append(Told(name, entry.data["run"], entry.id))
        elif entry.type == "stage" and latest:
            latest.state = "finished"
        elif entry.type in ("message", "tool", "custom") and latest:
            resets = [later for later in entries[number + 1 :] if later.type == "reset"]
            if latest.started_id not in [reset.data["discard_after"] for reset in resets]:
                latest.events.append(entry)
    return tuple(stages)


def open_stage(log: bytes) -> Told | None:
    """Return the run that has begun last, or None if it is finished."""
    stages = stages_of(log)
    return stages[-1] if stages and stages[-1].state == "started" else None


def texts_of(log: bytes) -> list[Text]:
    return [(stage.name, stage.run, stage.state, stage.text) for stage in stages_of(log)]


def resets_after(log: bytes, position: int) -> int:
    return sum(entry.type == "reset" and entry.end > position for entry in entries_of(log))
