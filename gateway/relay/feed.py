"""One stream that readers of this process follow: its readers, and when to ask the store about it."""

from __future__ import annotations

import asyncio
import math

from gateway.relay.block import Block
from gateway.relay.reader import Subscription
from gateway.store.record import Head

# After this many seconds without a block, the store is asked for the stream's last event.
SILENT_SECONDS = 1.0
# For this many seconds after an event, the store is asked once a second; later it is asked less and less
# often.
LIVELY_SECONDS = 10.0
LONGEST_LOOK_SECONDS = 14.0  # longest time in seconds between two questions to the store
# The store is asked this many seconds after the end of a lease, because the lease has then surely ended.
MARGIN_SECONDS = 0.05


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
        # Done when the server has acknowledged the subscription. From then on, publishes reach this process.
        self.acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        now = _now()
        self.heard_at = now  # when the last block was received
        self.looked_at = now  # when the store was last asked
        self.moved_at = now  # when the store last named an event that a reader lacked
        # How many answers of the store in a row named an event of which no block was received.
        self.unheard = 0
        self._unheard_id = ""  # the id of that event
        # When the worker's lease ends, or the waiting time of a queued job, as far as this process knows.
        self.lease_at = math.inf
        self.readers: set[Subscription] = set()
        self.fresh: list[Block] = []  # blocks that were received and are not yet offered to the readers

    def acknowledge(self) -> None:
        """Note that the server has subscribed this process.

        A block that was published before is only in the log, so every reader must read the log.
        """
        if not self.acknowledged.done():
            self.acknowledged.set_result(None)
        self.unheard = 0
        self.doubt()

    def doubt(self) -> None:
        """Make every reader read the log, each from its own last event on."""
        for reader in self.readers:
            reader.lose()

    def look_at(self, now: float) -> float:
        """Return the time at which to ask the store.

        That is after 1 s of silence, then once a second, and later less and less often. The store is also
        asked when a lease or a wait may have ended.
        """
        silent = now - max(self.heard_at, self.moved_at)
        wait = SILENT_SECONDS if silent <= LIVELY_SECONDS else min(silent / 5, LONGEST_LOOK_SECONDS)
        return min(max(self.heard_at, self.looked_at) + wait, self.lease_at)

    def looked(self, head: Head) -> None:
        """Note the store's answer. A reader that lacks the stream's last event must read the log."""
        if self.heard_at > self.looked_at:
            self.unheard = 0
        self.looked_at = _now()
        behind = [reader for reader in self.readers if reader.head != head.last_id and not reader.doubt]
        for reader in behind:
            reader.lose()
        if behind:
            self.moved_at = self.looked_at
            # A record may name an event that the log does not have. If the store names the same event again,
            # this is not another lost publish.
            self.unheard += head.last_id not in ("", self._unheard_id)
            self._unheard_id = head.last_id
        left = head.look_in_ms
        if left is None:
            self.lease_at = math.inf
        else:
            self.lease_at = self.looked_at + (left / 1000 + MARGIN_SECONDS if left else SILENT_SECONDS)


def channel_of(stream_id: str) -> bytes:
    """Return the name of the channel on which a stream's blocks are published."""
    return b"live:%b" % stream_id.encode()


def _now() -> float:
    return asyncio.get_running_loop().time()
