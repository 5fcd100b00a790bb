"""What wakes readers that wait for something other than a stream's events: a publish on a channel of its own.

A bell says only that there may be something new. Whoever is woken looks at the store.
"""

from __future__ import annotations

import asyncio


class Bell:
    """One channel, and those of this process that wait for it."""

    __slots__ = ("channel", "waiting")

    def __init__(self, channel: bytes) -> None:
        self.channel = channel
        self.waiting: set[asyncio.Event] = set()

    def acknowledge(self) -> None:
        """The server has subscribed this process: what was published before was not heard."""
        self.ring()

    def ring(self) -> None:
        """Wake all that wait."""
        for one in self.waiting:
            one.set()
