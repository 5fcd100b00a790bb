"""The counts and findings of a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Recovery:
    """A stream whose worker was killed: the seconds until the next attempt and until the next event."""

    stream: str
    attempt: float
    event: float
    alone: bool  # no other fault happened in this time


@dataclass(slots=True)
class Tally:
    """The figures of one run."""

    faults: Counter[str] = field(default_factory=Counter)
    streams: Counter[str] = field(default_factory=Counter)  # counted by their end
    resets: Counter[int] = field(default_factory=Counter)  # counted by the attempt that wrote them
    connections: int = 0
    resumes: int = 0
    connections_cut: int = 0
    answers_cut: int = 0  # cut by the model's server
    answers_refused: int = 0
    log_lost: int = 0
    refused: int = 0
    unanswered: int = 0
    doubled: int = 0
    cancels: int = 0
    readers: int = 0
    readers_now: int = 0
    readers_peak: int = 0
    away: int = 0  # connections that the reader closed
    bytes_read: int = 0
    recoveries: list[Recovery] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    suspects: dict[str, bytes] = field(default_factory=dict)  # streams with a finding, and their logs

    def joined(self) -> None:
        """Count a reader that has started."""
        self.readers += 1
        self.readers_now += 1
        self.readers_peak = max(self.readers_peak, self.readers_now)

    def find(self, text: str, stream: str = "") -> None:
        """Record a broken promise, for this stream if there is one."""
        self.findings.append(text)
        if stream:
            self.suspects.setdefault(stream, b"")
