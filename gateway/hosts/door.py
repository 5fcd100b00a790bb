"""Limit the connections of one process, choose the connection to close when all places are used, and log it.

A process has a limit of open files (RLIMIT_NOFILE, `ulimit -n`). It needs some of these files for itself: for
Redis, the queue, models, files. So the number of connections is kept below the limit. When all places are
used, a new connection gets the place of another one. This is the connection whose peer has kept this process
waiting for the longest time: for a request, or for reading what was sent. A connection is never closed for
another one while its request is being answered and its peer reads. If no connection can be closed, the new
connection is closed at once.
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

RESERVE_FILES = 192  # file descriptors kept free for everything but these connections
UNLIMITED_FILES = 1_048_576  # used when the system has no limit
TELL_SECONDS = 60.0
_log = logging.getLogger("holdfast.door")


class Visitor(Protocol):
    """A connection, as `Door` uses it."""

    inside: bool

    def give_way(self) -> None:
        """Close at once, because another connection gets the place."""


class Tally:
    """Log lines about connections.

    The first line of a kind is written at once, later ones once a minute, with a count.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # kind -> (time of the last line, number of events since then)
        self._kinds: dict[str, tuple[float, int]] = {}

    def count(self, what: str, level: int = logging.INFO) -> None:
        """Count one event of the kind `what`. `what` is a text of this product, from a short list."""
        now = self._clock()
        told_at, untold = self._kinds.get(what, (None, 0))
        if told_at is not None and now - told_at < TELL_SECONDS:
            self._kinds[what] = told_at, untold + 1
            return
        self._kinds[what] = now, 0
        loglines.tell(_log, level, what, count=untold + 1)


class Door:
    """The places of one process.

    `most`: how many connections; 0: as many as the limit of open files allows.
    """

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
        self._waiting: dict[Visitor, None] = {}  # connections that keep us waiting; the longest wait is first

    def enter(self, visitor: Visitor) -> bool:
        """Return whether the connection gets a place.

        This is a free place, or the place of a connection that is closed for it.
        """
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
        """Free the place of a connection that was closed. Calling this twice does no harm."""
        self._waiting.pop(visitor, None)
        if visitor.inside:
            visitor.inside = False
            self.taken -= 1

    def owes(self, visitor: Visitor) -> None:
        """Note that the peer must act now: send a request or the rest of it, or read what was sent."""
        self._waiting.pop(visitor, None)
        if visitor.inside:
            self._waiting[visitor] = None

    def owed(self, visitor: Visitor) -> None:
        """Note that this process must act now: it owes the peer an answer."""
        self._waiting.pop(visitor, None)

    def hand_over(self, visitor: Visitor, other: Visitor) -> None:
        """Give the place of `visitor` to `other`."""
        self._waiting.pop(visitor, None)
        visitor.inside, other.inside = False, visitor.inside


def places(files: int | None = None) -> int:
    """Return how many connections are possible with this limit of open files. None: this process's limit."""
    if files is None:
        files = _open_files()
    return max(files - RESERVE_FILES, files // 2)


def _open_files() -> int:
    if sys.platform == "win32":
        return UNLIMITED_FILES
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return UNLIMITED_FILES if soft == resource.RLIM_INFINITY else min(soft, UNLIMITED_FILES)
