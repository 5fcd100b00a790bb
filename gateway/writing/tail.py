"""The batches that a claim appended in the last seconds. If the store lost them, they are appended again."""

from __future__ import annotations

import asyncio
from collections import deque

from gateway.store.record import Batch

KEPT_SECONDS, KEPT_BYTES = 10.0, 1024 * 1024


class Tail:
    """Appended batches. They are kept longer than a store needs to save them or to copy them to replicas."""

    def __init__(self) -> None:
        self._batches: deque[tuple[float, Batch]] = deque()
        self._bytes = 0

    def add(self, batch: Batch) -> None:
        """Add a batch. Batches older than 10 s are dropped, and older ones that exceed 1 MiB in total."""
        now = asyncio.get_running_loop().time()
        self._batches.append((now, batch))
        self._bytes += len(batch.frames)
        while self._batches and (self._batches[0][0] < now - KEPT_SECONDS or self._bytes > KEPT_BYTES):
            self._bytes -= len(self._batches.popleft()[1].frames)

    def since(self, log_end: int) -> list[Batch]:
        """Return all batches from `log_end` on, which is the present end of the log.

        Return an empty list if the first of these batches was dropped.
        """
        missing = [batch for _, batch in self._batches if batch.position >= log_end]
        return missing if missing and missing[0].position == log_end else []
