"""Random lives of one stream with the real log, the plain model, and readers; all must agree after each step.

A worker here obeys the log's one rule for writers: what it has sent for a position it sends again unchanged,
until it gets an answer. `rewrite` with other text breaks the rule on purpose: see `forged`.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from tests.model import script
from tests.model.life import PICK, RARELY
from tests.model.pair import FINALS, Worker, one
from tests.model.runs import PLANS, Runs
from tests.model.script import Plan

ITEMS = ["a", "b", "\n\nid: 0-5a5a\n", "\ud800", "c" * 90, script.TOOL, *[script.NEXT, script.VOID] * 2]
TEXTS = st.lists(st.sampled_from(ITEMS), min_size=1, max_size=5)
ENDS = st.sampled_from([*[""] * 16, *FINALS])
CALLS = st.sampled_from(["once", "twice", "answer lost"])


class LogMachine(Runs):
    """Workers that write any events within the log's one rule for writers, in addition to attempts
    (`Runs`)."""

    @initialize(
        claimed=st.booleans(),
        waits=RARELY,
        bucket=st.integers(0, 255),
        plans=st.lists(PLANS, max_size=3),
    )
    def open(self, claimed: bool, waits: bool, bucket: int, plans: list[Plan]) -> None:
        self.open_life(bucket)
        if waits:
            self.fault_96_no_worker_begins_it()
        if claimed:
            self.claim("once")
        self.open_runs(plans)

    # Actions of workers.

    @rule(calls=CALLS)
    def claim(self, calls: str) -> None:
        self.claim_both(Worker(self.token(), 0), calls)

    @precondition(lambda self: any(worker.silent for worker in self.workers))
    @rule(pick=PICK)
    def claim_again(self, pick: int) -> None:
        """Repeat a claim. The call may arrive twice, but the worker writes only after an answer."""
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
        """After `lost`: append each frame that it remembers, one by one, or break the rule with another
        text."""
        worker, end = one(self.workers, pick), len(self.model.log)
        if not other_text:
            self.restore_tail(worker)
        elif end in worker.memory and end < worker.end:
            worker.unanswered = None
            worker.end, worker.memory = end, {at: f for at, f in worker.memory.items() if at < end}
            self.write(worker, ["other"], "", False, "once")
