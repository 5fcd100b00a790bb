"""What a claim has appended in the last seconds: a store that loses its tail gets the same bytes again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KEPT_SECONDS, KEPT_BYTES = 10.0, 1024 * 1024


@dataclass(slots=True)
class Batch:
    """One append: whole frames, where they begin, and what the record says with them."""

    position: int
    frames: bytes
    last_id: str
    status: str
    fields: Mapping[str, Any]


class Tail:
    """Batches that stand, for longer than a store may take to make them last."""

    def __init__(self) -> None:
        self._batches: deque[tuple[float, Batch]] = deque()
        self._bytes = 0

    def add(self, batch: Batch) -> None:
        """One more; what is older than 10 s, or before the last MiB, is let go."""
        now = asyncio.get_running_loop().time()
        self._batches.append((now, batch))
        self._bytes += len(batch.frames)
        while self._batches and (self._batches[0][0] < now - KEPT_SECONDS or self._bytes > KEPT_BYTES):
            self._bytes -= len(self._batches.popleft()[1].frames)

    def since(self, log_end: int) -> list[Batch]:
        """All from where a log ends now; none when the first of them is not here any more."""
        missing = [batch for _, batch in self._batches if batch.position >= log_end]
        return missing if missing and missing[0].position == log_end else []
