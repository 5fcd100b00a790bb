"""Random lives of one stream: the real log, the plain model, and readers; after each step all must agree.

A worker here keeps the log's one rule for writers: what it has sent for a position it sends again unaltered,
until an answer came. `rewrite` with other text breaks it on purpose: see `forged`.
"""

from __future__ import annotations

import copy
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from gateway import sse
from tests.model import streams
from tests.model.pair import FINALS, Pair, Worker, one
from tests.model.reader import Reader
from tests.model.store import ENDED

TEXTS = st.lists(st.sampled_from(["a", "b", "\n\nid: 0-5a5a\n", "\ud800", "c" * 90]), min_size=1, max_size=3)
ENDS = st.sampled_from([*[""] * 16, *FINALS])
VERBS = st.sampled_from(["create", "confirm", "confirm", "ask", "ask", "cancel"])
RARELY = st.integers(0, 7).map(lambda number: number == 7)
CALLS = st.sampled_from(["once", "twice", "answer lost"])
PICK = st.integers(0, 1_000_000)
MADE_UP = st.sampled_from(["0-0000", "7-5a5a", "0-5a5a", "00-5a5a", "9999999999-beef"])


class LogMachine(Pair):
    """Rules are calls of the product and blows of fate; invariants compare."""

    steps: ClassVar[int] = 0

    @initialize(claimed=st.booleans())
    def open(self, claimed: bool) -> None:
        self.open_pair()
        self.gateway("create")
        if claimed:
            self.claim("once")

    # What gateway and sweeper do.

    @rule(verb=VERBS)
    def gateway(self, verb: str) -> None:
        match verb:
            case "create":
                word, found = self.do(self.stream.create_again())
                assert (word, found) == (self.model.create(), self.stream.id)
                self.remember(self.model.first)
            case "confirm":
                assert self.do(self.log.confirm(self.stream.id, streams.GRACE_MS)) == self.model.confirm()
            case "ask":
                assert self.do(self.log.ask(self.stream.id, streams.GRACE_MS)).word == self.model.ask()
            case "cancel":
                self.cancel_both()

    # What workers do.

    @rule(calls=CALLS)
    def claim(self, calls: str) -> None:
        self.claim_both(Worker(self.token(), 0), calls)

    @precondition(lambda self: self.workers)
    @rule(pick=PICK)
    def claim_again(self, pick: int) -> None:
        self.claim_both(one(self.workers, pick), "once")

    @rule(pick=PICK, texts=TEXTS, final=ENDS, mark=st.booleans(), calls=CALLS)
    def append(self, pick: int, texts: list[str], final: str, mark: bool, calls: str) -> None:
        self.write(one(self.hopeful(), pick), texts, final, mark, calls)

    @precondition(lambda self: self.workers)
    @rule(pick=PICK, texts=TEXTS, final=ENDS, mark=st.booleans(), calls=CALLS)
    def fault_3_zombie(self, pick: int, texts: list[str], final: str, mark: bool, calls: str) -> None:
        self.write(one(self.workers, pick), texts, final, mark, calls)

    @precondition(lambda self: self.workers)
    @rule(pick=PICK, release=st.booleans(), calls=CALLS)
    def renew_or_release(self, pick: int, release: bool, calls: str) -> None:
        self.send(one(self.workers, pick), b"", "queued" if release else "", "", calls)

    @precondition(lambda self: self.workers)
    @rule(pick=PICK, other_text=st.booleans())
    def rewrite(self, pick: int, other_text: bool) -> None:
        """After `lost`: one append for each frame of its memory, or, breaking the rule, another text."""
        worker, end = one(self.workers, pick), len(self.model.log)
        if end not in worker.memory or end >= worker.end:
            return
        if other_text:
            worker.unanswered = None
            worker.end, worker.memory = end, {at: f for at, f in worker.memory.items() if at < end}
            frames = streams.frames_of(end, worker.token[:4], streams.said("other"))
            self.send(worker, frames, "", "", "once")
            return
        for position, frame in sorted(worker.memory.items()):
            if position >= end:
                self.append_both(worker, (position, frame, _final_of(frame), ""))

    # What fate does.

    @rule(pick=PICK)
    def store_loses_tail(self, pick: int) -> None:
        """As after a crash with the last second not yet on disk: everything is as it was some steps ago."""
        image, model = one(self.past, pick)
        self.do(self.real.restore(image))
        self.model = copy.copy(model)

    @precondition(lambda self: self.model.alive and self.model.status not in ENDED)
    @rule(pick=PICK)
    def log_is_cut(self, pick: int) -> None:
        """The log alone, at a frame's end, with the record's last id: finer than any append was."""
        frames = sse.split_frames(self.model.log)
        if not frames:
            return
        self.model.log = b"".join(frames[: 1 + pick % len(frames)])
        self.model.last_id = streams.last_id_of(self.model.log)
        self.do(self.real.cut(self.model.log, self.model.last_id))

    @rule(too_far=st.booleans())
    def fault_31_lease_runs_out(self, too_far: bool) -> None:
        """Its time has passed, or the clock went back, so that it ends further away than one lease."""
        if self.model.holder:
            self.model.lease_over = True
            self.do(self.real.end_lease(too_far=too_far))

    @rule(whole=st.booleans(), happens=RARELY)
    def expire(self, whole: bool, happens: bool) -> None:
        if happens:
            self.do(self.real.expire(whole=whole))
            self.model.log = b""
            if whole:
                self.model.expire()

    # What readers do.

    @rule(pick=PICK, made_up=st.none() | MADE_UP)
    def join(self, pick: int, made_up: str | None) -> None:
        """From the first event, from any cursor ever seen, or from none of them."""
        cursor = made_up or one(["", *self.written], pick)
        self.readers = [*self.readers[-5:], Reader(cursor)]

    @precondition(lambda self: self.readers)
    @rule(pick=PICK, limit=st.sampled_from([32, 64, 300, 65536]))
    def read(self, pick: int, limit: int) -> None:
        reader = one(self.readers, pick)
        self.do(reader.read(self.log, self.stream.id, self.model, self.forged, limit))

    @invariant()
    def store_is_the_model(self) -> None:
        type(self).steps += 1
        image = self.do(self.real.look())
        self.real.compare(image, self.model)
        self.past = [*self.past[-8:], (image, copy.copy(self.model))]


def _final_of(frame: bytes) -> str:
    return sse.frame_kind(frame).removeprefix(b"event: ").decode() if sse.is_terminal(frame) else ""
