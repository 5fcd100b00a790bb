"""What the store does with one stream, in plain Python: no clock, no keys, no scripts.

A lease is either over or not; an answer is a word and, where the log promises one, a number.
"""

from __future__ import annotations

from dataclasses import dataclass

ENDED = ("done", "failed", "cancelled")
Word = tuple[str, int]


@dataclass(slots=True)
class Store:
    """One stream. `alive`: its record has not expired. An unknown stream has an empty log."""

    first: bytes
    first_id: str
    alive: bool = False
    confirmed: bool = False
    status: str = ""
    token: str = ""
    attempt: int = 0
    failures: int = 0
    progress: bool = False
    lease_over: bool = True
    asked: bool = False
    listed: bool = False
    checkpoint: str = ""
    log: bytes = b""
    last_id: str = ""

    @property
    def holder(self) -> str:
        """The token that may write."""
        return self.token if self.alive and self.status == "running" else ""

    def create(self) -> str:
        if not self.alive:
            self.expire()
            self.alive, self.status = True, "queued"
            self.log, self.last_id = self.first, self.first_id
        return "created"

    def confirm(self) -> bool:
        if self.alive:
            self.confirmed = True
            self.listed = self.listed or self.status == "queued"
        return self.alive

    def claim(self, token: str) -> Word:
        if not self.alive:
            return "unknown", 0
        if self.status in ENDED:
            return "ended", 0
        if self.holder != token:
            if self.status == "running":
                if not self.lease_over:
                    return "held", 0
                self.failures += not self.progress
            self.attempt += 1
            self.status, self.token, self.progress, self.asked = "running", token, False, False
        self.confirmed, self.lease_over, self.listed = True, False, True
        return "claimed", len(self.log)

    def append(
        self, token: str, position: int, frames: bytes, last_id: str, status: str, checkpoint: str
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
        self.lease_over, self.listed = status == "queued", True
        if status in ENDED:
            self._end(status)
        elif status:
            self.status = status
        return "ok", 0

    def cancel(self, frame: bytes, last_id: str) -> str:
        if not self.alive:
            return "unknown"
        if self.status in ENDED:
            return "ended"
        self._write(frame, last_id)
        self._end("cancelled")
        return "cancelled"

    def ask(self) -> str:
        if not self.alive or self.status in ENDED:
            self.listed = False
            return "ended" if self.alive else "unknown"
        if not self.confirmed:
            return "wait"
        self.listed = True
        if self.holder and not self.lease_over:
            return "held"
        if self.asked:
            return "wait"
        self.asked = self.listed = True
        return "yes"

    def holds(self, cursor: str) -> bool:
        """Whether a cursor is right: the log at its offset begins with exactly its line."""
        return self.log[int(cursor.split("-")[0]) :].startswith(b"id: %b\n" % cursor.encode())

    def expire(self) -> None:
        """Everything but the index, whose members go when somebody asks for them."""
        self.alive = self.confirmed = self.progress = self.asked = False
        self.status = self.token = self.checkpoint = self.last_id = ""
        self.attempt = self.failures = 0
        self.lease_over, self.log = True, b""

    def _write(self, frames: bytes, last_id: str) -> None:
        if frames:
            self.log += frames
            self.last_id, self.progress = last_id, True

    def _end(self, status: str) -> None:
        self.status, self.checkpoint, self.listed = status, "", False
