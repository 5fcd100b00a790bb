"""One followed stream in a process: its readers, and when the store must be looked at for their sake."""

from __future__ import annotations

import asyncio
import math

from gateway.relay.reader import Block, Subscription
from gateway.store.record import Head

SILENT_SECONDS = 1.0  # after this silence a stream's head is looked at
LIVELY_SECONDS = 10.0  # this long after the last event it stays a look a second
LONGEST_LOOK_SECONDS = 14.0
MARGIN_SECONDS = 0.05  # a lease is looked at when it is surely over


class Feed:
    """One followed stream in this process."""

    __slots__ = (
        *("acknowledged", "channel", "fresh", "heard_at", "id", "lease_at", "looked_at", "moved_at"),
        *("readers", "unheard", "_untold"),
    )

    def __init__(self, stream_id: str) -> None:
        self.id = stream_id
        self.channel = channel_of(stream_id)
        self.acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.heard_at = self.looked_at = self.moved_at = _now()
        self.unheard = 0  # looks in a row that found an event of which nothing was heard
        self._untold = ""  # the last event that was found so
        self.lease_at = math.inf  # when the worker's lease, or a queued job's wait, ends, as far as is known
        self.readers: set[Subscription] = set()
        self.fresh: list[Block] = []  # heard, and not yet offered to the readers

    def acknowledge(self) -> None:
        """Subscribed; what was published before is in the log only."""
        if not self.acknowledged.done():
            self.acknowledged.set_result(None)
        self.unheard = 0
        self.doubt()

    def doubt(self) -> None:
        """Every reader reads the log at its own position."""
        for reader in self.readers:
            reader.lose()

    def look_at(self, now: float) -> float:
        """When to look: after 1 s of silence, each second while events came lately, then ever more rarely.

        And always when a lease or a wait may have ended.
        """
        silent = now - max(self.heard_at, self.moved_at)
        wait = SILENT_SECONDS if silent <= LIVELY_SECONDS else min(silent / 5, LONGEST_LOOK_SECONDS)
        return min(max(self.heard_at, self.looked_at) + wait, self.lease_at)

    def looked(self, head: Head) -> None:
        """The store has told: a reader without its last event doubts; the end of lease or wait is known."""
        if self.heard_at > self.looked_at:
            self.unheard = 0
        self.looked_at = _now()
        behind = [reader for reader in self.readers if reader.head != head.last_id and not reader.doubt]
        for reader in behind:
            reader.lose()
        if behind:
            self.moved_at = self.looked_at  # an event has come, though nobody told
            # A record that names an event which the log does not have is no sign of a lost publish.
            self.unheard += head.last_id not in ("", self._untold)
            self._untold = head.last_id
        left = head.look_in_ms
        if left is None:
            self.lease_at = math.inf
        else:
            self.lease_at = self.looked_at + (left / 1000 + MARGIN_SECONDS if left else SILENT_SECONDS)


def channel_of(stream_id: str) -> bytes:
    """Where a stream's blocks are published."""
    return b"live:%b" % stream_id.encode()


def _now() -> float:
    return asyncio.get_running_loop().time()
