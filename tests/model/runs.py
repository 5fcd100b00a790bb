"""Attempts as the product makes them: with its own matcher, they continue where earlier attempts failed."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from gateway.protocol import sse
from tests.model import script
from tests.model.attempt import Attempt
from tests.model.life import PICK, Life
from tests.model.pair import Worker, one
from tests.model.script import Plan
from tests.model.streams import LEASE_MS
from tests.model.told import stages_of

KINDS = st.sampled_from(["same", "same", "differs", "short", "other"])
TEXTS = st.lists(st.sampled_from(["a", "b", "\ud800\n\n", script.TOOL]), min_size=1, max_size=4).map(tuple)
PLANS = st.builds(Plan, KINDS, st.integers(0, 6), TEXTS)
CALLS = st.sampled_from(["once", "once", "twice", "answer lost"])


class Runs(Life):
    """Deliveries and take-overs."""

    def open_runs(self, plans: list[Plan]) -> None:
        self.attempts: list[Attempt] = []
        self.counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for number, plan in enumerate(plans):
            self.fault_01_take_over(plan, "once", 3 + number)

    @precondition(lambda self: self.mail.sent)
    @rule(plan=PLANS)
    def deliver(self, plan: Plan) -> None:
        """Deliver a message. It is delivered again while another worker holds the job, and settled by a claim
        or the end."""
        name = self.mail.sent.pop(0)
        if self._begin(plan, "once") == "held":
            self.mail.sent.append(name)

    @precondition(lambda self: self.model.open)
    @rule(plan=PLANS, calls=st.sampled_from(["once", "twice"]), count=st.integers(0, 6))
    def fault_01_take_over(self, plan: Plan, calls: str, count: int) -> None:
        """Start another attempt: the holder, if there is one, has died, and its lease runs out."""
        if self.model.holder and self.model.lease_left:
            self.pass_time(LEASE_MS)
        if self._begin(plan, calls) == "claimed":
            self.attempts[-1].say(count)
            self._flush(self.attempts[-1], "", "", "once")

    @precondition(lambda self: any(not attempt.over for attempt in self.attempts))
    @rule(pick=PICK, count=st.integers(1, 4), calls=CALLS)
    def say(self, pick: int, count: int, calls: str) -> None:
        attempt = self._one(pick)
        attempt.say(count)
        self._flush(attempt, "", "", calls)

    @precondition(lambda self: any(not attempt.over for attempt in self.attempts))
    @rule(pick=PICK, last=st.sampled_from([False, False, False, True]), plan=PLANS, calls=CALLS)
    def end_stage(self, pick: int, last: bool, plan: Plan, calls: str) -> None:
        """End the stage with a checkpoint, or end the stage and the stream, in one append."""
        attempt = self._one(pick)
        if attempt.worker.unanswered and not self._resend(attempt):
            return
        attempt.say(len(attempt.todo))
        attempt.end_stage(last, plan, len(stages_of(self.model.log)))
        self._flush(attempt, "done" if last else "", "" if last else "checkpoint", calls)
        attempt.done = last and not attempt.over
        attempt.over = attempt.over or last

    @invariant()
    def a_reader_is_not_misled(self) -> None:
        """Check that the stored events of the stage are the holder's, or a part that it is still
        repeating."""
        for attempt in self.attempts:
            holds = self.model.token == attempt.worker.token and (attempt.done or not attempt.over)
            whole = attempt.worker.end == len(self.model.log) and self._stands(attempt)
            if holds and whole and attempt.settled:
                attempt.check(self.model.log)
                self.seen.update(attempt.met - self.counted[attempt.worker.token])
                self.counted[attempt.worker.token] = attempt.met.copy()

    def _stands(self, attempt: Attempt) -> bool:
        """Return whether all that it found and wrote is stored in the log."""
        log, memory = self.model.log, attempt.worker.memory
        return log.startswith(attempt.prefix) and all(log.startswith(memory[at], at) for at in memory)

    def _one(self, pick: int) -> Attempt:
        """Return the attempt that holds the job, or one that believes so. An attempt that learned otherwise
        has stopped."""
        going = [attempt for attempt in self.attempts if not attempt.over]
        holders = [attempt for attempt in going if attempt.worker.token == self.model.holder]
        return one(holders if holders and pick % 8 else going, pick)

    def _begin(self, plan: Plan, calls: str) -> str:
        worker = Worker(self.token(), 0)
        word = self.claim_both(worker, calls)
        self.workers.remove(worker)
        if word == "claimed":
            messages = self.do(self._published()) if self.model.attempt > 1 else []
            self.attempts = [attempt for attempt in self.attempts if not attempt.over][-3:]
            self.attempts.append(Attempt(worker, self.model.attempt, self.model.log, messages, plan))
        return word

    async def _published(self) -> list[sse.Message]:
        messages, after, at_end = [], None, False
        while not at_end:
            piece = await self.log.read(self.stream.id, after)
            messages += sse.Decoder().feed(piece.frames)
            after, at_end = piece.last, piece.at_end
        return messages

    def _flush(self, attempt: Attempt, status: str, checkpoint: str, calls: str) -> None:
        """Repeat the append without an answer first; then append all gathered events at once."""
        if attempt.worker.unanswered and not self._resend(attempt):
            return
        if attempt.out:
            frames, attempt.out = attempt.frames, []
            self._settle(attempt, self.send(attempt.worker, frames, status, checkpoint, calls))

    def _resend(self, attempt: Attempt) -> bool:
        self._settle(attempt, self.send(attempt.worker, b"", "", "", "once"))
        return not attempt.over

    def _settle(self, attempt: Attempt, word: str) -> None:
        """Write a lost tail again from memory; else release the job, so that another attempt matches the
        stored events."""
        worker = attempt.worker
        if word == "lost" and self.restore_tail(worker):
            word = self.send(worker, b"", "", "", "once")
        if word == "lost":
            self.append_both(worker, (len(self.model.log), b"", "queued", ""))
        attempt.over = attempt.over or word not in ("ok", "duplicate")
