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
from tests.model import script, streams
from tests.model.pair import FINALS, Worker, one
from tests.model.reader import Latecomer, Reader
from tests.model.runs import PICK, PLANS, Runs
from tests.model.script import Plan

ITEMS = ["a", "b", "\n\nid: 0-5a5a\n", "\ud800", "c" * 90, script.TOOL, *[script.NEXT, script.VOID] * 2]
TEXTS = st.lists(st.sampled_from(ITEMS), min_size=1, max_size=5)
ENDS = st.sampled_from([*[""] * 16, *FINALS])
VERBS = st.sampled_from(["create", "confirm", "confirm", "ask", "ask", "cancel"])
RARELY = st.integers(0, 7).map(lambda number: number == 7)
CALLS = st.sampled_from(["once", "twice", "answer lost"])
MADE_UP = st.sampled_from(["0-0000", "7-5a5a", "0-5a5a", "00-5a5a", "9999999999-beef"])


class LogMachine(Runs):
    """Rules are calls of the product and blows of fate; invariants compare."""

    steps: ClassVar[int] = 0

    @initialize(claimed=st.booleans(), bucket=st.integers(0, 255), plans=st.lists(PLANS, max_size=3))
    def open(self, claimed: bool, bucket: int, plans: list[Plan]) -> None:
        self.open_pair(bucket)
        self.open_mail()
        self.gateway("create")
        if claimed:
            self.claim("once")
        self.open_runs(plans)

    # What gateway and sweeper do.

    @rule(verb=VERBS)
    def gateway(self, verb: str) -> None:
        match verb:
            case "create":
                word, found = self.do(self.stream.create_again())
                assert (word, found) == (self.model.create(), self.stream.id)
                if self.model.log.startswith(self.model.first):
                    self.remember(self.model.first, len(self.model.first))
            case "confirm":
                assert self.do(self.log.confirm(self.stream.id, streams.GRACE_MS)) == self.model.confirm()
            case "ask":
                self.ask()
            case "cancel":
                self.cancel_both()

    # What workers do.

    @rule(calls=CALLS)
    def claim(self, calls: str) -> None:
        self.claim_both(Worker(self.token(), 0), calls)

    @precondition(lambda self: any(worker.silent for worker in self.workers))
    @rule(pick=PICK)
    def claim_again(self, pick: int) -> None:
        """A claim's call may arrive twice, but its worker writes only when it has an answer."""
        self.claim_both(one([worker for worker in self.workers if worker.silent], pick), "once")

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
        if not other_text:
            self.restore_tail(worker)
        elif end in worker.memory and end < worker.end:
            worker.unanswered = None
            worker.end, worker.memory = end, {at: f for at, f in worker.memory.items() if at < end}
            self.write(worker, ["other"], "", False, "once")

    # What fate does.

    @rule(pick=PICK)
    def store_loses_tail(self, pick: int) -> None:
        """As after a crash with the last second not yet on disk: everything is as it was some steps ago."""
        image, model = one(self.past, pick)
        self.do(self.real.restore(image))
        now, self.model = self.model.now, copy.copy(model)
        self.shift(now - model.now)

    @precondition(lambda self: self.model.open)
    @rule(pick=PICK)
    def log_is_cut(self, pick: int) -> None:
        """The log alone, at a frame's end, with the record's last id: finer than any append was."""
        frames = sse.split_frames(self.model.log)
        if not frames:
            return
        self.model.log = b"".join(frames[: 1 + pick % len(frames)])
        self.model.last_id = streams.last_id_of(self.model.log)
        self.do(self.real.cut(self.model.log, self.model.last_id))

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
        cursor = made_up or one(["", *self.through], pick)
        held = self.through.get(cursor) if cursor else b""
        self._attach(Reader.resuming(cursor, held))

    @rule()
    def join_late(self) -> None:
        """With the status document in place of the history."""
        document = self.document()
        if document is not None:
            client = Latecomer(document)
            self._attach(Reader(document["last_event_id"], client, held=self.model.log))

    @precondition(lambda self: self.readers)
    @rule(pick=PICK, limit=st.sampled_from([32, 64, 300, 65536]))
    def read(self, pick: int, limit: int) -> None:
        reader = one(self.readers, pick)
        self.do(reader.read(self.log, self.stream.id, self.model, self.forged, limit))

    def _attach(self, reader: Reader) -> None:
        self.readers = [self.readers[0], *self.readers[1:][-5:], reader]

    @invariant()
    def store_is_the_model(self) -> None:
        type(self).steps += 1
        image = self.do(self.real.look())
        self.real.compare(image, self.model)
        self.past = [*self.past[-8:], (image, copy.copy(self.model))]
        self.check_document()  # which may end it
