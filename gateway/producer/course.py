"""The position of a producer within its stages, and the events to write for each of its calls. No I/O.

Each stage comes once, in the given order. If an earlier producer finished a stage, all events of this
producer in that stage are dropped. If an earlier producer only began a stage, the events are matched with the
published events.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gateway import protocol
from gateway.protocol import Event, sse
from gateway.protocol.errors import Invalid, TooLarge
from gateway.store.record import CHECKPOINT, Record
from gateway.writing.matcher import Matcher, Published

ONLY_RUN = 1


class Course:
    """The position of one claim in the stages of its stream."""

    def __init__(self, record: Record, published: Published, *, reason: str = "attempt_differs") -> None:
        """`published`: the events of the unfinished stage, read when this producer claimed the stream."""
        self._names: Sequence[str] = record.stages
        self._kept = {
            name: raw
            for name in record.stages
            if (raw := record.checkpoints.get(f"{name} {ONLY_RUN}")) is not None
        }
        self._attempt = record.attempt
        self._published = published
        self._reason = reason
        self.stage = ""  # name of the stage that was begun and not finished
        self.passes_over = False  # True: an earlier producer finished the stage
        self._is_past = False  # True: no stage needs matching any more
        self._matcher = Matcher(Published(), record.attempt)

    @staticmethod
    def needs_log(record: Record) -> bool:
        """Return whether `read` needs the published events, because a stage may still have to be matched."""
        return record.attempt > 1 and not (record.course and json.loads(record.course)["past"])

    @classmethod
    def read(cls, record: Record, published: Published) -> Course:
        """Restore the position from `record.course`, which `state` returned.

        `published` is the same as in the constructor.
        """
        course = cls(record, published)
        if not record.course:
            return course
        state: Mapping[str, Any] = json.loads(record.course)
        course.stage, course.passes_over = state["stage"], state["passes_over"]
        course._is_past = state["past"]
        if course.stage and not course.passes_over:
            course._match()
            course._matcher.go_on(state["matched"], state["calls"])
        return course

    def state(self) -> str:
        """Return the state that another process needs to continue from here, as JSON."""
        matched, calls = self._matcher.state()
        is_past = self._is_past or (bool(self.stage) and not self.passes_over and matched < 0)
        state = {"stage": self.stage, "passes_over": self.passes_over, "matched": matched, "calls": calls}
        return sse.dumps(state | {"past": is_past}).decode()

    def is_finished(self, stage: str) -> bool:
        """Return whether the record has the result of this stage."""
        return stage in self._kept

    def result(self, stage: str) -> Any:
        """Return the result of a finished stage."""
        return json.loads(self._kept[stage])["result"]

    @property
    def is_within(self) -> bool:
        """Return whether the log has a stage that was begun and not finished when this producer came."""
        return bool(self._published.stage) and not self.is_finished(self._published.stage)

    @property
    def is_whole(self) -> bool:
        """Return whether every stage is finished."""
        return len(self._kept) == len(self._names)

    def begin(self, stage: str) -> list[Event]:
        """Begin a stage. Return its `started` event, unless the log has it.

        Raises Invalid if this stage may not begin now.
        """
        if stage not in self._names:
            raise Invalid("stage", "must be one of the stream's stages")
        if self.stage:
            raise Invalid("stage", "may begin when the one before it is finished")
        self.passes_over = self.is_finished(stage)
        if not self.passes_over:
            following = next(name for name in self._names if name not in self._kept)
            if stage != following:
                raise Invalid("stage", "must come in the order in which the stages were given")
        self.stage = stage
        if self.passes_over:
            return []
        self._match()
        return [] if self._stands(stage) else [self._event(finished=False)]

    def take(self, event: Event) -> list[Event]:
        """Compare an event of the present stage with the published events. Return the events to write."""
        return [] if self.passes_over else self._matcher.take(event)

    def end(self) -> list[Event]:
        """Return the events to write at the end of the stage. Call `finished` after that."""
        return [] if self.passes_over else [*self._matcher.end(), self._event(finished=True)]

    def finished(self, result: Any, most: int) -> dict[str, bytes]:
        """Leave the stage with this result. Return the fields of the record to write with its end.

        Raises TooLarge if all results together would take more than `most` bytes. Raises TypeError or
        ValueError if the result is not JSON.
        """
        fields = {}
        if not self.passes_over:
            raw = sse.dumps({"result": result, "usage": {}})
            if len(raw) + sum(map(len, self._kept.values())) > most:
                raise TooLarge(
                    f"the results of a stream's stages may take {most} bytes (GATEWAY_MAX_CHECKPOINT_BYTES)"
                )
            self._kept[self.stage] = raw
            self._is_past = True
            fields = {f"{CHECKPOINT}{self.stage} {ONLY_RUN}": raw}
        self.stage, self.passes_over = "", False
        self._matcher = Matcher(Published(), self._attempt)
        return fields

    def _match(self) -> None:
        of = self._published if self._stands(self.stage) else Published()
        self._matcher = Matcher(of, self._attempt, self._reason)

    def _stands(self, stage: str) -> bool:
        return self._published.stage == stage

    def _event(self, *, finished: bool) -> Event:
        index = self._names.index(self.stage)
        return protocol.stage(
            self.stage, run=ONLY_RUN, index=index, count=len(self._names), finished=finished
        )
