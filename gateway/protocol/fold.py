"""Events to text: the same fold for the status document and for every client.

A client's text for a stage is the concatenation of its text events that no later `reset` voids
(`docs/protocol.md`, Events).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.protocol.events import TERMINAL_EVENTS, Event, EventType, Status


@dataclass(slots=True)
class StageText:
    """One run of one stage, and its text so far."""

    name: str
    run: int
    started_id: str
    parent: str = ""  # of a graph's node: the chain's stage
    state: str = "started"
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The text that stands; it is put together once, however often it is asked for."""
        if len(self.pieces) > 1:
            self.pieces[:] = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""

    def add(self, delta: str) -> None:
        """One piece more. Neighbours are joined as they grow: pieces stay few, and copies, too."""
        while self.pieces and len(self.pieces[-1]) <= len(delta):
            delta = self.pieces.pop() + delta
        self.pieces.append(delta)

    def document(self) -> dict[str, Any]:
        """The stage as the status document shows it."""
        return {"name": self.name, "run": self.run, "state": self.state, "text": self.text}


@dataclass(slots=True)
class Fold:
    """What a reader knows after the events it was fed, in order."""

    last_id: str = ""
    stages: list[StageText] = field(default_factory=list)
    ended: Status | None = None
    usage: Mapping[str, int] | None = None
    usage_lost: Mapping[str, int] | None = None
    error: Mapping[str, Any] | None = None

    @property
    def speaker(self) -> StageText | None:
        """The last stage; of a graph, its last node that has said something."""
        return next((stage for stage in reversed(self.stages) if stage.pieces or not stage.parent), None)

    @property
    def text(self) -> str:
        """The speaker's text."""
        return self.speaker.text if self.speaker else ""

    def feed(self, event_id: str, event: Event) -> StageText | None:
        """Take the next event; of a text, the stage that it belongs to."""
        data = event.data
        if event.type is EventType.RESET and "discard_after" not in data:
            self._forget()  # log_lost: the client forgets all it had
            return None
        self.last_id = event_id
        match event.type:
            case EventType.MESSAGE:
                stage = self._stage(data["stage"], data.get("run"), event_id)
                stage.add(data["delta_content"])
                return stage
            case EventType.REFUSAL:
                stage = self._stage(data["stage"], data.get("run"), event_id)
                stage.add(data["delta"])
                return stage
            case EventType.STAGE if data["state"] == "started":
                self.stages.append(StageText(data["name"], data["run"], event_id, data.get("parent", "")))
            case EventType.STAGE:
                self._finish(data["name"], data["run"], data.get("parent", ""))
            case EventType.RESET:
                self._void(data["discard_after"])
            case EventType.DONE | EventType.FAILED | EventType.CANCELLED:
                self._end(event)
            case _:
                pass  # start, tool, custom, nested events and citations add no text
        return None

    def _stage(self, name: str, run: int | None, event_id: str) -> StageText:
        """This run of a stage; without a number, or where that run is not known, the latest of its name."""
        named = [stage for stage in reversed(self.stages) if stage.name == name]
        if not named:
            self.stages.append(StageText(name, run or 1, event_id))
            return self.stages[-1]
        return next((stage for stage in named if stage.run == run), named[0])

    def _finish(self, name: str, run: int, parent: str) -> None:
        """A node may have its chain's name. One that began before this reader did is not known."""
        for stage in reversed(self.stages):
            if (stage.name, stage.run, stage.parent) == (name, run, parent):
                stage.state = "finished"
                return

    def _void(self, started_id: str) -> None:
        """Of the stage that began there nothing stands; its graph's nodes are as if they had never begun."""
        for number, stage in enumerate(self.stages):
            if stage.started_id == started_id:
                stage.pieces.clear()
                self.stages[number + 1 :] = [s for s in self.stages[number + 1 :] if s.parent != stage.name]

    def _end(self, event: Event) -> None:
        self.ended = TERMINAL_EVENTS[event.type]
        self.usage = event.data.get("usage")
        self.usage_lost = event.data.get("usage_lost")
        self.error = event.data if event.type is EventType.FAILED else None

    def _forget(self) -> None:
        self.last_id, self.ended, self.error = "", None, None
        self.usage = self.usage_lost = None
        self.stages.clear()
