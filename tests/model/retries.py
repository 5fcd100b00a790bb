"""Random lives of the product's own attempts: retried, cut, taken over, while the store loses tails of the
log.

Each delivery is run by the product's `Runner` (`handled`). Its calls of the store are executed one by one, on
the real log and on the model. Between two calls the store may lose its tail, another worker may take over,
and time may pass. The checks: a finished stage has exactly the text of the try that completed it; while a
stage is repeated, the stored text begins with the words of the try; and no claim gives one id to two texts.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, cast
from unittest.mock import patch

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from gateway import protocol
from gateway.protocol import Event
from gateway.protocol.errors import CursorLost, StoreUnavailable
from gateway.queue.overdue import ENDINGS
from gateway.store.log import Log
from gateway.store.record import CHECKPOINT, Answer, Claim
from gateway.streams import service
from tests.model.handled import Call, CutError, Handled, Loop, rest
from tests.model.life import PICK, RARELY, VERBS, Life
from tests.model.pair import one
from tests.model.script import STAGES
from tests.model.store import UNIT_MS
from tests.model.streams import LEASE_MS
from tests.model.told import Told, entries_of, open_stage, stages_of

AGAIN, MATCHED = "stages tried again", "tries that met what stood"
HANDED_OVER, REWRITTEN = "jobs handed over", "tails written again"
# The result of a call of the store: executed; executed twice, as a repeated call may be; executed with its
# answer lost; not executed.
HOWS = st.sampled_from(["done"] * 8 + ["twice", "answer lost", "refused"])
WORDS = st.lists(st.sampled_from(["same"] * 5 + ["other"]), min_size=1, max_size=4)
PAUSES = st.sampled_from([0.0, 0.05, 0.5, 2.0, 30.0])
# Losses between two calls of the store: nothing, or this number of frames of the log.
LOSSES = st.lists(st.sampled_from([0, 0, 1, 2, 3]), min_size=1, max_size=6)
PAUSE_SECONDS = 30.0  # longer than any retry pause or silence of a writer
MOST_CALLS = 1000  # calls in one delivery


class RetryMachine(Life):
    """One stream, its deliveries, and the faults of both."""

    loop_class = Loop
    # `LogMachine` has these faults. Here they would only use up steps, and are not the subject of this
    # machine.
    fault_06_queue_refuses = fault_31_clock_goes_back = fault_34_sweeps_and_asks_coincide = None  # type: ignore[assignment]

    @rule(verb=VERBS, happens=RARELY)
    def gateway(self, verb: str, happens: bool = True) -> None:
        """Do an action of the gateway, as in any life. Cancels are rare, because a cancelled stream has no
        more attempts."""
        if verb != "cancel" or happens:
            super().gateway(verb)

    @initialize(bucket=st.integers(0, 255), confirmed=st.booleans())
    def open(self, bucket: int, confirmed: bool) -> None:
        self.patched = ExitStack()
        self.patched.enter_context(patch.object(protocol, "new_token", self.token))
        self.patched.enter_context(
            patch.object(service, "REFUSED_AFTER_SECONDS", 0.0)
        )  # the clock stands still
        self.handled: list[Handled] = []
        self.by_tag: dict[str, Handled] = {}
        self.open_life(bucket)
        if confirmed:
            self.gateway("confirm")
        self._begin()
        self._do_calls(1, "done")

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            if hasattr(self, "patched"):
                self.patched.close()

    def at_the_end(self) -> None:
        """Let every process stop and release its job; then check as for any life."""
        for handled in list(self.handled):
            handled.stop()
            self._rest()
            self._do_all(handled)
            if not handled.over:  # it waits for the clock before it repeats a call
                self._forward(PAUSE_SECONDS)
                self._do_all(handled)
            assert handled.over, "a delivery that is never settled"
        super().at_the_end()

    # Actions of deliveries.

    @precondition(lambda self: self.mail.sent and len(self.handled) < 3)
    @rule(calls=st.integers(0, 2))
    def deliver(self, calls: int) -> None:
        """Deliver a message to a worker."""
        self.mail.sent.pop(0)
        self._begin()
        self._do_calls(calls, "done")

    @precondition(lambda self: self.model.open and len(self.handled) < 3)
    @rule(kill=st.booleans(), words=WORDS, calls=st.integers(0, 6))
    def fault_01_take_over(self, kill: bool, words: list[str], calls: int) -> None:
        """Let another worker take over: the holder has died or is paused, and its lease runs out."""
        if self.model.holder and self.model.lease_left:
            self.pass_time(LEASE_MS)
        if kill:
            self._kill(self._holder())
        self._begin()
        self._say(self.handled[-1], words)
        self._do_calls(calls, "done")

    @precondition(lambda self: any(handled.gate.calls for handled in self.handled))
    @rule(pick=PICK, count=st.integers(1, 5), how=HOWS)
    def store_answers(self, pick: int, count: int, how: str) -> None:
        """Execute waiting calls of one worker, one by one. `how` is the result of the first call."""
        handled = one([handled for handled in self.handled if handled.gate.calls], pick)
        for number in range(count):
            if handled.gate.calls:
                self._do(handled, handled.gate.calls.popleft(), "done" if number else how)

    @precondition(lambda self: self.handled)
    @rule(pick=PICK, words=WORDS, calls=st.integers(0, 3))
    def chain_says(self, pick: int, words: list[str], calls: int) -> None:
        handled = self._one(pick)
        self._say(handled, words)
        self._do_calls(calls, "done", handled)

    @precondition(lambda self: self.handled)
    @rule(pick=PICK, calls=st.integers(0, 3))
    def chain_ends_stage(self, pick: int, calls: int) -> None:
        handled = self._one(pick)
        handled.order(None)
        self._rest()
        self._do_calls(calls, "done", handled)

    @precondition(lambda self: self.handled)
    @rule(pick=PICK, seconds=PAUSES)
    def fault_28_model_is_cut(self, pick: int, seconds: float) -> None:
        """Cut the model's answer: the stage is retried after a pause, which may end now or later."""
        self._cut(self._one(pick))
        self._forward(seconds)

    @precondition(lambda self: any(handled.trying for handled in self.handled))
    @rule(pick=PICK, words=WORDS, losses=LOSSES, again=WORDS, ends=st.booleans())
    def fault_35_cut_while_the_store_loses_its_tail(
        self, pick: int, words: list[str], losses: list[int], again: list[str], ends: bool
    ) -> None:
        """Cut the model after all words were stored, and lose tails of the log while the stage is retried."""
        handled = one([handled for handled in self.handled if handled.trying], pick)
        self._say(handled, words)
        self._do_all(handled)
        self._cut(handled)
        self._forward(PAUSE_SECONDS)
        for frames in losses:
            self._lose(frames)
            self._do_calls(1, "done", handled)
        self._do_all(handled)
        if handled.trying:
            stood = self.model.log
            self._say(handled, ["same"] * len(words))
            self._do_all(handled)
            self.seen[MATCHED] += self.model.log == stood
            self._say(handled, again)
            if ends:
                handled.order(None)
            self._do_all(handled)

    @rule(seconds=PAUSES)
    def workers_clock_goes_on(self, seconds: float) -> None:
        """Move the workers' clock: leases are renewed, appends are repeated, pauses end."""
        self._forward(seconds)

    @precondition(lambda self: self.handled)
    @rule(pick=PICK, kill=st.booleans())
    def process_stops(self, pick: int, kill: bool) -> None:
        """Stop a process: it releases its job, or is killed."""
        handled = one(self.handled, pick)
        if kill:
            self._kill(handled)
        else:
            handled.stop()
            self._rest()

    # Invariants.

    @invariant()
    def what_stands_is_what_was_said(self) -> None:
        assert not self.forged, "one claim gave one id to two texts"
        ended_by = {
            (entry.data["name"], entry.data["run"]): entry.id.split("-")[1]
            for entry in entries_of(self.model.log)
            if entry.type == "stage" and entry.data["state"] == "finished"
        }
        for stage in stages_of(self.model.log):
            if stage.state == "finished":
                assert stage.text == self.by_tag[ended_by[stage.name, stage.run]].ended[stage.name]
        failed = [entry.data["code"] for entry in entries_of(self.model.log) if entry.type == "failed"]
        assert set(failed) <= set(ENDINGS), "a chain that failed, though its model may pass"
        holder = self._holder()
        going = open_stage(self.model.log)
        sent = holder is not None and holder.trying and not holder.gate.calls and not holder.behind
        if holder is not None and sent and going is not None and holder.end == len(self.model.log):
            self._compare(holder, going)

    def _compare(self, holder: Handled, stage: Told) -> None:
        """Check that all words of this try were sent and acknowledged."""
        last = holder.tries[-1]
        if last.stage == stage.name:
            assert stage.text.startswith(last.text)

    # Helpers.

    def _begin(self) -> None:
        async def begin() -> Handled:
            return Handled(self.stream.id)

        self.handled.append(self.do(begin()))
        self._rest()

    def _rest(self) -> None:
        self.do(rest(cast(Loop, self.runner.get_loop())))
        self._settle()

    def _settle(self) -> None:
        """Settle a finished delivery as its queue does."""
        for handled in [handled for handled in self.handled if handled.over]:
            self.handled.remove(handled)
            try:
                again = handled.result().again_in_ms is not None
            except StoreUnavailable:
                again = True
            if again and self.stream.id not in self.mail.sent:
                self.mail.sent.append(self.stream.id)
                self.seen[HANDED_OVER] += 1

    def _forward(self, seconds: float) -> None:
        cast(Loop, self.runner.get_loop()).forward(seconds)
        self._rest()

    def _holder(self) -> Handled | None:
        handled = self.by_tag.get(self.model.holder[:4]) if self.model.holder else None
        return handled if handled in self.handled else None

    def _one(self, pick: int) -> Handled:
        """Return the holder in most cases, else any delivery."""
        holder = self._holder()
        return holder if holder is not None and pick % 8 else one(self.handled, pick)

    def _say(self, handled: Handled, words: list[str]) -> None:
        """Order words: word number n is the same in every try, or a different word."""
        for word in words:
            if not handled.trying or handled not in self.handled:
                return
            said = len(handled.tries[-1].words)
            handled.order(f"{handled.tries[-1].stage[0]}{said}{'' if word == 'same' else f'-{self.tags}'} ")
            self._rest()

    def _cut(self, handled: Handled) -> None:
        self.seen[AGAIN] += handled.trying
        handled.order(CutError())
        self._rest()

    def _kill(self, handled: Handled | None) -> None:
        if handled is not None:
            self.handled.remove(handled)
            handled.stop()
            self._in_loop(handled.gate.kill)

    def _lose(self, frames: int) -> None:
        """Lose frames as a failover does: return to the state with this number of frames fewer."""
        past = [(image, model) for image, model in self.past if model.alive and model.log]
        wanted = [
            (image, model)
            for image, model in past
            if len(model.log) < len(self.model.log) and self.model.log.startswith(model.log)
        ]
        if frames and wanted:
            self.go_back(*wanted[-min(frames, len(wanted))])

    def _do_calls(self, count: int, how: str, handled: Handled | None = None) -> None:
        handled = handled or self.handled[-1]
        for _ in range(count):
            if handled.gate.calls:
                self._do(handled, handled.gate.calls.popleft(), how)

    def _do_all(self, handled: Handled) -> None:
        for _ in range(MOST_CALLS):
            if not handled.gate.calls:
                return
            self._do(handled, handled.gate.calls.popleft(), "done")
        raise AssertionError("a delivery that asks without an end")

    def _do(self, handled: Handled, call: Call, how: str) -> None:
        """Execute a call of a worker on both sides."""
        if how == "refused":
            handled.behind = handled.behind or call.kind == "append"
            self._in_loop(call.refuse)
            return
        perform = getattr(self, f"_{call.kind}")
        answer = perform(handled, *call.arguments)
        if how == "twice" and call.kind in ("claim", "append"):
            answer = perform(handled, *call.arguments)
        if call.kind == "append":
            self.picture()
            handled.behind = how == "answer lost" or answer.word == "lost"
            if answer.word in ("ok", "duplicate") and not handled.behind:
                handled.end = call.arguments[1] + len(call.arguments[2])
        self._in_loop(call.refuse if how == "answer lost" else partial(call.answer, answer))

    def _in_loop(self, told: Callable[[], None]) -> None:
        """Call the function within the event loop, as a connection does, and run the loop until it is
        idle."""
        self.runner.get_loop().call_soon(told)
        self._rest()

    def _claim(self, handled: Handled, stream_id: str, token: str, lease_ms: int, given: Any) -> Answer:
        self.by_tag[token[:4]] = handled
        answer = self.do(self.log.claim(stream_id, token, lease_ms, **given))
        word, number = self.model.claim(token)
        assert answer.word == word
        if answer.claim is not None:
            assert (answer.claim.log_end, answer.claim.record.attempt) == (number, self.model.attempt)
            handled.end = number
        return answer

    def _append(
        self,
        handled: Handled,
        claim: Claim,
        position: int,
        frames: bytes,
        last_id: str,
        status: str,
        fields: dict[str, Any],
    ) -> Answer:
        log: Log = self.log
        answer = self.do(log.append(claim, position, frames, last_id, LEASE_MS, status=status, fields=fields))
        results = {name: value for name, value in fields.items() if name.startswith(CHECKPOINT)}
        expected = self.model.append(claim.token, position, frames, last_id, status, "", results)
        assert (answer.word, answer.number) == expected
        if answer.word == "ok":
            self.model.take(fields)
            self.remember(frames, len(self.model.log))
        self.seen[REWRITTEN] += answer.word == "lost"
        return answer

    def _give_up(self, handled: Handled, stream_id: str, tag: str, failed: Event) -> Answer:
        over = self.model.over
        answer = self.do(self.log.give_up(stream_id, tag, failed))
        assert (answer.word == "over") == (over == failed.data["code"])
        if answer.word == "over":
            self.given_up()
        return answer

    def _read(self, handled: Handled, stream_id: str, after: Any) -> Any:
        try:
            return self.do(self.log.read(stream_id, after))
        except CursorLost as lost:
            return lost


assert set(STAGES) == {"draft", "answer"}
assert UNIT_MS * 2 == LEASE_MS
