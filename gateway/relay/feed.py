"""One stream that readers of this process follow: its readers, and when to ask the store about it."""

from __future__ import annotations

import asyncio
import math

from gateway.relay.block import Block
from gateway.relay.reader import Subscription
from gateway.store.record import Head

SILENT_SECONDS = 1.0  # after this silence the store is asked for a stream's last event
LIVELY_SECONDS = 10.0  # for this long after an event the store is asked once a second, then ever more rarely
LONGEST_LOOK_SECONDS = 14.0  # between two questions
MARGIN_SECONDS = 0.05  # the store is asked so long after the end of a lease, when it is surely over


class Feed:
    """One stream that readers of this process follow. Times are seconds of the event loop's clock."""

    __slots__ = (
        "_unheard_id",
        "acknowledged",
        "channel",
        "fresh",
        "heard_at",
        "id",
        "lease_at",
        "looked_at",
        "moved_at",
        "readers",
        "unheard",
    )

    def __init__(self, stream_id: str) -> None:
        self.id = stream_id
        self.channel = channel_of(stream_id)
        # Done once the server has acknowledged the subscription. Then what is published reaches this process.
        self.acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        now = _now()
        self.heard_at = now  # when a block was heard last
        self.looked_at = now  # when the store was asked last
        self.moved_at = now  # when the store last named an event that a reader lacked
        self.unheard = 0  # answers of the store in a row that named an event of which no block was heard
        self._unheard_id = ""  # the id of that event
        self.lease_at = math.inf  # when the worker's lease ends, or a queued job's wait, as far as is known
        self.readers: set[Subscription] = set()
        self.fresh: list[Block] = []  # blocks that were heard and are not yet offered to the readers

    def acknowledge(self) -> None:
        """The server has subscribed this process. What was published before is in the log alone."""
        if not self.acknowledged.done():
            self.acknowledged.set_result(None)
        self.unheard = 0
        self.doubt()

    def doubt(self) -> None:
        """Have every reader read the log from its own last event on."""
        for reader in self.readers:
            reader.lose()

    def look_at(self, now: float) -> float:
        """When to ask the store: after 1 s of silence, then once a second, and later ever more rarely.

        The store is also asked when a lease or a wait may have ended.
        """
        silent = now - max(self.heard_at, self.moved_at)
        wait = SILENT_SECONDS if silent <= LIVELY_SECONDS else min(silent / 5, LONGEST_LOOK_SECONDS)
        return min(max(self.heard_at, self.looked_at) + wait, self.lease_at)

    def looked(self, head: Head) -> None:
        """The store has answered. A reader that lacks the stream's last event must read the log."""
        if self.heard_at > self.looked_at:
            self.unheard = 0
        self.looked_at = _now()
        behind = [reader for reader in self.readers if reader.head != head.last_id and not reader.doubt]
        for reader in behind:
            reader.lose()
        if behind:
            self.moved_at = self.looked_at
            # A record may name an event that the log does not have. The same event again is no lost publish.
            self.unheard += head.last_id not in ("", self._unheard_id)
            self._unheard_id = head.last_id
        left = head.look_in_ms
        if left is None:
            self.lease_at = math.inf
        else:
            self.lease_at = self.looked_at + (left / 1000 + MARGIN_SECONDS if left else SILENT_SECONDS)


def channel_of(stream_id: str) -> bytes:
    """The channel on which a stream's blocks are published."""
    return b"live:%b" % stream_id.encode()


def _now() -> float:
    return asyncio.get_running_loop().time()
