"""Where a producer is within its stages: which events are written for what it says. No I/O.

The stages come in their order, each once. A stage that an earlier producer has finished is passed over: what
is said there is dropped. In the stage that an earlier one has begun it is matched with what stands.
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
    """The way of one claim through its stream's stages."""

    def __init__(self, record: Record, published: Published, *, reason: str = "attempt_differs") -> None:
        """`published`: what stood in the log, of the stage that is not finished, when this producer came."""
        self._names: Sequence[str] = record.stages
        self._kept = {
            name: raw
            for name in record.stages
            if (raw := record.checkpoints.get(f"{name} {ONLY_RUN}")) is not None
        }
        self._attempt = record.attempt
        self._published = published
        self._reason = reason
        self.stage = ""  # that was begun and is not at its end
        self.passes_over = False  # it was finished by an earlier producer
        self._is_past = False  # the stage that had begun before is left behind
        self._matcher = Matcher(Published(), record.attempt)

    @staticmethod
    def needs_log(record: Record) -> bool:
        """Whether `read` takes what was published: a stage that had begun may still have to be matched."""
        return record.attempt > 1 and not (record.course and json.loads(record.course)["past"])

    @classmethod
    def read(cls, record: Record, published: Published) -> Course:
        """As `state` has left it. `published`: as for a new one."""
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
        """What another process needs to go on from here, in JSON."""
        matched, calls = self._matcher.state()
        is_past = self._is_past or (bool(self.stage) and not self.passes_over and matched < 0)
        state = {"stage": self.stage, "passes_over": self.passes_over, "matched": matched, "calls": calls}
        return sse.dumps(state | {"past": is_past}).decode()

    def is_finished(self, stage: str) -> bool:
        """Whether its end and its result stand."""
        return stage in self._kept

    def result(self, stage: str) -> Any:
        """What a finished stage came to."""
        return json.loads(self._kept[stage])["result"]

    @property
    def is_within(self) -> bool:
        """Whether a stage stands in the log that had begun and was not finished when this producer came."""
        return bool(self._published.stage) and not self.is_finished(self._published.stage)

    @property
    def is_whole(self) -> bool:
        """Whether every stage is finished."""
        return len(self._kept) == len(self._names)

    def begin(self, stage: str) -> list[Event]:
        """A stage begins: its event, unless that stands. Raises Invalid for one whose turn it is not."""
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
        """Something is said in the stage that has begun: what is to be written for it."""
        return [] if self.passes_over else self._matcher.take(event)

    def end(self) -> list[Event]:
        """The stage's end: what is to be written. Then comes `finished`."""
        return [] if self.passes_over else [*self._matcher.end(), self._event(finished=True)]

    def finished(self, result: Any, most: int) -> dict[str, bytes]:
        """The stage is left, with this result; the fields of the record that go with its end.

        Raises TooLarge where the results would take more than `most` bytes in all, and TypeError or
        ValueError for what is no JSON.
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
