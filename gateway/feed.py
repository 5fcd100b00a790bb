"""One followed stream in a process: its readers, and when the store must be looked at for their sake."""

from __future__ import annotations

import asyncio
import math

from gateway.record import Head
from gateway.subscription import Block, Subscription

SILENT_SECONDS = 1.0  # after this silence a stream's head is looked at
LIVELY_SECONDS = 10.0  # this long after the last event it stays a look a second
LONGEST_LOOK_SECONDS = 14.0
MARGIN_SECONDS = 0.05  # a lease is looked at when it is surely over


class Feed:
    """One followed stream in this process."""

    __slots__ = ("acknowledged", "channel", "fresh", "heard_at", "id", "lease_at", "looked_at", "readers")

    def __init__(self, stream_id: str) -> None:
        self.id = stream_id
        self.channel = channel_of(stream_id)
        self.acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.heard_at = self.looked_at = _now()
        self.lease_at = math.inf  # when the worker's lease, or a queued job's wait, ends, as far as is known
        self.readers: set[Subscription] = set()
        self.fresh: list[Block] = []  # heard, and not yet offered to the readers

    def acknowledge(self) -> None:
        """Subscribed; what was published before is in the log only."""
        if not self.acknowledged.done():
            self.acknowledged.set_result(None)
        self.doubt()

    def doubt(self) -> None:
        """Every reader reads the log at its own position."""
        for reader in self.readers:
            reader.lose()

    def look_at(self, now: float) -> float:
        """When to look: after 1 s of silence, each second while events came lately, then ever more rarely.

        And always when a lease or a wait may have ended.
        """
        silent = now - self.heard_at
        wait = SILENT_SECONDS if silent <= LIVELY_SECONDS else min(silent / 5, LONGEST_LOOK_SECONDS)
        return min(max(self.heard_at, self.looked_at) + wait, self.lease_at)

    def looked(self, head: Head) -> None:
        """The store has told: a reader without its last event doubts; the end of lease or wait is known."""
        self.looked_at = _now()
        for reader in self.readers:
            if reader.head != head.last_id and not reader.doubt:
                self.heard_at = self.looked_at  # an event has come, though nobody told
                reader.lose()
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
