"""What a claim has appended in the last seconds: a store that has lost it gets the same bytes again."""

from __future__ import annotations

import asyncio
from collections import deque

from gateway.store.record import Batch

KEPT_SECONDS, KEPT_BYTES = 10.0, 1024 * 1024


class Tail:
    """Batches that stand, kept for longer than a store takes to save them or to copy them to its replicas."""

    def __init__(self) -> None:
        self._batches: deque[tuple[float, Batch]] = deque()
        self._bytes = 0

    def add(self, batch: Batch) -> None:
        """Keep this batch. Batches older than 10 s, and all but the last MiB, are dropped."""
        now = asyncio.get_running_loop().time()
        self._batches.append((now, batch))
        self._bytes += len(batch.frames)
        while self._batches and (self._batches[0][0] < now - KEPT_SECONDS or self._bytes > KEPT_BYTES):
            self._bytes -= len(self._batches.popleft()[1].frames)

    def since(self, log_end: int) -> list[Batch]:
        """All batches from `log_end` on, where the log ends now. Empty when the first of them was dropped."""
        missing = [batch for _, batch in self._batches if batch.position >= log_end]
        return missing if missing and missing[0].position == log_end else []
