"""The connections of one process: how many there may be, who gives way to whom, and what the log says of it.

A process has a limit of open files (RLIMIT_NOFILE, `ulimit -n`), and it needs some of them for itself: for
Redis, the queue, models, files. So connections are bounded below the limit. A connection that comes when all
places are taken gets the place of the one that has kept us waiting longest: for a request, or for taking what
we have sent. Any other connection whose request is being answered never gives way. If all are being answered,
the one that comes is closed at once.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Protocol

if sys.platform != "win32":
    import resource

from gateway.observe import loglines

RESERVE_FILES = 192  # for all that is not a connection at the door
UNLIMITED_FILES = 1_048_576  # where the system names no limit
TELL_SECONDS = 60.0
_log = logging.getLogger("holdfast.door")


class Visitor(Protocol):
    """A connection, as the door sees it."""

    inside: bool

    def give_way(self) -> None:
        """Close at once: another has the place."""


class Tally:
    """Lines about connections: the first of a kind at once, then one a minute at most, with the count."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[str, tuple[float, int]] = {}  # when it was told last, how many came since

    def count(self, what: str, level: int = logging.INFO) -> None:
        """One more of the kind `what`, which is text of our own, from a short list."""
        now = self._clock()
        told_at, untold = self._kinds.get(what, (None, 0))
        if told_at is not None and now - told_at < TELL_SECONDS:
            self._kinds[what] = told_at, untold + 1
            return
        self._kinds[what] = now, 0
        loglines.tell(_log, level, what, count=untold + 1)


class Door:
    """The places of one process. `most`: how many connections; 0: what the limit of open files leaves."""

    def __init__(self, most: int = 0, tally: Tally | None = None) -> None:
        self.tally = tally or Tally()
        self.taken = 0
        self.most = places()
        if most > self.most:
            loglines.tell(
                _log,
                logging.WARNING,
                "GATEWAY_MAX_CONNECTIONS is more than the limit of open files (ulimit -n) leaves",
                setting=most,
                used=self.most,
            )
        self.most = min(most or self.most, self.most)
        self._waiting: dict[Visitor, None] = {}  # those that keep us waiting; the longest wait stands first

    def enter(self, visitor: Visitor) -> bool:
        """Whether there is a place for it: a free one, or that of a connection which gives way."""
        if self.taken >= self.most:
            longest = next(iter(self._waiting), None)
            if longest is None:
                self.tally.count("a connection was refused: all places are taken", logging.WARNING)
                return False
            self.leave(longest)
            longest.give_way()
            self.tally.count(
                "a connection that sent no request, or took no answer, gave way to a new one", logging.WARNING
            )
        visitor.inside = True
        self.taken += 1
        return True

    def leave(self, visitor: Visitor) -> None:
        """It is closed; to say it twice does no harm."""
        self._waiting.pop(visitor, None)
        if visitor.inside:
            visitor.inside = False
            self.taken -= 1

    def owes(self, visitor: Visitor) -> None:
        """From now on the peer owes us a request, or the rest of one, or to take what waits for it."""
        self._waiting.pop(visitor, None)
        if visitor.inside:
            self._waiting[visitor] = None

    def owed(self, visitor: Visitor) -> None:
        """From now on we owe the peer an answer."""
        self._waiting.pop(visitor, None)

    def hand_over(self, visitor: Visitor, other: Visitor) -> None:
        """The place of the one is the other's now."""
        self._waiting.pop(visitor, None)
        visitor.inside, other.inside = False, visitor.inside


def places(files: int | None = None) -> int:
    """How many connections a limit of so many open files leaves; None: this process's limit."""
    if files is None:
        files = _open_files()
    return max(files - RESERVE_FILES, files // 2)


def _open_files() -> int:
    if sys.platform == "win32":
        return UNLIMITED_FILES
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return UNLIMITED_FILES if soft == resource.RLIM_INFINITY else min(soft, UNLIMITED_FILES)
