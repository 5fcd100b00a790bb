"""Events to text: the same fold for the status document and for every client.

A client's text for a stage is the concatenation of its text events that no later `reset` voids
(`docs/protocol.md`, Events).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.protocol import TERMINAL_EVENTS, Event, EventType, Status


@dataclass(slots=True)
class StageText:
    """One run of one stage, and its text so far."""

    name: str
    run: int
    started_id: str
    state: str = "started"
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The text that stands."""
        return "".join(self.pieces)

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
    error: Mapping[str, Any] | None = None

    @property
    def text(self) -> str:
        """The last stage's text."""
        return self.stages[-1].text if self.stages else ""

    def feed(self, event_id: str, event: Event) -> None:
        """Take the next event."""
        data = event.data
        if event.type is EventType.RESET and "discard_after" not in data:
            self._forget()  # log_lost: the client forgets all it had
            return
        self.last_id = event_id
        match event.type:
            case EventType.MESSAGE:
                self._stage(data["stage"], event_id).pieces.append(data["delta_content"])
            case EventType.STAGE if data["state"] == "started":
                self.stages.append(StageText(data["name"], data["run"], event_id))
            case EventType.STAGE:
                self._stage(data["name"], event_id).state = "finished"
            case EventType.RESET:
                for stage in self.stages:
                    if stage.started_id == data["discard_after"]:
                        stage.pieces.clear()
            case EventType.DONE | EventType.FAILED | EventType.CANCELLED:
                self._end(event)
            case _:
                pass  # start, tool and custom events add no text

    def _stage(self, name: str, event_id: str) -> StageText:
        """The latest run of a stage of this name."""
        for stage in reversed(self.stages):
            if stage.name == name:
                return stage
        self.stages.append(StageText(name, 1, event_id))
        return self.stages[-1]

    def _end(self, event: Event) -> None:
        self.ended = TERMINAL_EVENTS[event.type]
        self.usage = event.data.get("usage")
        self.error = event.data if event.type is EventType.FAILED else None

    def _forget(self) -> None:
        self.last_id, self.ended, self.usage, self.error = "", None, None, None
        self.stages.clear()
