"""Plan what is written for the lines of a request: frames and fields of the record, in one append. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.producer import said
from gateway.producer.course import Course
from gateway.producer.lines import Line
from gateway.protocol import TERMINAL_EVENTS, Cursor, Event, sse
from gateway.protocol.errors import HoldfastError, Invalid
from gateway.protocol.fold import Fold
from gateway.protocol.sse import Message
from gateway.settings import Settings
from gateway.store.record import Record, ending
from gateway.writing.matcher import Published
from gateway.writing.writer import TOO_LONG

_NEW = "new"  # placeholder for the id of an event that is not written yet


@dataclass(slots=True)
class Plan:
    """The planned append: whole frames, the id of the last frame, and fields of the record.

    `status` is a final status, or empty if the stream does not end.
    """

    frames: bytes
    last_id: str
    status: str
    course: str
    final: Event | None
    fields: dict[str, Any] = field(default_factory=dict)


class Planning:
    """Processes lines that were not counted yet, from the position that the record stores.

    `messages` is the log. It is empty if `needs_log` returned False.
    """

    def __init__(
        self, record: Record, log_end: int, messages: Sequence[Message], settings: Settings, age_ms: int
    ) -> None:
        self._record = record
        self._log_end = log_end
        self._settings = settings
        self._age_ms = age_ms
        self._messages = messages
        before = [one for one in messages if Cursor(one.id).offset < record.claimed_at]
        self._course = Course.read(record, Published.read(before))
        self._events: list[Event] = []
        self._fields: dict[str, Any] = {}
        self._final: Event | None = None

    @staticmethod
    def needs_log(record: Record, lines: Sequence[Line]) -> bool:
        """Return whether the log is needed.

        It is needed if a stage may still have to be matched, or if the text of a stage is its result.
        """
        ends = (line for line in lines if line.type == "stage" and line.given["state"] == "finished")
        return Course.needs_log(record) or any("result" not in line.given for line in ends)

    def plan(self, lines: Sequence[Line], position: int) -> Plan:
        """Return the planned append for these lines. `position` is the count of lines after them.

        Raises Invalid, which names the first line that breaks a rule.
        """
        for line in lines:
            try:
                self._take(line)
            except Invalid as error:
                raise line.broken(error) from None
            except HoldfastError as error:
                raise Invalid(f"line {line.number}", error.detail) from None
        frames, last_id = self._encoded(self._events)
        if self._log_end + len(frames) > self._settings.max_log and self._final is None:
            self._final, self._fields = TOO_LONG, {}
            frames, last_id = self._encoded([TOO_LONG])
        state, fields = self._course.state(), self._fields
        if said_now := sum(not event.type for event in self._events):
            fields["pieces"] = self._record.pieces + said_now
        if self._final is None:
            return Plan(frames, last_id, "", state, None, fields | {"lines": position, "course": state})
        status = TERMINAL_EVENTS[self._final.type].value
        fields |= ending(self._final)
        if self._final.data.get("usage"):
            fields["pieces"] = 0
        if self._final is not TOO_LONG:
            fields["lines"] = position
        return Plan(frames, last_id, status, state, self._final, fields)

    def _take(self, line: Line) -> None:
        given = line.given
        match line.type:
            case "stage" if given["state"] == "started":
                if "result" in given:
                    raise Invalid("result", "comes with the state finished")
                self._write(line, self._course.begin(_text("name", given["name"])))
            case "stage" if given["state"] == "finished":
                self._finish(line)
            case "stage":
                raise Invalid("state", "must be started or finished")
            case "done":
                said.may_end(self._course)
                reason, usage = given.get("finish_reason", "stop"), given.get("usage", {})
                attempts = self._record.attempt
                self._end(said.done(reason, usage, attempts=attempts, duration_ms=self._age_ms))
            case "failed":
                given = {"message": "", "retryable": False, **given}
                self._end(said.failed(given["code"], given["message"], given["retryable"]))
            case _:
                self._write(line, self._course.take(self._said(line)))

    def _said(self, line: Line) -> Event:
        given, stage = line.given, self._within(line.given["stage"], "stage")
        if line.type == "text":
            return said.text(given["text"], chain=self._record.chain, stage=stage)
        if line.type == "custom":
            return said.custom(given["name"], given["data"], stage=stage)
        begins = given["state"] == "started"
        if ("output" if begins else "input") in given:
            raise Invalid("output" if begins else "input", f"does not come with the state {given['state']}")
        value = given.get("input" if begins else "output")
        return said.tool(given["name"], given["call_id"], given["state"], value, stage=stage)

    def _finish(self, line: Line) -> None:
        stage = self._within(line.given["name"], "name")
        events = self._course.end()
        self._write(line, events)
        result = line.given["result"] if "result" in line.given else self._text_of(stage)
        self._fields |= self._course.finished(result, self._settings.max_checkpoints)

    def _within(self, stage: Any, name: str) -> str:
        if not self._course.stage or stage != self._course.stage:
            raise Invalid(name, "must be the stage that has begun and is not finished")
        return self._course.stage

    def _text_of(self, stage: str) -> str:
        """Return the text of the stage: the text in the log, and the text of this request."""
        if self._course.passes_over:
            return ""
        fold = Fold()
        for message in self._messages:
            fold.feed(message.id, message.event())
        for event in self._events:
            fold.feed(_NEW, event)
        return next((one.text for one in reversed(fold.stages) if one.name == stage), "")

    def _write(self, line: Line, events: list[Event]) -> None:
        most = self._settings.max_event
        for event in events:
            if len(sse.encode(event, self._log_end, "0000")) > most:
                raise Invalid("event", f"may have {most} bytes (GATEWAY_MAX_EVENT_BYTES)")
        self._events += events

    def _end(self, event: Event) -> None:
        self._final = event
        self._events.append(event)

    def _encoded(self, events: Sequence[Event]) -> tuple[bytes, str]:
        at, last_id, frames, tag = self._log_end, self._record.last_id, [], self._record.token[:4]
        for event in events:
            frame = sse.encode(event, at, tag)
            last_id = f"{at}-{tag}"
            at += len(frame)
            frames.append(frame)
        return b"".join(frames), last_id


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise Invalid(name, "must be a string")
    return value
