"""Decide when the next try may begin. The pauses grow with each try, with jitter, up to a maximum."""

from __future__ import annotations

import random


class Backoff:
    """The pauses between tries, in seconds: `first`, then twice as long each time, at most `longest`.

    Each pause is shortened at random, by up to a half. After `forget` seconds without a try, the pauses begin
    again with `first`. All times are seconds of one clock.
    """

    def __init__(self, first: float, longest: float, *, forget: float) -> None:
        self._first, self._longest, self._forget = first, longest, forget
        self._next_at = self._tried_at = float("-inf")
        self._pause = first

    def left(self, now: float) -> float:
        """Return the seconds until the next try may begin. 0: it may begin now."""
        return max(0.0, self._next_at - now)

    def tried(self, now: float) -> None:
        """Note that a try begins."""
        if now - self._tried_at > self._forget:
            self._pause = self._first
        self._tried_at = now
        self._next_at = now + self._pause * random.uniform(0.5, 1.0)
        self._pause = min(2 * self._pause, self._longest)

    def reset(self) -> None:
        """Note that a try succeeded. The next try may begin at once."""
        self._next_at, self._pause = float("-inf"), self._first
