"""A caller's order: the stream to start, and the data of the request that is not in its body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.protocol import idempotency_hash
from gateway.streams.start import Start


@dataclass(frozen=True, slots=True)
class Order:
    """An order to start a stream."""

    start: Start
    owner: str
    key: str = ""  # the Idempotency-Key; empty: there is none
    # The trace that the stream belongs to; empty: there is none.
    traceparent: str = ""
    followed: bool = False  # the caller reads the events in the answer to this request
    # Claims about the caller that the chain may read.
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def key_hash(self) -> str:
        """The name of the key in the store. It is different for each owner, and empty without a key."""
        return idempotency_hash(self.owner, self.key) if self.key else ""
