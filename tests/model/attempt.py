"""An attempt as the product makes it, with the product's matcher, and what the contract requires of it.

While the attempt's events equal the stored events, nothing is written again. At the first difference, or at
an end with unmatched events, one reset is written, together with all events of this attempt for the stage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from gateway import protocol
from gateway.protocol import Event, sse
from gateway.writing.matcher import Matcher, Published
from tests.model.pair import Worker
from tests.model.script import Plan, begun, finished, planned, said_by
from tests.model.told import Said, Told, open_stage, resets_after, stages_of

SEAMLESS, RESET = "take-overs without a seam", "take-overs with a reset"


class Attempt:
    """One claim that continues where earlier attempts failed."""

    def __init__(
        self, worker: Worker, number: int, log: bytes, messages: Iterable[sse.Message], plan: Plan
    ) -> None:
        self.worker, self.number, self.prefix = worker, number, log
        self.over = self.done = False  # over: it writes no more; done: it has ended the stream
        self.ended: list[tuple[str, int, list[Said]]] = []
        self.met: Counter[str] = Counter()
        self.todo: list[Event] = []
        self.own: list[Event] = []
        self.out: list[Event] = []  # events that were made and not yet sent
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
        """Make the next `count` events."""
        for event in self.todo[:count]:
            self.own.append(event)
            fresh = self.matcher.take(event)
            assert fresh == self._owed(event)
            self.out += fresh
            self.met[SEAMLESS] += not self.gave_up and len(self.own) == len(self.theirs)
        self.todo = self.todo[count:]

    def end_stage(self, last: bool, plan: Plan, stages: int) -> None:
        """End the stage, even if the plan has more events; then end the stream or begin another stage."""
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
        """Return the frames of the events to be sent, for their final positions."""
        frames = b""
        for event in self.out:
            frames += sse.encode(event, self.worker.end + len(frames), self.worker.token[:4])
        return frames

    @property
    def settled(self) -> bool:
        """Return whether all its events were sent and acknowledged."""
        return not self.out and self.worker.unanswered is None

    def check(self, log: bytes) -> None:
        """Check that it holds the job, has written all its events, and that the log of its claim is still
        there."""
        expected = self.ended + ([] if self.done else [(self.name, self.run, self.standing)])
        stages = stages_of(log)[-len(expected) :]
        found = [(told.name, told.run, [entry.said for entry in told.events]) for told in stages]
        assert found == expected
        assert (open_stage(log) is None) == self.done
        assert resets_after(log, len(self.prefix)) == self.met[RESET]

    @property
    def standing(self) -> list[Said]:
        """Return the events that a reader must have of this stage now."""
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
        """Return the events to write at this event, the last of its own. None: at the end of the stage."""
        own, theirs = [said_by(said) for said in self.own], self.theirs
        matched = len(own) - bool(event) >= len(theirs)  # before this event, all stored events were matched
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
        """Return the event with the id in the log: the end of a stored tool call uses the stored id of the
        call."""
        if self.gave_up or "call_id" not in event.data:
            return event
        call_id = event.data["call_id"]
        return Event(event.type, event.data | {"call_id": self.call_ids.get(call_id, call_id)})


def _turn(stages: int) -> tuple[str, int]:
    data = begun(stages).data
    return data["name"], data["run"]
