"""Wake readers that wait for something other than a stream's events.

A bell has a channel of its own. A publish on this channel says only that there may be something new. The
reader that is woken must read the store.
"""

from __future__ import annotations

import asyncio


class Bell:
    """One channel, and the events of the readers in this process that wait for a publish on it."""

    __slots__ = ("channel", "waiting")

    def __init__(self, channel: bytes) -> None:
        self.channel = channel
        self.waiting: set[asyncio.Event] = set()

    def acknowledge(self) -> None:
        """Wake all readers: a publish before the server subscribed this process did not reach it."""
        self.ring()

    def ring(self) -> None:
        """Wake all readers that wait."""
        for one in self.waiting:
            one.set()
