"""The output of chains: free scripts, and scripts that repeat the stored events in whole or in part."""

from __future__ import annotations

from dataclasses import dataclass

from gateway import protocol
from gateway.protocol import Event, EventType
from tests.model.told import Entry, Said, open_stage, stages_of

STAGES = ("draft", "answer")
TOOL, NEXT, VOID = "\0tool", "\0next", "\0void"  # a tool call; the next stage; a reset of this stage


@dataclass(frozen=True, slots=True)
class Plan:
    """How an attempt's events relate to the stored events: `differs` and `short` take effect from number
    `at`."""

    kind: str
    at: int
    texts: tuple[str, ...]


def begun(number: int) -> Event:
    """Return the start of the run with this number; two names alternate."""
    name, run = STAGES[number % 2], 1 + number // 2
    return protocol.stage(name, run=run, index=number % 2, count=2)


def finished(name: str, run: int) -> Event:
    return protocol.stage(name, run=run, index=STAGES.index(name), count=2, finished=True)


def event_of(text: str, stage: str, call_id: str) -> Event:
    if text != TOOL:
        return protocol.text(text, deployment="model", stage=stage)
    data = {"name": "t", "call_id": call_id, "stage": stage, "state": "finished", "output": "x"}
    return Event(EventType.TOOL, data)


def free(items: list[str], log: bytes, tag: str) -> list[Event]:
    """Return events that are valid after any log."""
    events: list[Event] = []
    told, number = open_stage(log), len(stages_of(log))
    name, run, started_id = (told.name, told.run, told.started_id) if told else ("", 0, "")
    for item in items:
        if not name:
            events.append(begun(number))
            name, run, started_id = STAGES[number % 2], 1 + number // 2, ""
            number += 1
        if item == NEXT:
            events.append(finished(name, run))
            name = ""
        elif item != VOID:
            events.append(event_of(item, name, tag))
        elif started_id:
            events.append(protocol.reset(attempt=9, stage_name=name, discard_after=started_id, reason="free"))
    return events


def planned(plan: Plan, theirs: list[Entry], stage: str, tag: str) -> list[Event]:
    """Return an attempt's events for a stage with these stored events. Its tool calls have their own ids."""
    new = [event_of(text, stage, tag) for text in plan.texts]
    again = [_again(entry, tag) for entry in theirs]
    at = plan.at % (len(again) + 1)
    match plan.kind:
        case "same":
            return again + new
        case "short":
            return again[:at]
        case "differs":
            return [*again[:at], event_of("other", stage, tag), *again[at + 1 :], *new]
    return new


def said_by(event: Event) -> Said:
    data = {name: value for name, value in event.data.items() if name != "call_id"}
    return event.type.value or "message", data


def _again(entry: Entry, tag: str) -> Event:
    data = entry.data | ({"call_id": tag} if "call_id" in entry.data else {})
    return Event(EventType("" if entry.type == "message" else entry.type), data)
