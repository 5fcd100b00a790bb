"""An attempt as the product makes one, with its own matcher, and what the contract wants of it.

While its events are those that stand, nothing is repeated; at the first difference, or at an end with
events unmatched, one reset goes out together with all that the attempt has said of the stage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from gateway import protocol, sse
from gateway.protocol import Event
from gateway.writing.matcher import Matcher, Published
from tests.model.pair import Worker
from tests.model.script import Plan, begun, finished, planned, said_by
from tests.model.told import Said, Told, open_stage, resets_after, stages_of

SEAMLESS, RESET = "take-overs without a seam", "take-overs with a reset"


class Attempt:
    """One claim that goes on where others fell."""

    def __init__(
        self, worker: Worker, number: int, log: bytes, messages: Iterable[sse.Message], plan: Plan
    ) -> None:
        self.worker, self.number, self.prefix = worker, number, log
        self.over = self.done = False  # it writes no more; it has written the stream's end
        self.ended: list[tuple[str, int, list[Said]]] = []
        self.met: Counter[str] = Counter()
        self.todo: list[Event] = []
        self.own: list[Event] = []
        self.out: list[Event] = []  # made, and not yet sent
        told = open_stage(log)
        published = Published.read(messages) if number > 1 else Published()
        self.matcher = Matcher(published, number)
        if told is None:
            assert (published.started_id, published.events) == ("", [])
            assert number == 1 or published.finished == [(told.name, told.run) for told in stages_of(log)]
            self.out.append(begun(len(stages_of(log))))
        else:
            found = (published.stage, published.run, published.started_id)
            assert found == (told.name, told.run, told.started_id)
        self._enter(told, len(stages_of(log)), published, plan)

    def say(self, count: int) -> None:
        """The next of its events."""
        for event in self.todo[:count]:
            self.own.append(event)
            fresh = self.matcher.take(event)
            assert fresh == self._owed(event)
            self.out += fresh
            self.met[SEAMLESS] += not self.gave_up and len(self.own) == len(self.theirs)
        self.todo = self.todo[count:]

    def end_stage(self, last: bool, plan: Plan, stages: int) -> None:
        """The stage is at its end, whatever was planned; then the stream's, or another stage."""
        fresh = self.matcher.end()
        assert fresh == self._owed(None)
        self.out += [*fresh, finished(self.name, self.run)]
        self.ended.append((self.name, self.run, self.standing))
        if last:
            done = protocol.done(finish_reason="stop", usage={}, attempts=self.number, duration_ms=5)
            self.out.append(done)
        else:
            self.out.append(begun(stages))
            self._enter(None, stages, Published(), plan)

    @property
    def frames(self) -> bytes:
        """What is to be sent, as it is to stand."""
        frames = b""
        for event in self.out:
            frames += sse.encode(event, self.worker.end + len(frames), self.worker.token[:4])
        return frames

    @property
    def settled(self) -> bool:
        """Whether all that it has said was sent, and answered."""
        return not self.out and self.worker.unanswered is None

    def check(self, log: bytes) -> None:
        """It holds the job, everything is written, and what stood at its claim stands."""
        expected = self.ended + ([] if self.done else [(self.name, self.run, self.standing)])
        stages = stages_of(log)[-len(expected) :]
        found = [(told.name, told.run, [entry.said for entry in told.events]) for told in stages]
        assert found == expected
        assert (open_stage(log) is None) == self.done
        assert resets_after(log, len(self.prefix)) == self.met[RESET]

    @property
    def standing(self) -> list[Said]:
        """What a reader must have of this stage now."""
        own = [said_by(event) for event in self.own]
        return self.theirs if not self.gave_up and len(own) <= len(self.theirs) else own

    def _enter(self, told: Told | None, stages: int, published: Published, plan: Plan) -> None:
        self.name, self.run = (told.name, told.run) if told else _turn(stages)
        self.started_id = told.started_id if told else ""
        theirs = told.events if told else []
        self.theirs = [entry.said for entry in theirs]
        self.todo = planned(plan, theirs, self.name, self.worker.token[:4])
        self.own = []
        self.their_ids = [entry.data.get("call_id", "") for entry in theirs]
        self.call_ids: dict[str, str] = {}
        self.gave_up = False
        self.matcher = Matcher(published, self.number)

    def _owed(self, event: Event | None) -> list[Event]:
        """What must be written at this event, the last of its own; None: at the stage's end."""
        own, theirs = [said_by(said) for said in self.own], self.theirs
        matched = len(own) - bool(event) >= len(theirs)  # before this event: all that stood was said again
        if self.gave_up or matched:
            return [self._known_as(event)] if event else []
        if event and own == theirs[: len(own)]:
            if "call_id" in event.data:
                self.call_ids[event.data["call_id"]] = self.their_ids[len(own) - 1]
            return []
        self.gave_up = True
        self.met[RESET] += 1
        reset = protocol.reset(
            attempt=self.number,
            stage_name=self.name,
            discard_after=self.started_id,
            reason="attempt_differs",
        )
        return [reset, *self.own]

    def _known_as(self, event: Event) -> Event:
        """A tool call that stands in the log ends under the id that it has there."""
        if self.gave_up or "call_id" not in event.data:
            return event
        call_id = event.data["call_id"]
        return Event(event.type, event.data | {"call_id": self.call_ids.get(call_id, call_id)})


def _turn(stages: int) -> tuple[str, int]:
    data = begun(stages).data
    return data["name"], data["run"]
