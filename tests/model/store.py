"""The effects of the store on one stream, in plain Python: no keys, no scripts, and a clock that does not
run.

`now` moves only when a life moves it, in whole units. Every duration is a multiple of the unit, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tests.model.streams import GRACE_MS, INPUT, LEASE_MS, PARAMS, RUN_MS, WAIT_MS

ENDED = ("done", "failed", "cancelled")
FRESH_MS = 1_000  # frames renew only a lease that has lost at least this
UNIT_MS = 30_000  # longer in real time than any life
BACKOFF_MS = 30_000
LONGEST_BACKOFF_MS = 64 * BACKOFF_MS
Word = tuple[str, int]


@dataclass(slots=True)
class Store:
    """One stream. `alive`: its record has not expired. An unknown stream has an empty log."""

    first: bytes
    first_id: str
    now: int = 0
    alive: bool = False
    confirmed: bool = False
    status: str = ""
    token: str = ""
    attempt: int = 0
    failures: int = 0
    progress: bool = False
    lease_end: int = 0
    since: int = 0  # start of its wait for the first attempt, or of its run
    begun: bool = False
    asked_at: int = 0
    asks: int = 0
    look_at: int | None = None  # when it is due in the index of open streams
    checkpoint: str = ""
    results: dict[str, bytes] = field(default_factory=dict)  # name → checkpoint of a worker
    kept: dict[str, bytes] = field(default_factory=dict)  # data of a failed stream, for a retry
    log: bytes = b""
    last_id: str = ""

    @property
    def holder(self) -> str:
        """Return the token that may write."""
        return self.token if self.alive and self.status == "running" else ""

    @property
    def lease_left(self) -> int:
        """Return the rest of the lease. A lease longer than one lease was set before the clock went back: it
        is over."""
        left = self.lease_end - self.now
        return left if 0 < left <= LEASE_MS else 0

    @property
    def due(self) -> bool:
        """Return whether a sweep must look at the stream now."""
        return self.look_at is not None and self.look_at <= self.now

    @property
    def open(self) -> bool:
        return self.alive and self.status not in ENDED

    @property
    def orphaned(self) -> bool:
        """Return whether the job was promised to a caller and no worker holds it."""
        return self.open and self.confirmed and not (self.holder and self.lease_left)

    @property
    def time_ends(self) -> int:
        """Return the time at which the stream must be ended, unless a worker holds it."""
        return self.since + (RUN_MS if self.begun else WAIT_MS)

    @property
    def over(self) -> str:
        """Return the code with which the next process that reads the stream ends it, or an empty text."""
        if not self.orphaned or self.now < self.time_ends:
            return ""
        return "time_limit" if self.begun else "wait_limit"

    def create(self) -> str:
        if not self.alive:
            self.expire()
            self.alive, self.status, self.since = True, "queued", self.now
            self.log, self.last_id = self.first, self.first_id
        return "created"

    def confirm(self) -> bool:
        if self.alive:
            self.confirmed = True
            if self.status == "queued":
                self._look_at(self.now + GRACE_MS)
        return self.alive

    def claim(self, token: str) -> Word:
        if not self.alive:
            return "unknown", 0
        if self.status in ENDED:
            return "ended", 0
        if self.holder != token:
            if self.holder and self.lease_left:
                return "held", self.lease_left
            if self.over == "wait_limit":
                return "over", 0
            if not self.begun:
                self.begun, self.since = True, self.now
            self.failures += self.status == "running" and not self.progress
            self.attempt += 1
            self.status, self.token, self.progress, self.asks = "running", token, False, 0
        self.confirmed = True
        self.lease_end = self.now + LEASE_MS
        self._look_at(self.lease_end)
        return "claimed", len(self.log)

    def append(
        self,
        token: str,
        position: int,
        frames: bytes,
        last_id: str,
        status: str,
        checkpoint: str,
        results: Mapping[str, bytes] = MappingProxyType({}),
    ) -> Word:
        if not self.alive:
            return "unknown", 0
        if frames and position < len(self.log) and self.log[position : position + len(frames)] == frames:
            return "duplicate", 0
        if self.status in ENDED:
            return "ended", 0
        if (self.status, status, self.token) == ("queued", "queued", token):
            return "ok", 0
        if self.holder != token or position < len(self.log):
            return "fenced", 0
        if position > len(self.log):
            return "lost", len(self.log)
        self._write(frames, last_id)
        self.checkpoint = checkpoint or self.checkpoint
        self.results = {**self.results, **results}
        if status or not frames or self.lease_left <= LEASE_MS - FRESH_MS:
            self._look_at(self.now + LEASE_MS)
            self.lease_end = self.now if status == "queued" else self.now + LEASE_MS
        if status in ENDED:
            self._end(status)
        elif status:
            self.status = status
        return "ok", 0

    def take(self, fields: Mapping[str, Any]) -> None:
        """Set the record's fields from an append."""
        self.failures = int(fields.get("failures", self.failures))
        self.attempt = int(fields.get("attempt", self.attempt))
        if self.status == "queued" and not self.attempt:
            self.begun, self.since = False, 0  # as before its first attempt
        self.progress = self.progress or "progress" in fields

    def cancel(self, frame: bytes, last_id: str) -> str:
        if not self.alive:
            return "unknown"
        if self.status in ENDED:
            return "ended"
        self._write(frame, last_id)
        self._end("cancelled")
        return "cancelled"

    def ask(self) -> Word:
        if not self.alive or self.status in ENDED:
            self.look_at = None
            return ("ended" if self.alive else "unknown"), 0
        if not self.confirmed:
            return "wait", BACKOFF_MS
        self.since = min(self.since, self.now)  # the clock has gone back since then
        if self.holder and self.lease_left:
            self._look_at(self.now + self.lease_left)
            return "held", self.lease_left
        if self.over:
            self._look_at(self.now + BACKOFF_MS)
            return "over", 0
        since, wait = self.now - self.asked_at, _backoff(self.asks - 1)
        if self.asks and 0 <= since < wait:
            self._look_at(self.now + wait - since)
            return "wait", wait - since
        self.asked_at = self.now
        self._look_at(self.now + _backoff(self.asks))
        self.asks += 1
        return "yes", 0

    def undo(self) -> None:
        """The queue refused the message: another may be sent after one back-off."""
        self.asks = max(self.asks - 1, min(self.asks, 1))
        self._look_at(self.now + BACKOFF_MS)

    def give_up(self, frames: bytes, last_id: str) -> None:
        """End the stream because its time is over."""
        assert self.over
        self._write(frames, last_id)
        self._end("failed")

    def holds(self, cursor: str) -> bool:
        """Return whether a cursor is right: the log at its offset begins with exactly the cursor's line."""
        return self.log[int(cursor.split("-")[0]) :].startswith(b"id: %b\n" % cursor.encode())

    def expire(self) -> None:
        """Expire all keys but the index, whose members are removed at the next read of the index."""
        self.alive = self.confirmed = self.progress = self.begun = False
        self.status = self.token = self.checkpoint = self.last_id = ""
        self.attempt = self.failures = self.asks = self.lease_end = 0
        self.log, self.kept, self.results = b"", {}, {}

    def _write(self, frames: bytes, last_id: str) -> None:
        if frames:
            self.log += frames
            self.last_id, self.progress = last_id, True

    def _look_at(self, when: int) -> None:
        """Set when to look at the stream: at this time, or at the end of its time if that is earlier."""
        self.look_at = min(when, self.time_ends) if self.time_ends > self.now else when

    def _end(self, status: str) -> None:
        if status == "failed":
            self.kept = {"input": INPUT.encode(), "params": PARAMS.encode()}
            self.kept |= {"ckpt:answer": self.checkpoint.encode()} if self.checkpoint else {}
            self.kept |= self.results
        self.results = {}
        self.status, self.checkpoint, self.look_at = status, "", None


def _backoff(asks: int) -> int:
    return min(BACKOFF_MS << max(asks, 0), LONGEST_BACKOFF_MS)
