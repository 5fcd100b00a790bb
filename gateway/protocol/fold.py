"""Fold events to text. The status document and every client use the same fold.

A client's text for a stage is the concatenation of the stage's text events, without those that a later
`reset` makes void (`docs/protocol.md`, Events).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.protocol.events import TERMINAL_EVENTS, Event, EventType, Status


@dataclass(slots=True)
class StageText:
    """One run of one stage, and the text of this run so far."""

    name: str
    run: int
    started_id: str
    parent: str = ""  # for a graph's node: the name of the chain's stage
    state: str = "started"
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The valid text. The pieces are joined only once, even if this is read often."""
        if len(self.pieces) > 1:
            self.pieces[:] = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""

    def add(self, delta: str) -> None:
        """Append one piece.

        Short neighbours are joined when a longer piece comes. So there are few pieces, and few copies.
        """
        while self.pieces and len(self.pieces[-1]) <= len(delta):
            delta = self.pieces.pop() + delta
        self.pieces.append(delta)

    def document(self) -> dict[str, Any]:
        """Return the stage as the status document shows it."""
        return {"name": self.name, "run": self.run, "state": self.state, "text": self.text}


@dataclass(slots=True)
class Fold:
    """The state of a reader after the events that it was fed, in order."""

    last_id: str = ""
    stages: list[StageText] = field(default_factory=list)
    ended: Status | None = None
    usage: Mapping[str, int] | None = None
    usage_lost: Mapping[str, int] | None = None
    error: Mapping[str, Any] | None = None

    @property
    def speaker(self) -> StageText | None:
        """The last stage of the chain. In a graph, the last node that has text."""
        return next((stage for stage in reversed(self.stages) if stage.pieces or not stage.parent), None)

    @property
    def text(self) -> str:
        """The text of `speaker`."""
        return self.speaker.text if self.speaker else ""

    def feed(self, event_id: str, event: Event) -> StageText | None:
        """Apply the next event.

        Returns the stage to which a text event belongs, and None for other events.
        """
        data = event.data
        if event.type is EventType.RESET and "discard_after" not in data:
            self._forget()  # the log is lost: the client forgets everything
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
        """Return this run of a stage.

        Without a run number, or if this run is not known, return the latest run of this stage.
        """
        named = [stage for stage in reversed(self.stages) if stage.name == name]
        if not named:
            self.stages.append(StageText(name, run or 1, event_id))
            return self.stages[-1]
        return next((stage for stage in named if stage.run == run), named[0])

    def _finish(self, name: str, run: int, parent: str) -> None:
        """Mark the run of a stage or node as finished.

        `parent` is compared too, because a node may have the same name as a stage of the chain. A stage that
        began before this reader's first event is not known, and is skipped.
        """
        for stage in reversed(self.stages):
            if (stage.name, stage.run, stage.parent) == (name, run, parent):
                stage.state = "finished"
                return

    def _void(self, started_id: str) -> None:
        """Remove the text of the stage that began at this event, and remove all nodes of its graph."""
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
