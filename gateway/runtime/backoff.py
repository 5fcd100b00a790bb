"""When the next try may begin: ever later while tries follow one another, with jitter, and never too late."""

from __future__ import annotations

import random


class Backoff:
    """Seconds between tries: `first`, then twice as long each time, at most `longest`.

    Chance shortens each, by up to a half. After `forget` seconds without a try the next one is a first one.
    All times are seconds of one clock.
    """

    def __init__(self, first: float, longest: float, *, forget: float) -> None:
        self._first, self._longest, self._forget = first, longest, forget
        self._next_at = self._tried_at = float("-inf")
        self._pause = first

    def left(self, now: float) -> float:
        """How long the next try has to wait; 0 when it may begin."""
        return max(0.0, self._next_at - now)

    def tried(self, now: float) -> None:
        """A try begins."""
        if now - self._tried_at > self._forget:
            self._pause = self._first
        self._tried_at = now
        self._next_at = now + self._pause * random.uniform(0.5, 1.0)
        self._pause = min(2 * self._pause, self._longest)

    def reset(self) -> None:
        """A try was good: the next one need not wait."""
        self._next_at, self._pause = float("-inf"), self._first
